"""What the paths and links of a model that is handed over may be; asked on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from modelkeep.core.artifact import Manifest
from modelkeep.core.errors import RefusedError
from modelkeep.vault.inbox import path_problem

# What a path may have on Linux.
LINK_BYTES_MAX = 4095
_MODES_MAX = 0o7777

Named = tuple[tuple[str, int], ...]


def demand_portable_paths(
    manifest: Manifest,
    modes: Sequence[int],
    folders: Sequence[tuple[str, int]],
    links: Sequence[tuple[str, str]],
) -> None:
    """Check that everything lies below one folder, links too, and leads nowhere else.

    Raises:
        RefusedError: `portable.paths`.
    """
    problem = next(_path_problems(manifest, dict(folders), dict(links), modes), "")
    if len(dict(folders)) < len(folders) or len(dict(links)) < len(links):
        problem = "two folders or links have one path"
    if problem:
        raise RefusedError("portable.paths", f"{manifest.name}:{manifest.version}: {problem}")


def links_below(links: Iterable[tuple[str, str]], path: str) -> list[tuple[str, str]]:
    """The links below a path by the names that they get there; all of them for the empty path.

    A link that leads nowhere out of the whole may lead out of a part of it, which is then written
    to some other place.

    Raises:
        RefusedError: `restore.link`.
    """
    below = f"{path}/" if path else ""
    part = []
    for whole, says in links:
        if not whole.startswith(below):
            continue
        name = whole.removeprefix(below)
        if stays_inside(whole, says) and not stays_inside(name, says):
            raise RefusedError(
                "restore.link",
                f"the link {whole[:80]!a} leads out of the part that is asked for",
                hint="take a larger part, or all of it",
            )
        part.append((name, says))
    return part


def _path_problems(
    manifest: Manifest, folders: Mapping[str, int], links: Mapping[str, str], modes: Sequence[int]
) -> Iterator[str]:
    ends = [*(each.path for each in manifest.files), *links]
    yield from filter(None, [path_problem(ends)])  # nothing lies in a link either
    taken = set(ends)
    for path in folders:
        if path != "." and (path_problem([path]) or any(each in taken for each in _above(path))):
            yield f"{path[:80]!a} cannot be a folder"
    if not all(-1 <= mode <= _MODES_MAX for mode in (*modes, *folders.values())):
        yield "permission bits are out of bounds"
    for path, says in links.items():
        if not stays_inside(path, says):
            yield f"the link {path[:80]!a} leads out of its folder"


def _above(path: str) -> Iterator[str]:
    """A path, and the folders that it lies in."""
    parts = path.split("/")
    return ("/".join(parts[:count]) for count in range(len(parts), 0, -1))


def stays_inside(path: str, says: str) -> bool:
    """Whether a link leads to something below the same root, whatever other links there are.

    `..` may only stand first: behind a name it would be the folder above wherever that leads to.
    """
    parts = [part for part in says.split("/") if part != "."]
    ups = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    return (
        0 < len(says.encode()) <= LINK_BYTES_MAX
        and not path_problem(["/".join(parts[ups:])] if parts[ups:] else ["x"])
        and ups <= path.count("/")
    )
