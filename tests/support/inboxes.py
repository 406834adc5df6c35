"""A keep with clients of its inbox, what they hand in, and a shelf for what is accepted."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from modelkeep.adapters.store_folder import FolderStore
from modelkeep.flows.clients import added_client
from modelkeep.flows.inbox import Accepted, accepted
from modelkeep.flows.incoming import Incoming
from modelkeep.flows.keep import OpenKeep
from modelkeep.flows.submit import Outgoing, Submitted, submitted
from modelkeep.testing.memory import MemoryStore, SeededEntropy, SteppingClock
from modelkeep.vault.client_file import Client, parsed_client_file

START_NS = 1_800_000_000_000_000_000
FILES = {"weights.bin": bytes(range(256)) * 64, "sub/note.txt": b"a note", "empty": b""}


@dataclass
class Shelf:
    """Where an owner puts what is accepted: files by name and version."""

    versions: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)

    def store(self, incoming: Incoming) -> int:
        read = {each.path: b"".join(map(bytes, each.blocks(4096))) for each in incoming.files}
        self.versions.setdefault(incoming.name, []).append(read)
        return len(self.versions[incoming.name])


def outgoing(files: Mapping[str, bytes]) -> tuple[Outgoing, ...]:
    """Files in memory, as a client reads them."""

    def opener(raw: bytes) -> Callable[[], object]:
        @contextmanager
        def opened() -> Iterator[Callable[[int], bytes]]:
            yield io.BytesIO(raw).read

        return opened

    return tuple(Outgoing(path=path, open=opener(raw)) for path, raw in files.items())


def handed_in(
    store: MemoryStore | FolderStore,
    client: Client,
    files: Mapping[str, bytes] = FILES,
    *,
    name: str = "run",
    seed: int = 0,
) -> Submitted:
    """Hand files in, with random numbers of one seed."""
    return submitted(
        outgoing(files),
        client=client,
        name=name,
        put=store.put,
        clock=SteppingClock(START_NS),
        entropy=SeededEntropy(seed + 1_000),
    )


def client_of(keep: OpenKeep, name: str = "trainer", **more: int) -> Client:
    """A client of a keep, as it reads its own file."""
    given = {"expires_ns": 0, **more}
    return parsed_client_file(added_client(keep, name, store="/store", **given)[1])


def with_inbox(keep: OpenKeep, store: MemoryStore) -> OpenKeep:
    """The same keep with its inbox in memory: what is accepted goes to a shelf."""
    return replace(keep, stores=(store,))


def taken(keep: OpenKeep, reference: str, shelf: Shelf, **more: str) -> Accepted:
    """Accept a submission."""
    return accepted(keep, reference, store=shelf.store, **more)
