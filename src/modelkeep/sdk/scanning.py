"""Scanning files and folders where they lie; nothing in them is executed, imported or unpickled.

Files go to the scanner's process as descriptors, several at once; this process opens them and never
looks into them. What is neither file nor folder is not even opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from modelkeep.core.errors import MissingError, UsageError
from modelkeep.core.verdict import Finding, Severity, Verdict, judged
from modelkeep.ports.sandbox import Measure
from modelkeep.ports.scanner import Judged, Scanner, Unjudged
from modelkeep.scan.settings import ScanSettings
from modelkeep.sdk.files import opened_file
from modelkeep.wiring import scanner

_NOTHING = memoryview(b"")
# Files beside a single one whose sizes are looked up; a graph with more is scanned as a folder.
_BESIDE_MAX = 10_000


@dataclass(frozen=True, slots=True)
class ScannedPath:
    """What came of one file.

    Attributes:
        name: that it was judged under: below the folder that was asked for, else its own.
    """

    path: Path
    name: str
    verdict: Verdict
    kind: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Batch:
    """Files that are judged together: those of one folder, or single ones of one in a row."""

    files: tuple[tuple[Path, str], ...]
    is_folder: bool


def scanned_paths(
    paths: Sequence[Path],
    settings: ScanSettings,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[ScannedPath]:
    """Scan files, and every file of folders, in order; links to folders are not followed.

    Raises:
        MissingError: `file.missing`.
        UsageError: `file.read` or `scan.stdin`.
        UnavailableError: `scan.worker.start`.
    """
    judges = scanner()
    judges.start()  # it loads while the folders are walked
    for batch in _batches(paths):
        yield from _scanned(judges, batch, settings, progress)


def scanned_view(name: str, raw: memoryview, settings: ScanSettings, *, fd: int = -1) -> Verdict:
    """Scan bytes that lie in memory.

    Args:
        fd: a descriptor of the same bytes that can only be read, where there is one.

    Raises:
        UnavailableError: `scan.worker.start`.
    """
    (found,) = scanner().judge([Unjudged(name, raw, fd)], sizes={}, settings=settings)
    return judged(found.findings)


def explained_sandbox() -> tuple[Measure, ...]:
    """What keeps a file that is looked into from doing harm here, measure by measure.

    Raises:
        UnavailableError: `scan.worker.start`.
    """
    return scanner().explain()


def bytes_of(paths: Sequence[Path]) -> int:
    """How many bytes a scan has before it, for a progress bar; what is missing counts nothing."""
    try:
        return sum(_size(path) for batch in _batches(paths) for path, _ in batch.files)
    except (MissingError, UsageError):
        return 0


def _scanned(
    judges: Scanner, batch: _Batch, settings: ScanSettings, progress: Callable[[int], None]
) -> Iterator[ScannedPath]:
    files = [(path, name, path.is_file()) for path, name in batch.files]
    regular = [(path, name) for path, name, is_file in files if is_file]
    # A graph's tensors may lie in a file beside it, which counts whether or not it was named.
    sizes = {name: _size(path) for path, name in regular}
    if regular and not batch.is_folder:
        sizes = _sizes_beside(regular[0][0])
    with ExitStack() as stack:
        came = judges.judge(_unjudged(regular, stack), sizes=sizes, settings=settings)
        for path, name, is_file in files:
            found = next(came) if is_file else _special(name)
            size_bytes = _size(path)
            verdict = judged(found.findings)
            yield ScannedPath(path, name, verdict, found.kind, size_bytes)
            progress(size_bytes)


def _unjudged(files: Sequence[tuple[Path, str]], stack: ExitStack) -> Iterator[Unjudged]:
    """Open each file when its turn comes, and close it once it was judged."""
    for path, name in files:
        opened = stack.enter_context(ExitStack())
        fd = opened.enter_context(opened_file(path))
        yield Unjudged(name, _NOTHING, fd, opened.close)


def _special(name: str) -> Judged:
    finding = Finding(
        rule="scan.format.special",
        severity=Severity.HIGH,
        subject=name,
        evidence="neither a regular file nor a folder; it was not opened",
        reference="AML.T0010",
    )
    return Judged(findings=(finding,), kind="unknown")


def _batches(paths: Sequence[Path]) -> Iterator[_Batch]:
    """A folder is one batch, and so are files of one folder in a row.

    Raises:
        MissingError: `file.missing`.
        UsageError: `scan.stdin`.
    """
    alone: list[tuple[Path, str]] = []
    for path in paths:
        if str(path) == "-":
            raise UsageError(
                "scan.stdin",
                "standard input is not scanned: a file's name and its neighbours count too",
                hint="write it to a file first",
            )
        if path.is_dir():
            if alone:
                yield _Batch(tuple(alone), is_folder=False)
                alone = []
            yield _Batch(tuple(_below(path)), is_folder=True)
        elif path.exists():
            if alone and alone[-1][0].parent != path.parent:
                yield _Batch(tuple(alone), is_folder=False)
                alone = []
            alone.append((path, _printable(path.name)))
        else:
            raise MissingError("file.missing", f"there is no file {path}")
    if alone:
        yield _Batch(tuple(alone), is_folder=False)


def _sizes_beside(path: Path) -> dict[str, int]:
    """Sizes of the files in the folder of a file; of a folder that is too full, none."""
    sizes: dict[str, int] = {}
    try:
        with os.scandir(path.parent) as listed:
            for each in listed:
                if each.is_file(follow_symlinks=False):
                    sizes[_printable(each.name)] = each.stat().st_size
                if len(sizes) > _BESIDE_MAX:
                    return {}
    except OSError:
        return {}
    return sizes


def _below(root: Path) -> Iterator[tuple[Path, str]]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            yield path, _printable(path.relative_to(root).as_posix())


def _printable(name: str) -> str:
    """A name as a finding may show it; a byte that is no UTF-8 comes as an escape."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
