"""A pretrained sentence encoder in Hugging Face's layout as text backbone (needs `stbir[hf]`)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stbir.config import TextEncoderConfig
from stbir.errors import InputError
from stbir.model.weights import convert_library_errors, load_strict
from stbir.model.weights_file import read_state_dict
from stbir.storage.folder import Folder

CONTEXT_LENGTH = 64  # tokens; captions and queries have tens at most
_FILES = ("config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json")
# Entries that published files have in addition: a head for another task, and a constant.
_UNUSED_ENTRIES = ("pooler.", "embeddings.position_ids")


class SentenceBackbone(nn.Module):
    """A transformer and the mean (or first token) of its last layer: token ids (B, L) → unit vectors (B, C).

    Its tokenizer is a buffer with the bytes of `tokenizer.json`, so that a checkpoint contains it.
    """

    tokenizer_json: Tensor

    def __init__(
        self, transformer: nn.Module, tokenizer_json: Tensor, pooling: str, context_length: int, pad: int
    ) -> None:
        """`pad`: the token id of padding."""
        super().__init__()
        self.transformer, self.pooling, self.context_length = transformer, pooling, context_length
        self.pad = pad
        self.register_buffer("tokenizer_json", tokenizer_json)
        self._tokenizer: Any = None

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts → token ids (B, L), int64, padded to the longest, truncated to the context length."""
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_buffer(self.tokenizer_json.cpu().numpy().tobytes())
            self._tokenizer.enable_truncation(self.context_length)
            self._tokenizer.no_padding()
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        length = max(map(len, rows), default=0)
        return torch.tensor([row + [self.pad] * (length - len(row)) for row in rows], dtype=torch.int64)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """Token ids (B, L) → (B, C)."""
        is_token_BL = tokens_BL != self.pad
        output = self.transformer(input_ids=tokens_BL, attention_mask=is_token_BL.long())
        if self.pooling == "cls":
            return F.normalize(output.last_hidden_state[:, 0], dim=-1)
        weight_BL1 = is_token_BL.unsqueeze(-1).to(output.last_hidden_state.dtype)
        return F.normalize((output.last_hidden_state * weight_BL1).sum(1), dim=-1)  # that of the mean


def create_sentence_backbone(config: TextEncoderConfig, pretrained: bool) -> tuple[SentenceBackbone, int]:
    """The backbone of a resolved configuration, and its output width.

    Without `pretrained` all weights and the tokenizer are placeholders that the caller replaces.
    """
    options = config.options
    with convert_library_errors(f"text encoder {config.model!r}"):
        transformer = _create_transformer(options["config"])
    tokenizer_json = torch.zeros(options["tokenizer_bytes"], dtype=torch.uint8)
    if pretrained:
        folder = _model_folder(config.model)
        source = f"{folder.uri}/model.safetensors"
        state = {name.removeprefix("bert."): t for name, t in read_state_dict(source).items()}
        load_strict(transformer, state, source, ignore=_UNUSED_ENTRIES)
        tokenizer_json = torch.frombuffer(bytearray(folder.read("tokenizer.json")), dtype=torch.uint8)
    length = int(options.get("context_length", CONTEXT_LENGTH))
    width = int(transformer.config.hidden_size)  # type: ignore[union-attr, arg-type]
    pad = int(options.get("pad_token_id", options["config"].get("pad_token_id") or 0))
    return SentenceBackbone(transformer, tokenizer_json, options["pooling"], length, pad), width


def resolve_sentence_options(config: TextEncoderConfig) -> dict[str, Any]:
    """The options that rebuild the backbone without the model's folder: configuration, pooling, sizes."""
    if "config" in config.options:
        return config.options
    folder = _model_folder(config.model)
    if not folder.exists("config.json") or not folder.exists("tokenizer.json"):
        raise InputError(
            f"model.text: {folder.uri} has no config.json and tokenizer.json; give the folder of a model in"
            " Hugging Face's layout"
        )
    transformer, tokenizer_json = json.loads(folder.read("config.json")), folder.read("tokenizer.json")
    is_cls = folder.exists(_FILES[-1]) and json.loads(folder.read(_FILES[-1])).get("pooling_mode_cls_token")
    return {
        "context_length": CONTEXT_LENGTH,
        "pooling": "cls" if is_cls else "mean",
        "pad_token_id": _pad_token_id(json.loads(tokenizer_json), transformer),
        **config.options,
        "config": transformer,
        "tokenizer_bytes": len(tokenizer_json),
    }


def _pad_token_id(tokenizer: dict[str, Any], transformer: dict[str, Any]) -> int:
    """The tokenizer's: a BERT with XLM-R's tokenizer may have a `pad_token_id` that is its first token's."""
    ids = {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or ()}
    of_config = transformer.get("pad_token_id") or 0
    default = ids.get("<pad>", ids.get("[PAD]", of_config))
    return int((tokenizer.get("padding") or {}).get("pad_id", default))


def _create_transformer(config: dict[str, Any]) -> nn.Module:
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise InputError(
            "model.text: library=hf needs the package transformers; pip install 'stbir[hf]'"
        ) from error
    transformer = AutoModel.from_config(AutoConfig.for_model(**config))  # type: ignore[no-untyped-call]
    if getattr(transformer, "pooler", None) is not None:
        transformer.pooler = None  # its output is not used
    return transformer  # type: ignore[no-any-return]


def _model_folder(model: str) -> Folder:
    """The folder of a path, URI, or name on the Hugging Face hub, which is downloaded."""
    if "://" in model or Path(model).is_dir():
        return Folder(model)
    from huggingface_hub import snapshot_download

    try:
        return Folder(snapshot_download(model, allow_patterns=list(_FILES)))
    except Exception as error:  # the Hugging Face client raises many types
        raise InputError(
            f"model.text: {model!r} is no folder, and cannot be downloaded ({type(error).__name__});"
            " give a local path or URI of the model's folder instead"
        ) from error
