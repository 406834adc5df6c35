"""Files of PyTorch and NumPy turned into safetensors, without a keep and without unpickling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.file_streams import file_target
from modelkeep.flows.convert import Converted, converted
from modelkeep.scan.settings import ScanSettings
from modelkeep.sdk.files import steady
from modelkeep.sdk.scanning import scanned_view


def convert(
    path: Path | str,
    to: Path | str,
    *,
    force: bool = False,
    settings: ScanSettings | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Converted:
    """Write the tensors of one file as safetensors, if a scan allows the file.

    The bytes that are scanned are the ones that are converted; the new file appears whole or not
    at all.

    Args:
        force: replace a file that exists.

    Raises:
        RefusedError: `convert.verdict`.
        UsageError: `convert.format`, `convert.form`, `file.exists`, `file.read` or `file.changed`.
        MissingError: `file.missing`.
        IntegrityError: when the file does not hold what it claims.
        UnavailableError: `scan.worker.start`.
    """
    source, target = Path(path), Path(to)
    with steady(source) as file:

        @contextmanager
        def opened() -> Iterator[Callable[[bytes], None]]:
            with file_target(RealDisk(), target, force=force) as write:
                yield write
                file.demand_steady()  # before the new file has its name

        verdict = scanned_view(source.name, file.raw, settings or ScanSettings(), fd=file.fd)
        return converted(source.name, file.raw, verdict, opened, progress=progress)
