"""The model card of a checkpoint states its facts, and changes nothing else."""

from pathlib import Path

import pytest

from ray_jobs.recipes import recipe
from stbir.model import checkpoint
from stbir.model.builder import build_retriever
from stbir.model.model_card import MODEL_CARD_FILE
from stbir.storage.folder import Folder

SCORES = {
    "photos": "val",
    "stage": "text",
    "epoch": 1.0,
    "mrr": 41.0,
    "acc@1": {"sketch": 30.25, "text": 12.0},
}


def save(uri: str, **counts: int) -> str:
    smoke = recipe("smoke")
    details = {"data": ["sha256:d"], "init_from": "sha256:i", "validation": SCORES}
    checkpoint.save(
        uri, "000", build_retriever(smoke.model), smoke, made_from="", counts=counts, details=details
    )
    return Folder(uri).read(f"000/{MODEL_CARD_FILE}").decode()


def test_the_card_states_the_facts_of_the_checkpoint(tmp_path: Path) -> None:
    card = save(str(tmp_path), steps=12, total=20, photos=345)
    model = checkpoint.load(str(tmp_path))
    millions = sum(p.numel() for p in model.text.parameters()) / 1e6
    for fact in (
        "# smoke\n",
        f"Embedding: 32 dimensions. Digest: `{checkpoint.read_digest(str(tmp_path))}`.",
        f"| text | open_clip tiny | none | 16 tokens | {millions:.1f} M |",
        "| sketch | open_clip tiny | none | 32 x 32 pixels |",
        "- 12 of 20 steps, batch 16, seed 0\n- 345 photos\n- data: `sha256:d`\n",
        "- started from checkpoint `sha256:i`",
        "- stage pretrain: photo, text, 1 epochs",
        "- validation on val, Acc@1 in percent: sketch 30.2, text 12.0",
    ):
        assert fact in card
    assert "not been trained" not in card


def test_an_untrained_checkpoint_says_so(tmp_path: Path) -> None:
    assert "This checkpoint has not been trained" in save(str(tmp_path), steps=0)


def test_the_card_is_no_part_of_the_digest_and_may_be_edited(tmp_path: Path) -> None:
    save(str(tmp_path), steps=1)
    digest = checkpoint.read_digest(str(tmp_path))
    Folder(str(tmp_path)).write(f"000/{MODEL_CARD_FILE}", b"# Ours\n")
    checkpoint.verify(str(tmp_path), digest)
    with pytest.raises(ValueError, match="do not match the digest"):
        checkpoint.verify(str(tmp_path), "sha256:other")
