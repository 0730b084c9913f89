"""Vectors as int8 codes, whose dot products read a quarter of the bytes and use integer instructions."""

import functools
import os
from collections.abc import Sequence
from threading import BoundedSemaphore

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from stbir.gallery.arrays import Features

Codes = NDArray[np.int8]  # (N, D)
_MAX_CODE = 127


def encode(vectors: Features) -> tuple[Codes, Features]:
    """Codes (N, D) and scales (N,) of vectors (N, D): a vector is about its codes times its scale."""
    largest_N = np.abs(vectors).max(axis=1, initial=0)
    scale_N = np.maximum(largest_N, np.finfo(np.float32).tiny) / np.float32(_MAX_CODE)
    return np.rint(vectors / scale_N[:, None]).astype(np.int8), np.asarray(scale_N, np.float32)


def decode(codes_ND: Codes, scale_N: Features) -> Features:
    """The vectors (N, D) that codes stand for."""
    return np.asarray(codes_ND * scale_N[:, None], np.float32)


def dot_products(parts: Sequence[Codes], query_1D: Codes) -> Features:
    """The dot products (N,) of the codes in `parts` (each (R, D), N rows in all) with those of a query.

    In the calling thread alone: threads of OpenMP wait for each other, for milliseconds on a busy machine.
    Exact up to D = 1040, then rounded to float32.
    """
    import torch  # late: only a search needs it, and its import takes a second

    products_N, end = np.empty(sum(map(len, parts)), np.float32), 0
    torch.get_num_threads()  # its first call in a thread sets the number of threads
    with _openmp().limit(limits=1):
        query = torch.from_numpy(query_1D)
        for codes_RD in parts:
            start, end = end, end + len(codes_RD)
            products_N[start:end] = torch._int_mm(query, torch.from_numpy(codes_RD).T)[0].numpy()
    return products_N


@functools.cache
def cores() -> BoundedSemaphore:
    """A slot a core: more threads would contend for the interpreter lock at each step of a search."""
    return BoundedSemaphore(os.cpu_count() or 1)


@functools.cache
def _openmp() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="openmp")
