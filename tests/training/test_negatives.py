import torch

from stbir.training.negatives import Keys, masks


def slow(keys: Keys, kind: str) -> tuple[list[list[bool]], list[list[bool]]]:
    """The rules of the method in plain words, one pair at a time."""
    step, nce, hard_negatives = keys.rows_a_sample, [], []
    n = len(keys.photo)
    for i in range(0, n, step):
        other = [
            bool(keys.photo[j] != keys.photo[i]) and not (keys.text[i] >= 0 and keys.text[j] == keys.text[i])
            for j in range(n)
        ]
        drawn = [other[j] and j != i and j // step == i // step for j in range(n)]
        mates = [
            other[j] and bool(keys.label[i] >= 0) and bool(keys.label[j] == keys.label[i]) for j in range(n)
        ]
        nce.append(drawn if kind == "stored" else other)
        hard_negatives.append(
            drawn if kind == "stored" else mates if kind == "class" and any(mates) else other
        )
    return nce, hard_negatives


def test_the_masks_follow_the_rules() -> None:
    generator = torch.Generator().manual_seed(0)
    for step in (1, 3):
        rows = [
            torch.randint(low, high, (12,), generator=generator) for low, high in ((0, 6), (-1, 4), (-1, 3))
        ]
        keys = Keys(*rows, rows_a_sample=step)
        for kind in ("batch", "class", "stored"):
            got = masks(kind, keys)
            assert tuple(mask.tolist() for mask in got) == slow(keys, kind)


def test_a_caption_that_equals_the_positives_is_never_a_negative() -> None:
    keys = Keys(torch.tensor([0, 1, 2]), torch.tensor([7, 7, 8]), torch.tensor([0, 0, 0]))
    assert masks("batch", keys)[0].tolist() == [
        [False, False, True],
        [False, False, True],
        [True, True, False],
    ]


def test_missing_captions_are_not_equal_captions() -> None:
    keys = Keys(torch.tensor([0, 1]), torch.tensor([-1, -1]), torch.tensor([0, 0]))
    assert masks("batch", keys)[0].tolist() == [[False, True], [True, False]]
