"""Scanning files and folders where they lie; nothing in them is executed, imported or unpickled.

Files go to the scanner's process as descriptors, several at once; this process opens them and never
looks into them. What is neither file nor folder is not even opened. A link that leads out of the
folder is a finding, and what it leads to counts as no file of that folder: a graph that keeps
tensors there is refused. The links of Hugging Face's cache, into the `blobs` of their own model,
are as good as files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelkeep.core.errors import MissingError, UsageError
from modelkeep.core.verdict import Finding, Severity, Verdict, judged
from modelkeep.ports.sandbox import Measure
from modelkeep.ports.scanner import Judged, Scanner, Unjudged
from modelkeep.scan.evidence import found
from modelkeep.scan.settings import ScanSettings
from modelkeep.scan.shards import names_slices, settled
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
    """Files that are judged together: those of one folder, or single ones of one in a row.

    Attributes:
        outside: names that are links out of the folder, with what each leads to.
    """

    files: tuple[tuple[Path, str], ...]
    is_folder: bool
    outside: Mapping[str, Path] = field(default_factory=dict)


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


def scanned_file(path: Path, settings: ScanSettings) -> Verdict:
    """Scan one file.

    Raises:
        MissingError: `file.missing`.
        UsageError: `file.read` or `scan.stdin`.
        UnavailableError: `scan.worker.start`.
    """
    if path.is_dir():
        raise UsageError(
            "file.read",
            f"{path} is a folder",
            hint="name one file of it; `modelkeep scan` scans whole folders",
        )
    (came_of,) = scanned_paths([path], settings)
    return came_of.verdict


def scanned_view(name: str, raw: memoryview, settings: ScanSettings, *, fd: int = -1) -> Verdict:
    """Scan bytes that lie in memory.

    Args:
        fd: a descriptor of the same bytes that can only be read, where there is one.

    Raises:
        UnavailableError: `scan.worker.start`.
    """
    (came_of,) = scanner().judge([Unjudged(name, raw, fd)], sizes={}, settings=settings)
    return judged(came_of.findings)


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
    sizes = {name: _size(path) for path, name in regular if name not in batch.outside}
    if regular and not batch.is_folder:
        sizes = _sizes_beside(regular[0][0])
    waiting: list[ScannedPath] = []
    with ExitStack() as stack:
        came = judges.judge(_unjudged(regular, stack), sizes=sizes, settings=settings)
        for path, name, is_file in files:
            came_of = next(came) if is_file else _special(name, is_folder=path.is_dir())
            size_bytes = _size(path)
            verdict = judged((*came_of.findings, *_link(name, batch)))
            waiting.append(ScannedPath(path, name, verdict, came_of.kind, size_bytes))
            progress(size_bytes)
            if not names_slices(waiting[0].name):
                yield waiting.pop()
    yield from _answered(waiting)


def _answered(waiting: Sequence[ScannedPath]) -> Iterator[ScannedPath]:
    """Files behind one that names slices of others: what they say of each other is settled."""
    left = frozenset(settled(one for each in waiting for one in each.verdict.findings))
    for each in waiting:
        findings = tuple(one for one in each.verdict.findings if one in left)
        yield replace(each, verdict=judged(findings))


def _unjudged(files: Sequence[tuple[Path, str]], stack: ExitStack) -> Iterator[Unjudged]:
    """Open each file when its turn comes, and close it once it was judged."""
    for path, name in files:
        opened = stack.enter_context(ExitStack())
        fd = opened.enter_context(opened_file(path))
        yield Unjudged(name, _NOTHING, fd, opened.close)


def _special(name: str, *, is_folder: bool) -> Judged:
    """What is not opened: a folder is only met as a link, which is not followed."""
    text = "neither a regular file nor a folder; it was not opened"
    finding = found("scan.format.special", Severity.HIGH, name, text)
    return Judged(findings=() if is_folder else (finding,), kind="unknown")


def _link(name: str, batch: _Batch) -> tuple[Finding, ...]:
    if name not in batch.outside:
        return ()
    text = f"is a link out of its folder, to {batch.outside[name]}"
    return (found("scan.format.link", Severity.MEDIUM, name, text),)


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
            files = tuple(_below(path))
            yield _Batch(files, is_folder=True, outside=_outside(path, files))
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
    """The files of a folder, and its links to folders elsewhere, which are not followed."""
    within = Path(os.path.realpath(root))
    for folder, folders, names in os.walk(root):
        folders.sort()
        links = [name for name in folders if _target_outside(Path(folder, name), within)]
        for name in sorted(names + links):
            path = Path(folder, name)
            yield path, _printable(path.relative_to(root).as_posix())


def _outside(root: Path, files: Sequence[tuple[Path, str]]) -> dict[str, Path]:
    """By name, what those links lead to that leave the folder."""
    within = Path(os.path.realpath(root))
    targets = ((name, _target_outside(path, within)) for path, name in files)
    return {name: target for name, target in targets if target is not None}


def _target_outside(path: Path, within: Path) -> Path | None:
    """What a link leads to, if it leaves the folder."""
    if not path.is_symlink():
        return None
    target = Path(os.path.realpath(path))
    is_fine = target.is_relative_to(within) or _is_cached(path, target)
    return None if is_fine else target


def _is_cached(link: Path, target: Path) -> bool:
    """Whether a link is one of Hugging Face's cache: from a snapshot to a blob of its own model."""
    place = Path(os.path.realpath(link.parent))
    snapshots = (each.parent for each in (place, *place.parents) if each.parent.name == "snapshots")
    return any(target.parent == each.parent / "blobs" for each in snapshots)


def _printable(name: str) -> str:
    """A name as a finding may show it; a byte that is no UTF-8 comes as an escape."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
