"""Construction of a text encoder: open_clip's, a pretrained sentence encoder, or a bag of words."""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.model import CustomTextCLIP
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import Tensor, nn

from stbir.config import ModelConfig, TextEncoderConfig
from stbir.errors import InputError
from stbir.model.backbones import create_clip_text_backbone
from stbir.model.encoders import TextEncoder, Tokenize
from stbir.model.hubness import build_hubness
from stbir.model.projection import build_projection
from stbir.model.sentence_backbone import create_sentence_backbone
from stbir.model.weights import convert_library_errors

WORD_STD = 0.01
CACHED_TEXTS = 2**14  # each about 1 KB of token ids; captions recur in every epoch


def build_text_encoder(
    model_config: ModelConfig, pretrained: bool, clip: CustomTextCLIP | None = None
) -> TextEncoder:
    """The text encoder of a resolved configuration; it uses only the appearance dimensions, if any.

    clip: its pretrained CLIP model, if that has been built already.
    """
    config, dim = model_config.text, model_config.appearance_dims or model_config.dim
    backbone, width, tokenize = _create_backbone(config, dim, pretrained, clip)
    projection = build_projection(width, dim, allow_identity=config.library != "hf")
    hubness = build_hubness(model_config, "text")
    words = None
    if config.word_vectors:
        pad = int(backbone.pad)  # type: ignore[arg-type]
        words = _create_word_vectors(config.options["config"]["vocab_size"], dim, pad)
    return TextEncoder(backbone, projection, tokenize, model_config.dim, config.frozen, words, hubness)


def _create_backbone(
    config: TextEncoderConfig, dim: int, pretrained: bool, clip: CustomTextCLIP | None
) -> tuple[nn.Module, int, Tokenize]:
    """The backbone, the width of its output, and its tokenizer."""
    if config.library == "hf":
        sentence, width = create_sentence_backbone(config, pretrained)
        return sentence, width, sentence.tokenize
    if config.library == "words":
        return _create_words(config, dim), dim, _create_tokenizer(config.options)
    return *create_clip_text_backbone(config, pretrained, clip), _create_tokenizer(config.options)


def _create_words(config: TextEncoderConfig, dim: int) -> nn.Module:
    """A bag of words of open_clip's tokenizer."""
    with convert_library_errors(f"text encoder {config.model!r}"):
        vocab_size, min_size = int(config.options["vocab_size"]), SimpleTokenizer().vocab_size
        if vocab_size < min_size:
            raise ValueError(f"vocab_size is below the tokenizer's {min_size}")
    return _create_word_vectors(vocab_size, dim)


class WordVectors(nn.Module):
    """Sum of word vectors: token ids (B, L) → (B, C), without those of padding."""

    def __init__(self, weight: nn.Parameter, padding_idx: int) -> None:
        """weight: (V, C), a row for each token id."""
        super().__init__()
        self.weight, self.padding_idx = weight, padding_idx

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """The same sum; in an exported graph without the loop of an embedding bag, which OpenVINO refuses."""
        if not torch.compiler.is_exporting():
            return F.embedding_bag(tokens_BL, self.weight, mode="sum", padding_idx=self.padding_idx)
        is_word_BL1 = tokens_BL.ne(self.padding_idx).unsqueeze(-1)
        vectors_BC: Tensor = (F.embedding(tokens_BL, self.weight) * is_word_BL1).sum(1)
        return vectors_BC


def _create_word_vectors(vocab_size: int, dim: int, pad: int = 0) -> WordVectors:
    """`pad` is the token id of padding, whose vector is 0."""
    weight = nn.EmbeddingBag(vocab_size, dim, mode="sum", padding_idx=pad).weight
    # Words without training examples keep vectors of this size, small compared with trained ones.
    nn.init.normal_(weight, std=WORD_STD)
    nn.init.zeros_(weight[pad])
    return WordVectors(nn.Parameter(weight.detach()), pad)


def _create_tokenizer(options: dict[str, Any]) -> Tokenize:
    length = int(options.get("context_length", 77))
    name = options.get("hf_tokenizer_name")
    if not name:
        tokenize_text = lru_cache(CACHED_TEXTS)(SimpleTokenizer(context_length=length))
        return lambda texts: torch.cat([tokenize_text(text) for text in texts])
    try:
        tokenizer: Tokenize = HFTokenizer(
            name, context_length=length, **(options.get("tokenizer_kwargs") or {})
        )
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        remedy = "pip install transformers, and make its tokenizer reachable"
        raise InputError(f"model: cannot load tokenizer {name!r}: {reason}; {remedy}") from error
    return tokenizer
