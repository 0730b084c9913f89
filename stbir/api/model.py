"""A model that encodes sketches, texts and photos: from a checkpoint, or CLIP without training."""

from collections import Counter
from collections.abc import Sequence
from functools import partial

import torch

from stbir.api.inputs import ImageInput, SketchInput, as_texts, photo_files, sketch_files
from stbir.config import MODALITIES, Modality, Recipe
from stbir.config.choices import Backend, Protocol
from stbir.data.shards import open_shards
from stbir.embedding.embed import (
    embed_photos,
    embed_query_sketches,
    embed_sketch_parts,
    embed_text_parts,
    embed_texts,
    fuse_vectors,
)
from stbir.embedding.explanation import Explanation, explain
from stbir.embedding.match_probability import MatchCurve, read_match_curves
from stbir.errors import InputError
from stbir.evaluation.evaluate import Evaluation, evaluate
from stbir.gallery.arrays import Features
from stbir.model import checkpoint
from stbir.model.backend import TORCH, BackendInUse, use_backend
from stbir.model.builder import build_retriever
from stbir.model.clip import clip_recipe
from stbir.model.graph_cache import DEFAULT_FOLDER
from stbir.model.retriever import Retriever
from stbir.storage.folder import Folder
from stbir.storage.lock import artifact_lock

_MIN_INPUTS_TO_EXPORT = 500  # in a process; an export takes the seconds that it saves on as many


class Model:
    """Encodes to unit vectors of one embedding: float32 arrays (N, D).

    `digest` identifies the embedding: a gallery opens only with the model that made it. `backends`: what runs
    each encoder that has been used (`stbir.model.backend`).
    """

    def __init__(
        self,
        retriever: Retriever,
        recipe: Recipe,
        digest: str,
        uri: str | None = None,
        backend: Backend = "auto",
    ) -> None:
        """`uri`: the checkpoint, if the model has been saved. `load` and `from_clip` make models."""
        self.retriever, self.recipe, self.digest, self.uri = retriever, recipe, digest, uri
        # The probability of a match by score and kind of query, if the checkpoint has it.
        self.match_curves: dict[str, MatchCurve] = read_match_curves(uri) if uri else {}
        self._backend, self.backends = backend, dict[Modality, BackendInUse]()
        self._num_inputs, self._prepared = Counter[Modality](), set[Modality]()

    def __repr__(self) -> str:
        return f"Model({self.recipe.name}, {self.dim} dimensions, {self.uri or 'not saved'})"

    @property
    def dim(self) -> int:
        """D, the width of the embedding."""
        return self.retriever.dim

    def prepare(self, *modalities: Modality, num_inputs: int = 1) -> Retriever:
        """The model, to encode `num_inputs` of each of `modalities` by its backend.

        The first use of an encoder exports it; with `auto` torch runs until it gains more than that costs.
        """
        for modality in modalities:
            self._num_inputs[modality] += num_inputs
            if self._backend == "auto" and self._num_inputs[modality] < _MIN_INPUTS_TO_EXPORT:
                self.backends[modality] = TORCH
            elif modality not in self._prepared:
                encoder = self.retriever.encoder(modality)
                self.backends[modality] = use_backend(encoder, modality, self._backend, DEFAULT_FOLDER)
                self._prepared.add(modality)
        return self.retriever

    def encode_sketch(self, sketches: SketchInput | Sequence[SketchInput]) -> Features:
        """One sketch or many → (N, D). A sketch is an image in any form, or strokes.

        Raises InputError for an image that cannot be read, and NoStrokeError if nothing is drawn.
        """
        files = sketch_files(sketches)
        return embed_query_sketches(self.prepare("sketch", num_inputs=len(files)).sketch, files)

    def encode_text(self, texts: str | Sequence[str]) -> Features:
        """One text or many → (N, D)."""
        several = as_texts(texts)
        return embed_texts(self.prepare("text", num_inputs=len(several)).text, several)

    def encode_photo(self, photos: ImageInput | Sequence[ImageInput]) -> Features:
        """One photo or many → (N, D). Raises InputError for an image that cannot be read."""
        files = photo_files(photos)
        return embed_photos(self.prepare("photo", num_inputs=len(files)).photo, files)

    def encode_query(
        self, sketch: SketchInput | None = None, text: str | None = None, sketch_weight: float = 0.5
    ) -> Features:
        """The query of a sketch, a text, or both → (1, D). `sketch_weight` 0.5 weighs both equally.

        Raises InputError if both are missing or the weight is not in [0, 1], and as `encode_sketch`.
        """
        sketch_1D = None if sketch is None else self.encode_sketch([sketch])
        text_1D = None if text is None else self.encode_text([text])
        return fuse_vectors(sketch_1D, text_1D, sketch_weight, self.retriever.gate)

    def explain(
        self,
        photo_D: Features,
        sketch: SketchInput | None = None,
        text: str | None = None,
        sketch_weight: float = 0.5,
    ) -> Explanation:
        """What each cell of a sketch and each word of a text contributes to its cosine with a photo (D,).

        Raises InputError as `encode_query`, and for a text of more than 64 words.
        """
        sketch_parts = text_parts = None
        if sketch is not None:
            [file] = sketch_files([sketch])
            sketch_parts = embed_sketch_parts(self.prepare("sketch").sketch, file)
        if text is not None:
            text_parts = embed_text_parts(self.prepare("text").text, *as_texts([text]))
        fuse = partial(fuse_vectors, sketch_weight=sketch_weight, gate=self.retriever.gate)
        return explain(photo_D, sketch_parts, text_parts, fuse)

    def evaluate(self, shards: str, split: str = "test", protocol: Protocol = "per-sketch") -> Evaluation:
        """Accuracy of sketch, text and sketch+text queries on a split of SHARDS (docs/method.md).

        `evaluate(…).results` has Acc@1/5/10, MRR and the median rank. Raises InputError for missing shards
        and an empty split. `ray_jobs/evaluate.py` writes a report.
        """
        data = open_shards(shards)
        num_photos = data.select_split(split).num_rows  # names the splits if there is none
        model = self.prepare(*MODALITIES, num_inputs=num_photos)
        return evaluate(model, data.iter_rows(split), protocol)

    def save(self, uri: str) -> str:
        """Write a model of `from_clip` as a CHECKPOINT, which commands and the endpoint take; returns `uri`.

        Raises InputError if another checkpoint is there, or if the model is a checkpoint already.
        """
        if self.uri is not None:
            raise InputError(f"model: it is the checkpoint {self.uri} already; copy that folder")
        with artifact_lock(Folder(uri), "checkpoint"):
            checkpoint.save_untrained(uri, self.retriever, self.recipe)
        self.uri = uri
        return uri


