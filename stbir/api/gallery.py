"""Galleries: photos indexed in this process, and their search by sketch, text or both."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from stbir.api.hits import Hit, Hits
from stbir.api.inputs import SketchInput
from stbir.api.model import Model
from stbir.catalogue.origin import photo_uri
from stbir.catalogue.registry import open_photos
from stbir.config.choices import INDEX_THRESHOLD, NEGATIVE_WEIGHT
from stbir.embedding.decode import DecodedPart, UnreadPart
from stbir.embedding.explanation import Explanation
from stbir.embedding.gallery_update import EmbeddingSpace, UpdatePlan, plan_update, update_table
from stbir.embedding.local_pipeline import embed_catalogue
from stbir.embedding.match_probability import choose_curve, with_matches
from stbir.errors import InputError
from stbir.gallery.arrays import Features
from stbir.gallery.filters import Condition
from stbir.gallery.gallery import Gallery
from stbir.gallery.gallery import open_gallery as open_table
from stbir.gallery.gated_publish import index_and_publish
from stbir.gallery.index import plan_index
from stbir.gallery.search import Hit as Match
from stbir.gallery.steering import Penalty, Steering, search_steered
from stbir.gallery.table_writer import delete_intermediate_versions
from stbir.storage.folder import Folder
from stbir.storage.lock import Lock, artifact_lock
from stbir.storage.manifest import read_manifest

LOCAL_LIMIT = 20_000  # photos; two cores embed ViT-B/32 at about 20 photos/s


@dataclass(frozen=True)
class Negative:
    """What a hit should not show: a text, a sketch or both. `weight`, from 0 to 1: 0 has no effect."""

    text: str | None = None
    sketch: SketchInput | None = None
    weight: float = NEGATIVE_WEIGHT


class PhotoGallery:
    """A published version of a gallery, open for search with the model that made it."""

    def __init__(self, uri: str, model: Model) -> None:
        """Raises InputError for a missing gallery, or one of another model."""
        self._gallery: Gallery = open_table(uri, model.digest)
        self.uri, self.model = uri, model
        self.counts = read_manifest(Folder(uri), "gallery").counts

    def __len__(self) -> int:
        return self._gallery.count

    def __repr__(self) -> str:
        return f"PhotoGallery({self.uri}, {len(self)} photos)"

    @property
    def categories(self) -> list[str]:
        """The categories of the photos, sorted."""
        return self._gallery.categories

    @property
    def columns(self) -> dict[str, str]:
        """The columns that conditions may name, with their types."""
        return self._gallery.columns

    def search(
        self,
        sketch: SketchInput | None = None,
        text: str | None = None,
        k: int = 10,
        *,
        sketch_weight: float = 0.5,
        category: str | None = None,
        where: Sequence[Condition] = (),
        without: Sequence[str | Negative] = (),
        like: Sequence[str] = (),
        unlike: Sequence[str] = (),
        group: bool = False,
        min_match: float = 0.0,
    ) -> Hits:
        """The k photos nearest to a sketch, a text, or both, best first.

        A hit is of the category and matches all conditions of `where`. without: what a hit should not show.
        like, unlike: ids of photos marked as relevant or not, which move the query and are no hits; `like`
        alone is a query too. group: near-duplicates form one hit, with `count` and `duplicates`. min_match:
        the least probability that a hit is the photo meant; no hits say that nothing fits. The model knows
        it if it was measured (`evaluate.py --store-probabilities`), and not for marks and negatives.

        Raises InputError as `Model.encode_query`, for k < 1, an unknown category or photo, a condition that
        does not fit the columns, and `min_match` of an unknown probability.
        """
        for name, value in (("without", without), ("like", like), ("unlike", unlike)):
            if isinstance(value, str):
                raise InputError(f"{name}: {value!r} is not a list; give [{value!r}]")
        penalties = tuple(self._penalty(f"without.{n}", each) for n, each in enumerate(without))
        steering = Steering(penalties, tuple(like), tuple(unlike), group=group)
        is_by_marks = sketch is None and text is None and bool(like)
        query_D = None if is_by_marks else self.model.encode_query(sketch, text, sketch_weight)[0]
        hits = search_steered(self._gallery, query_D, k, steering, category, where)
        kind = "+".join(name for name, part in (("sketch", sketch), ("text", text)) if part is not None)
        curve = choose_curve(self.model.match_curves, kind, sketch_weight, steering.changes_scores)
        matches = with_matches(hits, curve, min_match)
        return Hits([self._hit(match) for match in matches], self.thumbnail)

    def explain(
        self,
        hit: Hit | str,
        sketch: SketchInput | None = None,
        text: str | None = None,
        *,
        sketch_weight: float = 0.5,
    ) -> Explanation:
        """Why a photo, a hit or its id, is found: what each part of the sketch and each word contributed.

        Explains the cosine of sketch and text with the photo; what else steers a search has no part in it.
        Raises InputError as `Model.explain`, and for an unknown photo.
        """
        photo_id = hit if isinstance(hit, str) else hit.photo_id
        photo_D = self._gallery.vector(photo_id)
        if photo_D is None:
            raise InputError(f"hit: {photo_id!r} is not in the gallery; give a hit or its photo id")
        return self.model.explain(photo_D, sketch, text, sketch_weight)

    def _penalty(self, field: str, negative: str | Negative) -> Penalty:
        """Raises InputError that names the field."""
        if isinstance(negative, str):
            negative = Negative(negative)
        text = (negative.text or "").strip() or None
        if text is None and negative.sketch is None:
            raise InputError(f"{field}: neither text nor sketch; give one of them")
        if not 0 <= negative.weight <= 1:
            raise InputError(f"{field}.weight: {negative.weight} is not between 0 and 1")
        try:
            [vector_D] = self.model.encode_query(negative.sketch, text)
        except InputError as error:
            raise type(error)(f"{field}.{error}") from error
        return Penalty(vector_D, negative.weight)

    def thumbnail(self, photo_id: str) -> bytes | None:
        """The JPEG thumbnail of a photo; None for an unknown id."""
        return self._gallery.thumbnail(photo_id)

    def _hit(self, match: Match) -> Hit:
        uri = photo_uri(self._gallery.origin, match.photo_id, self._gallery.value)
        hit = Hit(match.photo_id, match.score, match.category, match.text, uri)
        return replace(hit, count=match.count, duplicates=match.duplicates, match=match.match)


def open_gallery(uri: str, model: Model) -> PhotoGallery:
    """Open the published version of a gallery. Raises InputError as PhotoGallery does."""
    return PhotoGallery(uri, model)


def index(
    photos: str | os.PathLike[str],
    model: Model,
    gallery: str | os.PathLike[str],
    *,
    split: str | None = None,
    local_limit: int = LOCAL_LIMIT,
    max_error_rate: float = 0.01,
    max_removed: float = 0.2,
    index_threshold: int = INDEX_THRESHOLD,
) -> PhotoGallery:
    """Embed photos in this process, and publish them as a gallery. The same call again updates it.

    photos: a folder of images, a table (.parquet, .csv, .tsv, .jsonl), .tar files, SHARDS (of which `split`
        takes one split), or KIND:URI, at a path or URI. An update embeds new and changed photos only, and
        removes those that are no longer there.
    local_limit: most photos for one process; above it, `ray_jobs/embed_gallery.py` does the same on Ray.
    max_error_rate, max_removed: largest share of unreadable photos, and of published photos that are removed.

    Raises InputError for unusable input, more photos than `local_limit`, or more removals than `max_removed`;
    JobFailedError for more errors than `max_error_rate`. Then the published version stays as it is.
    """
    _check_shares(max_error_rate=max_error_rate, max_removed=max_removed)
    catalogue, folder = open_photos(os.fspath(photos), split), Folder(os.fspath(gallery))
    num_listed = catalogue.count()
    if num_listed > local_limit:
        raise InputError(_over_limit(num_listed, local_limit, model, folder))
    with artifact_lock(folder, "gallery") as lock:
        plan = plan_update(catalogue, folder, EmbeddingSpace(model.digest, model.dim), max_removed)
        _update(plan, folder, model, lock, max_error_rate, index_threshold)
    return PhotoGallery(os.fspath(gallery), model)


def _update(
    plan: UpdatePlan, folder: Folder, model: Model, lock: Lock, max_error_rate: float, index_threshold: int
) -> None:
    def embed(parts: Iterator[DecodedPart | UnreadPart]) -> Iterator[tuple[DecodedPart, Features]]:
        encoder = model.prepare("photo", num_inputs=plan.listing.num_photos).photo
        return embed_catalogue(plan.listing.catalogue, parts, encoder)

    table = update_table(plan, folder, lock, embed, max_error_rate)
    index_plan = plan_index(table.num_rows, index_threshold)
    summary = index_and_publish(folder, table.version, model.digest, index_plan, table.counts, lock)
    delete_intermediate_versions(folder, summary["version"])


def _check_shares(**shares: float) -> None:
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise InputError(f"{name}: {value} is not a share between 0 and 1")


def _over_limit(num_listed: int, limit: int, model: Model, folder: Folder) -> str:
    checkpoint = model.uri or "CHECKPOINT (written by model.save)"
    return (
        f"photos: {num_listed} are listed, local_limit is {limit}; raise it, or embed them on Ray: python"
        f" ray_jobs/embed_gallery.py --checkpoint {checkpoint} --photos KIND:URI --gallery {folder.uri}"
    )
