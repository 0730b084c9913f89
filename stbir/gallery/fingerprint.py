"""Fingerprints of gallery rows: a changed photo or changed metadata changes the fingerprint."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# 96 bits in hexadecimal. With 10^9 photos, the chance of a collision is 1 in 10^11.
HASH_LENGTH = 24
HASH_TYPE = f"S{HASH_LENGTH}"
Hashes = NDArray[np.bytes_]


def content_hash(data: bytes) -> str:
    """The value of the column `content`: SHA-256 of a photo's bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def fingerprint(photo_id: str, category: str, content: str, metadata: Sequence[Any]) -> bytes:
    """A hash of a row without its vector, equal in every process."""
    return short_hash(repr((photo_id, category, content, *metadata)))


def short_hashes(texts: Iterable[str]) -> Hashes:
    """`short_hash` of each text, in an array."""
    digests = [hashlib.blake2b(text.encode(), digest_size=HASH_LENGTH // 2).digest() for text in texts]
    return np.frombuffer(bytearray(b"".join(digests).hex().encode()), HASH_TYPE)


def short_hash(text: str) -> bytes:
    """HASH_LENGTH hexadecimal digits (BLAKE2b)."""
    return hashlib.blake2b(text.encode(), digest_size=HASH_LENGTH // 2).hexdigest().encode()
