"""Recipe `multilingual` with a tiny sentence encoder of four languages in the layout of XLM-R's tokenizer."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, normalizers
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import BertConfig, BertModel

from ray_jobs.recipes import recipe
from stbir.model.builder import build_retriever
from stbir.model.encoders import TextEncoder

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
COLOURS = (("red", "rot", "红", "أحمر"), ("blue", "blau", "蓝", "أزرق"), ("green", "grün", "绿", "أخضر"))
OBJECTS = (
    ("chair", "Stuhl", "椅", "كرسي"),
    ("shoe", "Schuh", "鞋", "حذاء"),
    ("lamp", "Lampe", "灯", "مصباح"),
)
VOCABULARY = (*SPECIAL, *(word for translations in (*COLOURS, *OBJECTS) for word in translations))
SEPARATORS = (" ", " ", "", " ")  # Chinese has none
# The texts of each language, of the same nine photos.
ENGLISH, GERMAN, CHINESE, ARABIC = (
    [separator.join((colour[n], thing[n])) for colour, thing in product(COLOURS, OBJECTS)]
    for n, separator in enumerate(SEPARATORS)
)


def save_sentence_model(folder: Path, stores_padding: bool) -> None:
    """A BERT in which translations have near vectors. Its `pad_token_id` is that of <s> in the tokenizer."""
    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    bert = BertModel(BertConfig(vocab_size=len(VOCABULARY), pad_token_id=0, **sizes))
    with torch.no_grad():
        rows = bert.embeddings.word_embeddings.weight
        rows[0] = torch.randn(32)
        for start in range(len(SPECIAL), len(VOCABULARY), len(SEPARATORS)):
            rows[start : start + len(SEPARATORS)] = torch.randn(32) + 0.05 * torch.randn(len(SEPARATORS), 32)
    bert.save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = Whitespace()
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    tokenizer.add_special_tokens(list(SPECIAL))
    if stores_padding:
        tokenizer.enable_padding(pad_id=1, pad_token="<pad>")
    tokenizer.save(str(folder / "tokenizer.json"))


def text_encoder(folder: Path) -> TextEncoder:
    model = recipe("multilingual").model
    config = replace(model, dim=32, photo=recipe("smoke").model.photo)
    return build_retriever(replace(config, text=replace(model.text, model=str(folder)))).text


@pytest.mark.parametrize("stores_padding", [True, False])
def test_vectors_are_those_of_the_transformer_with_its_first_token(
    tmp_path: Path, stores_padding: bool
) -> None:
    """The id of padding is the tokenizer's: the transformer's would leave out the token <s> of every text."""
    save_sentence_model(tmp_path, stores_padding)
    encoder = text_encoder(tmp_path)
    tokens = encoder.tokenize(["red", "red chair"])
    assert tokens.tolist() == [[0, 4, 2, 1], [0, 4, 16, 2]]
    bert = BertModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        for vector, ids in zip(encoder.trunk(tokens), ([0, 4, 2], [0, 4, 16, 2]), strict=True):
            hidden = bert(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).last_hidden_state
            torch.testing.assert_close(vector, F.normalize(hidden[0].mean(0), dim=0), atol=1e-5, rtol=0)


def test_captions_in_english_teach_all_languages(tmp_path: Path) -> None:
    save_sentence_model(tmp_path, True)
    encoder = text_encoder(tmp_path)
    texts = {"en": ENGLISH, "de": GERMAN, "zh": CHINESE, "ar": ARABIC}
    unknown = VOCABULARY.index("<unk>")
    assert not any((encoder.tokenize(each) == unknown).any() for each in texts.values())
    assert (encoder.tokenize(["ein red"]) == unknown).any()
    photo_ND = F.normalize(torch.randn(len(ENGLISH), encoder.dim), dim=1)
    assert accuracy(encoder, ENGLISH, photo_ND) < 0.5
    train(encoder, ENGLISH, photo_ND)
    assert {language: accuracy(encoder, each, photo_ND) for language, each in texts.items()} == dict.fromkeys(
        texts, 1.0
    )


def train(encoder: TextEncoder, texts: list[str], photo_ND: Tensor) -> None:
    """A few steps of InfoNCE on the trainable weights, with the recipe's learning rate times ten."""
    tokens, target = encoder.tokenize(texts), torch.arange(len(texts))
    trainable = {name: weight for name, weight in encoder.named_parameters() if weight.requires_grad}
    assert set(trainable) == {
        "project.weight",
        "project.bias",
    }  # else English would leave the other languages
    rate = 10 * recipe("multilingual").stages[0].optimizer.lr
    optimizer = torch.optim.Adam(trainable.values(), rate)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(encoder(tokens) @ photo_ND.T / 0.07, target).backward()
        optimizer.step()


def accuracy(encoder: TextEncoder, texts: list[str], photo_ND: Tensor) -> float:
    """Acc@1 of texts, of which the n-th is of the n-th photo."""
    with torch.no_grad():
        nearest_N = (encoder(encoder.tokenize(texts)) @ photo_ND.T).argmax(1)
    return float((nearest_N == torch.arange(len(texts))).float().mean())
