"""The model: three encoders with a common embedding (STBIR, arXiv 2604.15735, section on encoders)."""

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from stbir.config import Modality
from stbir.model.encoders import Encoder, ImageEncoder, TextEncoder
from stbir.model.fusion import Gate, fuse
from stbir.model.hubness import CORRECTION_WEIGHT, QUERY_MODALITIES, HubnessCorrection, HubnessQueryHead

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

    def measure_hubness(
        self,
        features: Mapping[Modality, Tensor],
        photo_of: Mapping[Modality, Tensor],
        num_queries: int,
        num_dims: int,
    ) -> None:
        """Measure hubness from features without correction; scores are corrected afterwards.

        features: unit vectors (N, C) of each modality. photo_of: the row (N,) of each sketch's and text's own
        photo. The correction stores `num_queries` a kind and appends `num_dims` dimensions. A former one is
        replaced. The fusion gate keeps its output.
        """
        photos_PC = features["photo"]
        correction = HubnessCorrection(photos_PC.shape[1], num_queries, num_dims).to(photos_PC.device)
        queries, owners = ([by[m] for m in QUERY_MODALITIES] for by in (features, photo_of))
        correction.measure(queries, owners, photos_PC)
        if self.gate is not None:
            self.gate.rescale(self._gate_factors(correction))
        self.photo.hubness = correction
        for encoder, modality in zip((self.sketch, self.text), QUERY_MODALITIES, strict=True):
            encoder.hubness = HubnessQueryHead(modality, num_dims).to(photos_PC.device)
            encoder.hubness.share.fill_(CORRECTION_WEIGHT)

    def _gate_factors(self, correction: HubnessCorrection) -> Tensor:
        """Factors (D,) of the gate's weights, for queries that are corrected from now on.

        The correction divides a query by √(1 + CORRECTION_WEIGHT²), and its dimensions are new to the gate.
        """
        width = correction.queries.shape[2]
        factor_D = torch.ones(width + correction.num_dims, device=correction.queries.device)
        head = self.sketch.hubness
        if not isinstance(head, HubnessQueryHead) or not head.share:
            factor_D[:width], factor_D[width:] = math.sqrt(1 + CORRECTION_WEIGHT**2), 0
        return factor_D

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
