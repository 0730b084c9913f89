"""Text towers: one of open_clip's, or a bag of words made anew."""

from typing import Any

from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import nn

from stbir.config import ModelConfig, TextEncoderConfig
from stbir.model.backbones import clip_text_backbone, making
from stbir.model.encoders import TextEncoder, Tokenize
from stbir.model.hubness import hubness
from stbir.model.projection import projection

WORD_STD = 0.01


def text_encoder(config: ModelConfig, pretrained: bool) -> TextEncoder:
    """The tower of `config`, into its last `details` dimensions where it has these."""
    tower, dim = config.text, config.appearance_dims or config.dim
    if tower.library == "words":
        trunk, project = _word_bag(tower, dim), projection(dim, dim, keep=True)
    else:
        trunk, width = clip_text_backbone(tower, pretrained)
        project = projection(width, dim, keep=True)
    return TextEncoder(trunk, project, _tokenizer(tower.options), config.dim, hubness(config, "text"))


def _word_bag(tower: TextEncoderConfig, dim: int) -> nn.Module:
    """Token ids (B, L), 0 for none → (B, dim), the sum of their vectors."""
    with making(f"text tower {tower.model!r}"):
        if (size := int(tower.options["vocab_size"])) < (least := SimpleTokenizer().vocab_size):
            raise ValueError(f"vocab_size is below the tokenizer's {least}")
        bag = nn.EmbeddingBag(size, dim, mode="sum", padding_idx=0)
    # Words that training does not meet stay this small beside those it does, and so say little.
    nn.init.normal_(bag.weight, std=WORD_STD)
    nn.init.zeros_(bag.weight[0])
    return bag


def _tokenizer(options: dict[str, Any]) -> Tokenize:
    length = int(options.get("context_length", 77))
    name = options.get("hf_tokenizer_name")
    tokenize: Tokenize = (
        HFTokenizer(name, context_length=length, **(options.get("tokenizer_kwargs") or {}))
        if name
        else SimpleTokenizer(context_length=length)
    )
    return tokenize
