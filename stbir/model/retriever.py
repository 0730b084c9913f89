"""The model: three towers that meet in one space (STBIR, arXiv 2604.15735, section on encoders)."""

import copy
from collections.abc import Mapping

from torch import Tensor, nn

from stbir.config import Modality
from stbir.errors import InputError
from stbir.model.encoders import Encoder, ImageEncoder, TextEncoder
from stbir.model.fusion import Gate, fuse
from stbir.model.hubness import ASKING, SHARE, Hubness

SHARED = ("trunk", "project", "multiscale")  # of sketches and photos, where they are tied


class Retriever(nn.Module):
    """Sketch, photo and text towers, and perhaps a gate that weighs sketch against text in a query.

    All features are unit vectors (B, D).
    """

    def __init__(
        self, sketch: ImageEncoder, photo: ImageEncoder, text: TextEncoder, gate: Gate | None = None
    ) -> None:
        super().__init__()
        self.sketch, self.photo, self.text, self.gate = sketch, photo, text, gate

    @property
    def dim(self) -> int:
        """D, the width of the common space."""
        return self.photo.dim

    def tower(self, modality: Modality) -> Encoder:
        """The encoder of one modality."""
        towers: dict[Modality, Encoder] = {"sketch": self.sketch, "photo": self.photo, "text": self.text}
        return towers[modality]

    def tie(self, shared_encoder: bool) -> None:
        """Let sketches go through the trunk and projections of photos, or through equal ones of their own."""
        if shared_encoder or self.sketch.trunk is self.photo.trunk:
            for name in SHARED:
                part = getattr(self.photo, name)
                setattr(self.sketch, name, part if shared_encoder else copy.deepcopy(part))

    def measure_hubness(self, features: Mapping[Modality, Tensor]) -> None:
        """Tell the photo tower what is asked in training, (N, D) a modality of each of the three.

        From then on the scores of hubs are corrected. Raises InputError where the model has no place for it,
        or was told before.
        """
        marks, hubs = [self.sketch.hubness, self.text.hubness], self.photo.hubness
        if not isinstance(hubs, Hubness):
            raise InputError("model.hubness: there is none; set how many queries it keeps")
        if hubs.measured:
            raise InputError("model.hubness: it is measured already, and features hold it")
        width = hubs.queries.shape[2]
        hubs.measure([features[kind][:, :width] for kind in ASKING], features["photo"][:, :width])
        for mark in marks:
            mark.share.fill_(SHARE)  # type: ignore[union-attr, operator]

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
        """Sketch pixels and/or token ids → the fused query (B, D)."""
        return fuse(
            None if sketch is None else self.encode_sketch(sketch),
            None if text is None else self.encode_text(text),
            sketch_weight,
            self.gate,
        )
