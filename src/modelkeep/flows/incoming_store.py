"""Keep what was proven in the inbox: a submission becomes the next version of a name.

It is saved as other files are that are no model (`flows.save`): nothing is scanned. The ledger gets
the acceptance in one write with the commit, so a cut between the two cannot be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from modelkeep.flows.deposit import SoleTurn
from modelkeep.flows.incoming import Incoming, IncomingFile
from modelkeep.flows.keep import OpenKeep
from modelkeep.flows.save import FileMark, Tree, saved
from modelkeep.vault.settings import VaultSettings
from modelkeep.vault.streams import Plain

# A submission says nothing of permissions: what is restored is its owner's.
FOLDER_MODE = 0o700
# Gives what can be looked at of a file for tensors, without reading all of it into memory.
Looking = Callable[[IncomingFile], AbstractContextManager[memoryview]]


def stored_incoming(
    keep: OpenKeep,
    incoming: Incoming,
    *,
    look: Looking,
    vault: VaultSettings,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Store a submission; the version that it is: one that there was, if it is the same.

    Raises:
        IntegrityError: `inbox.part`, when it was damaged meanwhile; nothing is committed then.
        UsageError: `save.kind`, when the name is a model's.
        UnavailableError: from the store; retry is safe.
    """
    files = {each.path: each for each in incoming.files}

    @contextmanager
    def opened(path: str) -> Iterator[Plain]:
        file = files[path]
        with look(file) as raw:
            yield Plain(path=path, size_bytes=file.size_bytes, read_into=file.read_into, raw=raw)

    tree = Tree(
        files=tuple(
            FileMark(path=path, size_bytes=files[path].size_bytes) for path in sorted(files)
        ),
        open=opened,
        folders=_folders(sorted(files)),
    )
    done = saved(
        SoleTurn(keep),
        tree,
        name=incoming.name,
        note=incoming.note,
        vault=vault,
        also=(incoming.entry,),
        progress=progress,
    )
    return done.version


def _folders(paths: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """The folders that files lie in, parents first; none of one file that lies in none."""
    if len(paths) == 1 and "/" not in paths[0]:
        return ()
    found = {"."}
    for path in paths:
        parts = path.split("/")[:-1]
        found.update("/".join(parts[: end + 1]) for end in range(len(parts)))
    return tuple(
        (path, FOLDER_MODE) for path in sorted(found, key=lambda each: (each != ".", each))
    )
