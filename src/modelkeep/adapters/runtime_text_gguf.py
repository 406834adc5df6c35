"""Has the reader of GGUF files read each header once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import gguf


@contextmanager
def reading_once() -> Iterator[None]:
    """While this is open, a file's header is read once, and names of tensors are listed once.

    `transformers` (5.23) reads it three times, a vocabulary of 49,152 words at 4 s each, and lists
    the names anew for each part of the model: that is most of the time until a replica is back.
    """
    own = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = (cache(each) for each in own)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = own
