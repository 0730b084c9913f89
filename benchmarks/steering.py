"""Measures steered search on the photos of a split: negatives, marks and near-duplicates.

`python benchmarks/steering.py --checkpoint URI --shards URI --split test [--words red,blue]` indexes the
photos of the split. `words` are those of captions that negatives name, and by which a simulated user marks
hits. The last line is JSON, with one object each:

negatives: the share of the ten hits whose captions have the word, without and with the negative, and the rank
    of the ground truth. Queries: each sketch, and each word among its hits that its caption lacks.
marks: a user goes through the hits, and marks those that share a word with the ground truth as relevant and
    the others as not ("both"), or the first alone ("relevant"). Marked photos are hits of neither search.
duplicates: each photo is indexed with five changed copies; the copies in its group, and groups that hold
    different photos.
"""

import argparse
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import stbir
from ray_jobs.cli import run
from stbir.data.shards import open_shards
from stbir.embedding.queries import Queries, SplitFeatures, embed, make_queries
from stbir.gallery.gallery import Gallery, open_gallery
from stbir.gallery.search import Hit
from stbir.gallery.steering import Penalty, Steering, search_steered
from stbir.images import encode_as

K = 10
NUM_MARKS = (1, 3, 5)
COLOURS = "red,orange,yellow,green,teal,blue,purple,pink,brown,grey,gray,black,white"
# JPEG quality and scale of the copies.
COPIES = ((90, 1.0), (50, 1.0), (30, 1.0), (80, 0.5), (80, 2.0))


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Index the split, then measure."""
    model, words = stbir.load(args.checkpoint), args.words.split(",")
    rows = list(open_shards(args.shards).iter_rows(args.split))
    features = embed(model.retriever, rows)
    queries = make_queries(features, "per-sketch", 0.5)
    with tempfile.TemporaryDirectory() as scratch:
        stbir.index(args.shards, model, scratch, split=args.split)
        gallery = open_gallery(scratch, model.digest)
        captions = dict(zip(features.photo_ids, (set(_words(row["text"])) for row in rows), strict=True))
        negatives = dict(zip(words, model.encode_text(words), strict=True))
        measure = (gallery, features, captions)
        return {
            "negatives": {
                kind: measure_negatives(*measure, queries[kind], negatives, args.weight)
                for kind in ("sketch", "sketch+text")
            },
            "marks": {
                f"{num} {'relevant' if only else 'both'}": measure_marks(
                    *measure, queries["sketch"], set(words), num, only
                )
                for only in (False, True)
                for num in NUM_MARKS
            },
            "duplicates": measure_duplicates(model, [row["photo"] for row in rows]),
        }


def measure_negatives(
    gallery: Gallery,
    features: SplitFeatures,
    captions: dict[str, set[str]],
    queries: Queries,
    negatives: dict[str, Any],
    weight: float,
) -> dict[str, float]:
    """Means without and with the negative."""
    samples = []
    for vector_D, target in zip(queries.vectors_QD, queries.target_Q, strict=True):
        target_id = features.photo_ids[target]
        before = search_steered(gallery, vector_D, K, Steering())
        for word, negative_D in negatives.items():
            share = _share(before, lambda photo_id, word=word: word in captions[photo_id])
            if share and word not in captions[target_id]:
                steering = Steering((Penalty(negative_D, weight),))
                after = search_steered(gallery, vector_D, K, steering)
                rest = _share(after, lambda photo_id, word=word: word in captions[photo_id])
                samples.append([share, rest, *_found(before, target_id), *_found(after, target_id)])
    names = ("share", "share_after", "acc@1", "recall@10", "acc@1_after", "recall@10_after")
    return _means(names, samples)


def measure_marks(
    gallery: Gallery,
    features: SplitFeatures,
    captions: dict[str, set[str]],
    queries: Queries,
    words: set[str],
    num_marks: int,
    only_relevant: bool,
) -> dict[str, float]:
    """Means without and with the marks. P@10: the share of hits that share a word with the ground truth."""
    samples = []
    for vector_D, target in zip(queries.vectors_QD, queries.target_Q, strict=True):
        target_id = features.photo_ids[target]
        wanted = captions[target_id] & words
        ranking = search_steered(gallery, vector_D, gallery.count, Steering(exclude=(target_id,)))
        relevant = {hit.photo_id for hit in ranking if captions[hit.photo_id] & wanted}
        shown = [hit.photo_id for hit in ranking if not only_relevant or hit.photo_id in relevant]
        like = tuple(photo_id for photo_id in shown[:num_marks] if photo_id in relevant)
        unlike = tuple(photo_id for photo_id in shown[:num_marks] if photo_id not in relevant)
        if not wanted or (only_relevant and len(like) < num_marks):
            continue
        before = search_steered(gallery, vector_D, K, Steering(exclude=like + unlike))
        after = search_steered(gallery, vector_D, K, Steering(like=like, unlike=unlike))
        precisions = [_share(hits, relevant.__contains__) for hits in (before, after)]
        samples.append([*precisions, *_found(before, target_id), *_found(after, target_id)])
    names = ("p@10", "p@10_after", "acc@1", "recall@10", "acc@1_after", "recall@10_after")
    return _means(names, samples)


def measure_duplicates(model: stbir.Model, photos: Sequence[bytes]) -> dict[str, float]:
    """The share of copies in the group of their photo, and the number of groups with different photos."""
    with tempfile.TemporaryDirectory() as photo_folder, tempfile.TemporaryDirectory() as gallery_folder:
        for n, photo in enumerate(photos):
            for copy, data in enumerate([photo, *_copies(photo)]):
                (Path(photo_folder) / f"{n}-{copy}.img").with_suffix(_suffix(data)).write_bytes(data)
        stbir.index(photo_folder, model, gallery_folder)
        gallery = open_gallery(gallery_folder, model.digest)
        [query] = model.encode_text(["a photo"])
        hits = search_steered(gallery, query, gallery.count, Steering(group=True))
    groups = [[_item(photo_id) for photo_id in (hit.photo_id, *hit.duplicates)] for hit in hits]
    folded = sum(len(group) - len(set(group)) for group in groups)
    return {
        "photos": len(photos),
        "cosine": round(gallery.statistics.duplicate_cosine, 4),
        "folded_copies": round(folded / (len(COPIES) * len(photos)), 4),
        "groups_of_different_photos": sum(len(set(group)) > 1 for group in groups),
    }


def _copies(photo: bytes) -> Iterator[bytes]:
    with Image.open(io.BytesIO(photo)) as image:
        rgb = image.convert("RGB")
    for quality, scale in COPIES:
        size = (max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale)))
        yield encode_as(rgb.resize(size, Image.Resampling.LANCZOS), "JPEG", quality=quality)


def _suffix(data: bytes) -> str:
    return ".png" if data.startswith(b"\x89PNG") else ".jpg"


def _item(photo_id: str) -> str:
    return photo_id.rpartition("-")[0]


def _words(text: str | None) -> list[str]:
    return "".join(letter if letter.isalpha() else " " for letter in (text or "").lower()).split()


def _share(hits: Sequence[Hit], is_counted: Any) -> float:
    return float(np.mean([bool(is_counted(hit.photo_id)) for hit in hits]))


def _found(hits: Sequence[Hit], target_id: str) -> tuple[bool, bool]:
    photo_ids = [hit.photo_id for hit in hits]
    return photo_ids[0] == target_id, target_id in photo_ids


def _means(names: Sequence[str], samples: Sequence[Sequence[float]]) -> dict[str, float]:
    means = np.mean(np.asarray(samples, float).reshape(-1, len(names)), axis=0)
    return {
        "n": len(samples),
        **{name: round(float(mean), 3) for name, mean in zip(names, means, strict=True)},
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("steering", description=__doc__)
    parser.add_argument("--checkpoint", required=True, metavar="URI")
    parser.add_argument("--shards", required=True, metavar="URI")
    parser.add_argument("--split", default="test")
    parser.add_argument("--words", default=COLOURS, help="of captions, separated by commas (%(default)s)")
    parser.add_argument("--weight", type=float, default=0.5, help="of a negative (%(default)s)")
    return parser


if __name__ == "__main__":
    run(main, parser())
