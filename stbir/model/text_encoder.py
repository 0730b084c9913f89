"""Construction of a text encoder: open_clip's, a pretrained sentence encoder, or a bag of words."""

from typing import Any

from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import nn

from stbir.config import ModelConfig, TextEncoderConfig
from stbir.errors import InputError
from stbir.model.backbones import create_clip_text_backbone
from stbir.model.encoders import TextEncoder, Tokenize
from stbir.model.hubness import build_hubness
from stbir.model.projection import build_projection
from stbir.model.sentence_backbone import create_sentence_backbone
from stbir.model.weights import convert_library_errors

WORD_STD = 0.01


def build_text_encoder(model_config: ModelConfig, pretrained: bool) -> TextEncoder:
    """The text encoder of a resolved configuration; it uses only the appearance dimensions, if any."""
    config, dim = model_config.text, model_config.appearance_dims or model_config.dim
    backbone, width, tokenize = _create_backbone(config, dim, pretrained)
    projection = build_projection(width, dim, allow_identity=config.library != "hf")
    hubness = build_hubness(model_config, "text")
    words = None
    if config.word_vectors:
        options = config.options["config"]
        words = _create_embedding_bag(options["vocab_size"], dim, options.get("pad_token_id") or 0)
    return TextEncoder(backbone, projection, tokenize, model_config.dim, config.frozen, words, hubness)


def _create_backbone(
    config: TextEncoderConfig, dim: int, pretrained: bool
) -> tuple[nn.Module, int, Tokenize]:
    """The backbone, the width of its output, and its tokenizer."""
    if config.library == "hf":
        sentence, width = create_sentence_backbone(config, pretrained)
        return sentence, width, sentence.tokenize
    if config.library == "words":
        return _create_words(config, dim), dim, _create_tokenizer(config.options)
    return *create_clip_text_backbone(config, pretrained), _create_tokenizer(config.options)


def _create_words(config: TextEncoderConfig, dim: int) -> nn.Module:
    """A bag of words of open_clip's tokenizer."""
    with convert_library_errors(f"text encoder {config.model!r}"):
        vocab_size, min_size = int(config.options["vocab_size"]), SimpleTokenizer().vocab_size
        if vocab_size < min_size:
            raise ValueError(f"vocab_size is below the tokenizer's {min_size}")
    return _create_embedding_bag(vocab_size, dim)


def _create_embedding_bag(vocab_size: int, dim: int, pad: int = 0) -> nn.EmbeddingBag:
    """Sum of word vectors: token ids (B, L), `pad` for padding → (B, dim)."""
    bag = nn.EmbeddingBag(vocab_size, dim, mode="sum", padding_idx=pad)
    # Words without training examples keep vectors of this size, small compared with trained ones.
    nn.init.normal_(bag.weight, std=WORD_STD)
    nn.init.zeros_(bag.weight[pad])
    return bag


def _create_tokenizer(options: dict[str, Any]) -> Tokenize:
    length = int(options.get("context_length", 77))
    name = options.get("hf_tokenizer_name")
    if not name:
        simple: Tokenize = SimpleTokenizer(context_length=length)
        return simple
    try:
        tokenizer: Tokenize = HFTokenizer(
            name, context_length=length, **(options.get("tokenizer_kwargs") or {})
        )
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        remedy = "pip install transformers, and make its tokenizer reachable"
        raise InputError(f"model: cannot load tokenizer {name!r}: {reason}; {remedy}") from error
    return tokenizer
