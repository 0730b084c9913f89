import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel

from ray_jobs.recipes import recipe
from stbir.config import ModelConfig, TextEncoderConfig
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.model.builder import build_retriever, resolve
from stbir.storage.folder import Folder

WORDS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "red", "chair", "roter", "Stuhl", "赤い", "椅子", "blue", "shoe")
TEXTS = ["red chair", "roter Stuhl", "赤い 椅子", "blue shoe red chair blue"]


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in Hugging Face's layout, with words of three languages."""
    folder = tmp_path_factory.mktemp("sentence")
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def model_config(folder: Path | str, **changes: object) -> ModelConfig:
    text = TextEncoderConfig(str(folder), library="hf", **changes)  # type: ignore[arg-type]
    return ModelConfig(dim=8, photo=recipe("smoke").model.photo, text=text)


def expected_mean(folder: Path, ids: list[int]) -> torch.Tensor:
    """The mean over the tokens of one text, without padding or batch."""
    with torch.no_grad():
        hidden = BertModel.from_pretrained(folder).eval()(input_ids=torch.tensor([ids])).last_hidden_state[0]
    mean = sum(hidden[position] for position in range(len(ids))) / len(ids)
    return mean / mean.norm()


def test_vectors_are_the_means_of_the_pretrained_transformer(sentence_model: Path) -> None:
    encoder = build_retriever(model_config(sentence_model)).text
    tokens = encoder.tokenize(TEXTS)
    with torch.no_grad():
        vectors = encoder.trunk(tokens)
    for row, text in enumerate(TEXTS):
        ids = [1, *(WORDS.index(word) for word in text.split()), 2]
        assert tokens[row].tolist() == ids + [0] * (tokens.shape[1] - len(ids))
        assert torch.allclose(vectors[row], expected_mean(sentence_model, ids), atol=1e-5)


def test_first_token_pooling_is_read_from_the_model(sentence_model: Path, tmp_path: Path) -> None:
    for file in sentence_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert resolve(model_config(tmp_path)).text.options["pooling"] == "cls"
    encoder = build_retriever(model_config(tmp_path)).text
    tokens = encoder.tokenize(TEXTS[:1])
    with torch.no_grad():
        hidden = BertModel.from_pretrained(tmp_path).eval()(input_ids=tokens).last_hidden_state
        first = hidden[:, 0] / hidden[:, 0].norm(dim=-1, keepdim=True)
        assert torch.allclose(encoder.trunk(tokens), first, atol=1e-5)


def test_a_checkpoint_needs_the_model_folder_no_more(sentence_model: Path, tmp_path: Path) -> None:
    copy = Folder("memory://sentence")
    for file in sentence_model.iterdir():
        copy.write(file.name, file.read_bytes())
    retriever = build_retriever(model_config(copy.uri))
    saved = replace(recipe("smoke"), model=model_config(copy.uri))
    checkpoint.save(str(tmp_path), "a", retriever, saved, made_from="test", counts={})
    copy.remove()
    opened = checkpoint.load(str(tmp_path), "text")
    with torch.no_grad():
        assert torch.equal(opened(opened.tokenize(TEXTS)), retriever.text(retriever.text.tokenize(TEXTS)))


def test_a_frozen_transformer_keeps_weights_and_dropout_off(sentence_model: Path) -> None:
    encoder = build_retriever(model_config(sentence_model, frozen=("trunk",))).text
    encoder.set_trainable(True)
    encoder.train()
    trainable = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert trainable == {"project.weight", "project.bias"}
    tokens = encoder.tokenize(TEXTS)
    assert torch.equal(encoder(tokens), encoder(tokens))


def test_word_vectors_are_added_for_each_token(sentence_model: Path) -> None:
    encoder = build_retriever(model_config(sentence_model, word_vectors=True)).text
    tokens = encoder.tokenize(TEXTS)
    with torch.no_grad():
        vectors, projected = encoder(tokens), encoder.project(encoder.trunk(tokens))
        for row, text in enumerate(TEXTS):
            ids = [1, *(WORDS.index(word) for word in text.split()), 2]
            total = projected[row] + sum(encoder.words.weight[number] for number in ids)
            assert torch.allclose(vectors[row], total / total.norm(), atol=1e-5)


def test_long_texts_are_cut_to_the_context_length(sentence_model: Path) -> None:
    encoder = build_retriever(model_config(sentence_model, options={"context_length": 6})).text
    assert encoder.tokenize(["red " * 50]).shape == (1, 6)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", None, "no config.json and tokenizer.json"),
        ("config.json", json.dumps({"model_type": "no_such_model"}), "cannot create text encoder"),
        ("model.safetensors", "damaged", "is not a weights file"),
    ],
)
def test_an_unusable_folder_is_refused(
    sentence_model: Path, tmp_path: Path, file: str, content: str | None, message: str
) -> None:
    for each in sentence_model.iterdir():
        (tmp_path / each.name).write_bytes(each.read_bytes())
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=message):
        build_retriever(model_config(tmp_path))


def test_a_name_that_cannot_be_downloaded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="'nobody/no-model' is no folder, and cannot be downloaded"):
        build_retriever(model_config("nobody/no-model"))
