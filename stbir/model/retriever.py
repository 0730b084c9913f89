"""The model: three encoders with a common embedding (STBIR, arXiv 2604.15735, section on encoders)."""

import copy
from collections.abc import Mapping

from torch import Tensor, nn

from stbir.config import Modality
from stbir.errors import InputError
from stbir.model.encoders import Encoder, ImageEncoder, TextEncoder
from stbir.model.fusion import Gate, fuse
from stbir.model.hubness import CORRECTION_WEIGHT, QUERY_MODALITIES, HubnessCorrection

SHARED_MODULES = ("trunk", "project", "multiscale")  # of sketch and photo encoder


class Retriever(nn.Module):
    """Sketch, photo and text encoder, and optionally a fusion gate. Features are unit vectors (B, D)."""

    def __init__(
        self, sketch: ImageEncoder, photo: ImageEncoder, text: TextEncoder, gate: Gate | None = None
    ) -> None:
        super().__init__()
        self.sketch, self.photo, self.text, self.gate = sketch, photo, text, gate

    @property
    def dim(self) -> int:
        """D, the width of the embedding."""
        return self.photo.dim

    def encoder(self, modality: Modality) -> Encoder:
        """The encoder of one modality."""
        encoders: dict[Modality, Encoder] = {"sketch": self.sketch, "photo": self.photo, "text": self.text}
        return encoders[modality]

    def set_shared_encoder(self, shared: bool) -> None:
        """Use the photo encoder's modules for sketches too, or give the sketch encoder its own copies."""
        if shared or self.sketch.trunk is self.photo.trunk:
            for name in SHARED_MODULES:
                module = getattr(self.photo, name)
                setattr(self.sketch, name, module if shared else copy.deepcopy(module))

    def measure_hubness(self, features: Mapping[Modality, Tensor]) -> None:
        """Measure hubness from training features, (N, D) of each modality; scores are corrected afterwards.

        Raises InputError if the model has no hubness correction or it is measured already.
        """
        correction = self.photo.hubness
        if not isinstance(correction, HubnessCorrection):
            raise InputError("model.hubness is 0; set it to the number of stored queries")
        if correction.measured:
            raise InputError("model.hubness: measured already; the features contain the correction")
        width = correction.queries.shape[2]
        queries = [features[modality][:, :width] for modality in QUERY_MODALITIES]
        correction.measure(queries, features["photo"][:, :width])
        for head in (self.sketch.hubness, self.text.hubness):
            head.share.fill_(CORRECTION_WEIGHT)  # type: ignore[union-attr, operator]

    def encode_sketch(self, pixels: Tensor) -> Tensor:
        """uint8 (B, 1 or 3, H, W) → (B, D)."""
        return self.sketch(pixels)  # type: ignore[no-any-return]

    def encode_photo(self, pixels: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) → (B, D)."""
        return self.photo(pixels)  # type: ignore[no-any-return]

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token ids (B, L) → (B, D)."""
        return self.text(tokens)  # type: ignore[no-any-return]

    def encode_query(
        self, sketch: Tensor | None = None, text: Tensor | None = None, sketch_weight: float = 0.5
    ) -> Tensor:
        """Sketch pixels, token ids or both → the fused query (B, D)."""
        return fuse(
            None if sketch is None else self.encode_sketch(sketch),
            None if text is None else self.encode_text(text),
            sketch_weight,
            self.gate,
        )
