"""Photos held out of training for validation where the data set has no validation split."""

import hashlib

HELD_OUT_SHARE = 0.1


def is_held_out(photo_id: str) -> bool:
    """Whether a photo belongs to the held-out share, by a hash of its id, independent of other photos."""
    digest = hashlib.sha256(f"held out: {photo_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT_SHARE * 2**64