def load(uri: str, device: str | None = None, backend: Backend = "auto") -> Model:
    """The model of a CHECKPOINT at a path or URI. `device`: None takes a GPU if there is one.

    backend: what runs the encoders on a CPU: torch, openvino or onnxruntime; auto takes OpenVINO if the extra
        `stbir[openvino]` is installed, and the encoder and the number of its inputs are large enough.

    Raises InputError for a missing or damaged checkpoint; a backend that is not installed, on the first use.
    """
    pinned, digest = checkpoint.resolve_pinned(uri)
    retriever = checkpoint.load(pinned)
    return Model(_to_device(retriever, device), checkpoint.read_recipe(pinned), digest, uri, backend)


def from_clip(
    name: str, pretrained: str | None, device: str | None = None, backend: Backend = "auto"
) -> Model:
    """A CLIP model of open_clip without training; its image encoder also encodes sketches.

    pretrained: a tag of open_clip, which is downloaded, or the path or URI of a weights file; None for random
        weights. `Model.save` writes it as a CHECKPOINT, as `ray_jobs/init_checkpoint.py` does.

    Raises InputError for an unknown model or tag, and for weights that do not fit.
    """
    recipe = clip_recipe(name, pretrained)
    retriever = build_retriever(recipe.model)
    digest = checkpoint.compute_digest(retriever, recipe)
    return Model(_to_device(retriever, device), recipe, digest, backend=backend)


def _to_device(retriever: Retriever, device: str | None) -> Retriever:
    try:
        return retriever.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device: {device!r} cannot be used ({error}); leave it out") from error
