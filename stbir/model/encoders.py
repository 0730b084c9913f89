"""The encoders: input of one modality → unit vectors. Pixels become floats here, on the device."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stbir.config import Preprocess
from stbir.errors import InputError
from stbir.model.hubness import HubnessCorrection, HubnessQueryHead

Tokenize = Callable[[Sequence[str]], Tensor]
HubnessModule = HubnessCorrection | HubnessQueryHead
FULL_SCALE = 255.0


def is_inside(name: str, paths: Sequence[str]) -> bool:
    """Whether a dotted name is one of `paths` or below it; `blocks.10` is not below `blocks.1`."""
    return any(name == path or name.startswith(f"{path}.") for path in paths)


def _set_trainable(encoder: nn.Module, trainable: bool, frozen: Sequence[str]) -> None:
    """Set `requires_grad` of all parameters; those in `frozen` stay frozen. Raises InputError if unknown."""
    parameters = [name for name, _ in encoder.named_parameters()]
    known = {*parameters, *(name for name, _ in encoder.named_modules())}
    for path in frozen:
        if path not in known:
            raise InputError(f"frozen: no module or parameter {path!r}; the first is {parameters[0]}")
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(trainable and not is_inside(name, frozen))


class ImageEncoder(nn.Module):
    """An image backbone (`trunk`, from open_clip or timm) and a projection of its output.

    multiscale: projections of earlier feature maps, added to the first.
    appearance: head for the last dimensions of photos, of equal weight as the others. Sketches have zeros
        there. See docs/decisions/0007.
    hubness: appends dimensions for hubness correction to the unit vector.
    frozen: paths of modules or parameters that are never trainable, e.g. `trunk.blocks.1`.
    fix_batch_norm: batch norms keep their statistics in training too.
    scales: of the input. In train mode the first counts, in eval mode the mean over all.
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
        hubness: HubnessModule | None = None,
        scales: tuple[float, ...] = (1.0,),
    ) -> None:
        super().__init__()
        self.trunk, self.project, self.appearance, self.hubness = trunk, project, appearance, hubness
        self.multiscale = nn.ModuleList(multiscale)
        self.preprocess, self.scales, self._dim = preprocess, scales, dim
        self.frozen, self.fix_batch_norm = frozen, fix_batch_norm
        self._stage_frozen: tuple[str, ...] = ()
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocess, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)
        self.set_trainable(True)

    @property
    def dim(self) -> int:
        """D, the width of the embedding."""
        return self._dim + (0 if self.hubness is None else self.hubness.num_dims)

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (B, C, H, W), C = 3 or 1 (grey, replicated) → unit vectors (B, D), float32."""
        pixels = pixels.expand(-1, 3, -1, -1)
        unit, *others = (self._embed(pixels, scale) for scale in self.scales[: 1 if self.training else None])
        if others:
            unit = F.normalize(sum(others, unit), dim=-1)
        return unit if self.hubness is None else self.hubness(unit)

    def _embed(self, pixels: Tensor, scale: float) -> Tensor:
        out, maps = self._forward_trunk(self._resize(self._normalize(pixels), scale))
        structure = self.project(out) + sum(project(maps) for project in self.multiscale)
        unit = F.normalize(structure.float(), dim=-1)
        if self.appearance is None:
            return F.pad(unit, (0, self._dim - unit.shape[1]))
        appearance = F.normalize(self.appearance(maps, pixels).float(), dim=-1)
        return F.normalize(torch.cat([unit, appearance], dim=-1), dim=-1)

    def _forward_trunk(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The backbone's output and, if a module uses them, its intermediate feature maps."""
        if self.appearance is None and not self.multiscale:
            return self.trunk(x), []
        last, maps = self.trunk.forward_intermediates(x)  # type: ignore[operator]
        return self.trunk.forward_head(last, pre_logits=True), maps  # type: ignore[operator]

    def _resize(self, x: Tensor, scale: float) -> Tensor:
        """(B, 3, H, W) → the same at that scale of the encoder's input."""
        if scale == 1:
            return x
        size = round(scale * self.preprocess.size)  # constant: backends trace this
        resized = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
        return resized.contiguous(memory_format=torch.channels_last)

    def _normalize(self, pixels: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) → floats as in the pretraining of the backbone, (B, 3, H, W)."""
        x = (pixels.to(self.mean.dtype) / FULL_SCALE - self.mean) / self.std
        return x.contiguous(memory_format=torch.channels_last)

    def set_trainable(self, trainable: bool, frozen: tuple[str, ...] = ()) -> None:
        """Set `requires_grad` of all parameters; those in `frozen` and `self.frozen` stay frozen.

        Raises InputError if there is no such module or parameter.
        """
        self._stage_frozen = frozen
        _set_trainable(self, trainable, (*self.frozen, *frozen))

    def train(self, mode: bool = True) -> "ImageEncoder":
        """As in nn.Module, but fixed and frozen batch norms stay in eval mode."""
        super().train(mode)
        for name, module in self.named_modules():
            fixed = self.fix_batch_norm or is_inside(name, (*self.frozen, *self._stage_frozen))
            if fixed and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


class TextEncoder(nn.Module):
    """A text backbone (`trunk`) with its tokenizer, and a projection into the last of `dim` dimensions.

    words: word vectors on the same tokens, added to the projection.
    """

    def __init__(
        self,
        trunk: nn.Module,
        project: nn.Module,
        tokenize: Tokenize,
        dim: int,
        frozen: tuple[str, ...] = (),
        words: nn.Module | None = None,
        hubness: HubnessModule | None = None,
    ) -> None:
        super().__init__()
        self.trunk, self.project, self.words, self.hubness = trunk, project, words, hubness
        self._dim = dim
        self._tokenize, self.frozen = tokenize, frozen
        self.set_trainable(True)

    @property
    def dim(self) -> int:
        """D, the width of the embedding."""
        return self._dim + (0 if self.hubness is None else self.hubness.num_dims)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts → token ids (B, L), int64, truncated to the context length."""
        return self._tokenize(list(texts))

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids (B, L) → unit vectors (B, D), float32."""
        projected = self.project(self.trunk(tokens))
        if self.words is not None:
            projected = projected + self.words(tokens)
        projected = F.normalize(projected.float(), dim=-1)
        unit = F.pad(projected, (self._dim - projected.shape[1], 0))
        return unit if self.hubness is None else self.hubness(unit)

    def set_trainable(self, trainable: bool, frozen: tuple[str, ...] = ()) -> None:
        """As in `ImageEncoder`, but a stage's `frozen` applies to image encoders only."""
        _set_trainable(self, trainable, self.frozen)

    def train(self, mode: bool = True) -> "TextEncoder":
        """As in nn.Module, but frozen modules stay in eval mode: without dropout."""
        super().train(mode)
        for name, module in self.named_modules():
            if is_inside(name, self.frozen):
                module.eval()
        return self


Encoder = ImageEncoder | TextEncoder
