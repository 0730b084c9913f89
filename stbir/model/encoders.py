"""The encoders: one modality in, unit vectors out. Preprocessing to floats happens here, on the device."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stbir.config import HUBNESS_DIMS, Preprocess
from stbir.errors import InputError
from stbir.model.hubness import Hubness, Mark

Tokenize = Callable[[Sequence[str]], Tensor]
FULL_SCALE = 255.0


class ImageEncoder(nn.Module):
    """A picture trunk (open_clip or timm) and a projection into `dim` dimensions, or into the first of them.

    `multiscale`: projections of earlier maps. With `appearance` (of `model.appearance`) a
    photo has a second part, which counts as much as the first: what words can tell of it. A sketch has none,
    and zeros there. See docs/decisions/0007. `hubness` (of `model.hubness`) adds dimensions to the whole.

    `frozen` names parameter prefixes that never learn. With `fix_batch_norm` every batch norm keeps its
    statistics in training too: those of a folded or frozen trunk would be lost at the first step.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        project: nn.Module,
        preprocess: Preprocess,
        dim: int,
        frozen: tuple[str, ...] = (),
        fix_batch_norm: bool = True,
        multiscale: Sequence[nn.Module] = (),
        appearance: nn.Module | None = None,
        hubness: Mark | Hubness | None = None,
    ) -> None:
        super().__init__()
        self.trunk, self.project, self.appearance, self.hubness = trunk, project, appearance, hubness
        self.multiscale = nn.ModuleList(multiscale)
        self.preprocess, self._dim = preprocess, dim
        self.frozen, self.fix_batch_norm = frozen, fix_batch_norm
        self._stage_frozen: tuple[str, ...] = ()
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocess, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)
        self.learn(True)

    @property
    def dim(self) -> int:
        """D, the width of the common space."""
        return self._dim + (0 if self.hubness is None else HUBNESS_DIMS)

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (B, C, H, W), C = 3 or 1 (grey, replicated) → unit vectors (B, D), float32."""
        unit = self._unit(pixels)
        return unit if self.hubness is None else self.hubness(unit)

    def _unit(self, pixels: Tensor) -> Tensor:
        pixels = pixels.expand(-1, 3, -1, -1)
        out, maps = self._trunk(self._floats(pixels))
        first_part = self.project(out) + sum(multiscale(maps) for multiscale in self.multiscale)
        unit = F.normalize(first_part.float(), dim=-1)
        if self.appearance is None:
            return F.pad(unit, (0, self._dim - unit.shape[1]))
        second = F.normalize(self.appearance(maps, pixels).float(), dim=-1)
        return F.normalize(torch.cat([unit, second], dim=-1), dim=-1)

    def _trunk(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the trunk gives, and the maps before it where they are wanted."""
        if self.appearance is None and not self.multiscale:
            return self.trunk(x), []
        last, maps = self.trunk.forward_intermediates(x)  # type: ignore[operator]
        return self.trunk.forward_head(last, pre_logits=True), maps  # type: ignore[operator]

    def _floats(self, pixels: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) → what the trunk was trained on, (B, 3, H, W)."""
        x = (pixels.to(self.mean.dtype) / FULL_SCALE - self.mean) / self.std
        return x.contiguous(memory_format=torch.channels_last)

    def learn(self, trainable: bool, frozen: tuple[str, ...] = ()) -> None:
        """Let the parameters outside `frozen` and `frozen` (prefixes of names) learn, or none.

        Raises InputError where no parameter has such a name.
        """
        names = [name for name, _ in self.named_parameters()]
        for prefix in frozen:
            if not any(name.startswith(prefix) for name in names):
                raise InputError(f"frozen: no parameter begins with {prefix!r}; there is {names[0]}, …")
        self._stage_frozen = frozen
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(trainable and not name.startswith((*self.frozen, *frozen)))

    def train(self, mode: bool = True) -> "ImageEncoder":
        """As nn.Module's, but for the batch norms."""
        super().train(mode)
        for name, module in self.named_modules():
            fixed = self.fix_batch_norm or name.startswith((*self.frozen, *self._stage_frozen))
            if fixed and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


class TextEncoder(nn.Module):
    """A text trunk with its tokenizer, and a projection into `dim` dimensions, or into the last of them."""

    def __init__(
        self,
        trunk: nn.Module,
        project: nn.Module,
        tokenize: Tokenize,
        dim: int,
        hubness: Mark | Hubness | None = None,
    ) -> None:
        super().__init__()
        self.trunk, self.project, self.hubness, self._dim = trunk, project, hubness, dim
        self._tokenize = tokenize

    @property
    def dim(self) -> int:
        """D, the width of the common space."""
        return self._dim + (0 if self.hubness is None else HUBNESS_DIMS)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Captions → token ids (B, L), int64; longer captions are cut at the context length."""
        return self._tokenize(list(texts))

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids (B, L) → unit vectors (B, D), float32."""
        part = F.normalize(self.project(self.trunk(tokens)).float(), dim=-1)
        unit = F.pad(part, (self._dim - part.shape[1], 0))
        return unit if self.hubness is None else self.hubness(unit)

    def learn(self, trainable: bool, frozen: tuple[str, ...] = ()) -> None:
        """Let all parameters learn, or none; `frozen` is of picture towers."""
        self.requires_grad_(trainable)


Encoder = ImageEncoder | TextEncoder
