"""A model in this process's memory: proven, read-only, without a copy on the way, wiped at the end.

with keep.load("llama:prod") as model:
weights = model.tensors()              # NumPy views, by name
net.load_state_dict(model.torch())     # torch views; PyTorch copies from them
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from modelkeep.adapters.memory_file import OwnMemory
from modelkeep.core.artifact import Manifest, TensorEntry, parsed_reference
from modelkeep.core.errors import MissingError, UsageError
from modelkeep.core.policy import Use
from modelkeep.flows.keep import OpenKeep, record
from modelkeep.flows.load import LoadedModel, loaded

if TYPE_CHECKING:
    from modelkeep.kernels.arrays import Array


class Loaded:
    """One version in memory, until it is closed.

    What it gives are views: they are read-only, and once it is closed they show zeros.

    Attributes:
        manifest: as it was signed.
        is_hashed: whether the plaintext was hashed against the manifest now: the first load since
            this host started; later ones lean on the authenticated encryption alone.
        is_locked: whether its memory is never swapped out (the limit is RLIMIT_MEMLOCK).
    """

    def __init__(self, model: LoadedModel, memory: OwnMemory) -> None:
        self.manifest: Manifest = model.proof.manifest
        self.is_hashed = model.is_hashed
        self.is_locked = memory.is_locked
        self._files = {each.entry.path: each for each in model.files}
        self._memory = memory

    def file(self, path: str = "") -> memoryview:
        """The bytes of a file; its path may be left out where there is only one.

        Raises:
            MissingError: `restore.path`.
        """
        name = path or (next(iter(self._files)) if len(self._files) == 1 else "")
        if name not in self._files:
            raise MissingError(
                "restore.path",
                f"{self.manifest.name}:{self.manifest.version} has no file {path or 'by itself'}",
                hint=f"its files: {', '.join(list(self._files)[:10])}",
            )
        return self._files[name].raw.toreadonly()

    def tensors(self) -> dict[str, Array]:
        """Every tensor as a NumPy view, by its name.

        Raises:
            UsageError: `tensor.ambiguous`, when two files have one of the same name.
        """
        from modelkeep.kernels.tensor_views import views  # noqa: PLC0415 - loads NumPy

        return self._named(views)

    def torch(self) -> dict[str, Any]:
        """Every tensor as a torch view on the CPU, by its name.

        Raises:
            UnavailableError: `torch.missing`.
            UsageError: `tensor.ambiguous`, when two files have one of the same name.
        """
        from modelkeep.adapters.torch_views import torch_tensors  # noqa: PLC0415 - loads PyTorch

        return self._named(torch_tensors)

    def close(self) -> None:
        """Overwrite the memory and give it back; idempotent."""
        self._files.clear()
        self._memory.close()

    def _named(
        self, viewed: Callable[[memoryview, tuple[TensorEntry, ...]], Mapping[str, Any]]
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for each in self._files.values():
            here = viewed(each.raw.toreadonly(), each.entry.tensors)
            twice = found.keys() & here.keys()
            if twice:
                raise UsageError(
                    "tensor.ambiguous",
                    f"several files have a tensor {min(twice)}",
                    hint="take the file, and a tensor of it by its place in the manifest",
                )
            found.update(here)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load(
    keep: OpenKeep,
    reference: str,
    *,
    memory: Callable[[int], OwnMemory] = OwnMemory,
    progress: Callable[[int], None] = lambda _: None,
) -> Loaded:
    """Load a version into memory of this process; it is in the ledger then.

    Args:
        memory: gives at least so many bytes.

    Raises:
        MissingError: `model.unknown`.
        RefusedError: `policy.*`.
        UnavailableError: `memory.full`.
        IntegrityError: `model.damaged`, `seal.digest`.
    """
    taken: list[OwnMemory] = []

    def allocate(size_bytes: int) -> memoryview:
        taken.append(memory(size_bytes))
        return taken[0].view[:size_bytes]

    try:
        model = loaded(
            keep, parsed_reference(reference), use=Use.LOAD, allocate=allocate, progress=progress
        )
        taken[0].freeze()
        manifest = model.proof.manifest
        record(
            keep,
            "model.loaded",
            {"model": manifest.name, "version": manifest.version, "manifest": model.proof.digest},
        )
    except BaseException:
        for each in taken:
            each.close()
        raise
    return Loaded(model, taken[0])
