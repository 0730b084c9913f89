import torch

from stbir.training.negatives import SampleKeys, negative_masks


def slow(keys: SampleKeys, kind: str) -> tuple[list[list[bool]], list[list[bool]]]:
    """The masks, computed one pair at a time."""
    step, nce, hard_negatives = keys.rows_per_sample, [], []
    n = len(keys.photo)
    for i in range(0, n, step):
        other = [
            bool(keys.photo[j] != keys.photo[i]) and not (keys.text[i] >= 0 and keys.text[j] == keys.text[i])
            for j in range(n)
        ]
        hard = [other[j] and j != i and j // step == i // step for j in range(n)]
        batch = [other[j] and j % step == 0 for j in range(n)]
        same_class = [
            batch[j] and bool(keys.label[i] >= 0) and bool(keys.label[j] == keys.label[i]) for j in range(n)
        ]
        nce.append({"hard": hard, "batch+hard": other}.get(kind, batch))
        by_class = same_class if any(same_class) else batch
        hard_negatives.append({"batch": batch, "class": by_class}.get(kind, hard))
    return nce, hard_negatives


def test_masks_equal_an_explicit_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    for step in (1, 3):
        rows = [
            torch.randint(low, high, (12,), generator=generator) for low, high in ((0, 6), (-1, 4), (-1, 3))
        ]
        keys = SampleKeys(*rows, rows_per_sample=step)
        for kind in ("batch", "class", "batch+hard", "hard"):
            assert tuple(mask.tolist() for mask in negative_masks(kind, keys)) == slow(keys, kind)


def test_equal_captions_are_not_negatives() -> None:
    keys = SampleKeys(torch.tensor([0, 1, 2]), torch.tensor([7, 7, 8]), torch.tensor([0, 0, 0]))
    assert negative_masks("batch", keys)[0].tolist() == [
        [False, False, True],
        [False, False, True],
        [True, True, False],
    ]


def test_missing_captions_are_not_equal() -> None:
    keys = SampleKeys(torch.tensor([0, 1]), torch.tensor([-1, -1]), torch.tensor([0, 0]))
    assert negative_masks("batch", keys)[0].tolist() == [[False, True], [True, False]]
