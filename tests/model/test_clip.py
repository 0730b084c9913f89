"""CLIP models of each kind that open_clip builds have its features, without training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from stbir.api.model import from_clip
from stbir.errors import InputError
from stbir.model import backbones

VISION = {"image_size": 32, "patch_size": 8, "layers": 1, "width": 32, "head_width": 16}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
TIMM = {"timm_model_name": "test_vit", "timm_model_pretrained": False, "image_size": 160}
POOLED = {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
KINDS: dict[str, dict[str, Any]] = {
    "vit": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT},
    "resnet": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": TEXT,
    },
    "timm": {
        "embed_dim": 24,
        "vision_cfg": {**TIMM, "timm_pool": "", "timm_proj": "linear"},
        "text_cfg": TEXT,
    },
    "bidirectional text": {
        "embed_dim": 64,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": {**TIMM, "timm_pool": "avg", "timm_proj": "none"},
        "text_cfg": {**TEXT, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    },
    "coca": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": {**VISION, **POOLED},
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "width": 24, "attn_pooler_heads": 2},
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_features_equal_those_of_open_clip(kind: str, tmp_path: Path) -> None:
    name = f"stbir-clip-{kind.replace(' ', '-')}"
    (tmp_path / f"{name}.json").write_text(json.dumps(KINDS[kind]))
    open_clip.add_model_config(tmp_path)
    weights = str(tmp_path / "weights.pt")
    torch.save(open_clip.create_model(name).state_dict(), weights)
    model = from_clip(name, weights)
    reference, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=weights)
    reference.eval()
    size = model.recipe.model.photo.preprocess.size
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8))
    with torch.no_grad():
        photo = reference.encode_image(preprocess(image)[None], normalize=True)
        text = reference.encode_text(open_clip.get_tokenizer(name)(["red seat"]), normalize=True)
    np.testing.assert_allclose(model.encode_photo(image), photo.numpy(), atol=1e-5)
    np.testing.assert_allclose(model.encode_text("red seat"), text.numpy(), atol=1e-5)


def test_a_tokenizer_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    text = {**TEXT, "hf_tokenizer_name": str(tmp_path / "nowhere")}
    config = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": text}
    (tmp_path / "stbir-clip-tokenizer.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    with pytest.raises(
        InputError, match=r"model: cannot load tokenizer .*nowhere.*; pip install transformers"
    ):
        from_clip("stbir-clip-tokenizer", None)


def test_a_pretrained_clip_is_built_once_for_both_encoders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stbir-clip-once.json").write_text(json.dumps(KINDS["vit"]))
    open_clip.add_model_config(tmp_path)
    weights = str(tmp_path / "weights.pt")
    torch.save(open_clip.create_model("stbir-clip-once").state_dict(), weights)
    built, build = [], backbones.CustomTextCLIP

    def count(*args: Any, **options: Any) -> Any:
        built.append(args)
        return build(*args, **options)

    monkeypatch.setattr(backbones, "CustomTextCLIP", count)
    model = from_clip("stbir-clip-once", weights)
    assert len(built) == 1
    assert model.retriever.sketch.trunk is not model.retriever.photo.trunk
