"""PyTorch on the CPU: TorchScript and programs of `torch.export`, from a sealed memory file.

Both forms are code. TorchScript runs in the interpreter of libtorch; a program is read by Python
(`torch.export.load`), which evaluates expressions of it. So the process is locked in before the
first byte of the model is looked at, and what loading imports is imported before that: a program of
our own is exported, saved, loaded and run first.
"""

from __future__ import annotations

import io
import mmap
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch

from modelkeep.adapters.heap import trimmed
from modelkeep.core.artifact import Schema
from modelkeep.core.errors import IntegrityError, UnavailableError
from modelkeep.kernels.arrays import Array
from modelkeep.kernels.torch_export import is_export
from modelkeep.kernels.zips import members_of


class TorchRuntime:
    """One program; single-threaded use."""

    def __init__(self, program: Any, *, schema: Schema) -> None:
        self._program = program
        self._inputs = [port.name for port in schema.inputs]
        self._outputs = [port.name for port in schema.outputs]

    def answer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            with torch.inference_mode(), warnings.catch_warnings():
                # What came is read-only, and a program that writes to its inputs would fail alone.
                warnings.simplefilter("ignore")
                given = [torch.from_numpy(inputs[name]) for name in self._inputs]
                said = self._program(*given)
            answers = (said,) if isinstance(said, torch.Tensor) else tuple(said)
            if len(answers) != len(self._outputs):
                raise UnavailableError("runtime.failed", "the model gave another number of outputs")
            return {
                name: each.detach().contiguous().numpy()
                for name, each in zip(self._outputs, answers, strict=True)
            }
        except UnavailableError:
            raise
        except Exception as error:
            raise UnavailableError("runtime.failed", f"the model failed: {error}") from error


def torch_of_fd(
    fd: int,
    *,
    schema: Schema,
    threads: int,
    lock_in: Callable[[int], object] = lambda _size: None,
) -> TorchRuntime:
    """Load a model from a memory file.

    Args:
        schema: its inputs in the order of the program's arguments.
        lock_in: told the file's size when it is mapped, before its first byte is looked at.

    Raises:
        IntegrityError: `runtime.load`, `zip.*`.
    """
    torch.set_num_threads(threads)
    with suppress(RuntimeError):  # it can be set once
        torch.set_num_interop_threads(1)
    size_bytes = os.fstat(fd).st_size
    view = memoryview(mmap.mmap(fd, size_bytes, prot=mmap.PROT_READ)) if size_bytes else b""
    _warm_up()
    lock_in(size_bytes)
    if not size_bytes:
        raise IntegrityError("runtime.load", "the model's memory file is empty")
    load = _exported if is_export(members_of(memoryview(view))) else _scripted
    try:
        program = load(io.BytesIO(view))
    except Exception as error:
        raise IntegrityError("runtime.load", f"the model does not load: {error}") from error
    trimmed()
    return TorchRuntime(program, schema=schema)


def _scripted(source: io.BytesIO) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and still what people have
        return torch.jit.load(source, map_location="cpu").eval()


def _exported(source: io.BytesIO) -> Any:
    return torch.export.load(source).module()


def _warm_up() -> None:
    """Load both ways once, so that nothing is left to import inside the sandbox."""
    small = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Softmax(-1))
    example = torch.zeros(2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = ({0: torch.export.Dim("rows", min=1, max=64)},)
        exported: Any = torch.export.export(small, (example,), dynamic_shapes=rows)
        scripted: Any = torch.jit.trace(small, example)
    for save, program, load in (
        (torch.export.save, exported, _exported),
        (torch.jit.save, scripted, _scripted),
    ):
        kept = io.BytesIO()
        save(program, kept)
        kept.seek(0)
        with torch.inference_mode():
            load(kept)(example)
