"""Look into the inboxes: which submissions lie there, and which of them could be accepted.

Nothing is changed, and no part is opened. What is read of a hostile inbox is bounded; what lies
beyond is said to be unread.
"""

from __future__ import annotations

from modelkeep.core.errors import (
    IntegrityError,
    LimitError,
    MissingError,
    RefusedError,
    UnavailableError,
)
from modelkeep.core.record import Record, replaced
from modelkeep.core.rows import InboxClient, Settled
from modelkeep.flows.clients import inbox_identity
from modelkeep.flows.incoming import Found, demand_allowed, demand_there, listed_in
from modelkeep.flows.keep import OpenKeep
from modelkeep.vault.inbox import INBOX, OBJECT_BYTES_MAX, Opener, place_of

# What one look at an inbox reads at most; beyond it, it says so.
OBJECTS_LISTED_MAX = 500_000
LISTS_OPENED_MAX = 1_000
LISTS_BYTES_MAX = 256 * 1024 * 1024
UNREAD = "unread"


class Waiting(Record, frozen=True):
    """One submission in an inbox, as far as it can be told.

    Attributes:
        client: the client's name; empty for one that this keep does not know.
        state: `whole`, `incomplete`, `refused`, `settled`, `damaged` or `unread`.
        reason: why it is not whole.
        name: what the client would have it called.
        size_bytes: of its files.
        objects: how many lie there.
        stored_bytes: of the objects.
    """

    submission: str
    client_id: str
    client: str
    store: str
    state: str
    reason: str = ""
    name: str = ""
    submitted_ns: int = 0
    files: int = 0
    size_bytes: int = 0
    objects: int = 0
    stored_bytes: int = 0


class InboxView(Record, frozen=True):
    """What lies in the inboxes of all stores.

    Attributes:
        strays: objects under `inbox/` whose names say nothing; nobody of ours wrote them.
        is_whole: False where more lies there than is listed.
        away: stores that did not answer.
    """

    submissions: tuple[Waiting, ...]
    strays: int
    is_whole: bool
    away: tuple[str, ...]


def waiting(keep: OpenKeep) -> InboxView:
    """Look into the inboxes; nothing is changed, no part is opened."""
    folders: dict[tuple[str, str, str], Found] = {}
    strays, listed, is_whole, away = 0, 0, True, []
    for store in keep.stores:
        try:
            for stat in store.list(f"{INBOX}/"):
                listed += 1
                if listed > OBJECTS_LISTED_MAX:
                    is_whole = False
                    break
                place = place_of(stat.name)
                if place is None:
                    strays += 1
                    continue
                key = (store.label, place.client_id, place.submission)
                found = folders.setdefault(key, Found(store, place.client_id, place.submission))
                found.take(stat, is_list=place.is_list)
        except UnavailableError:
            away.append(store.label)
    look = _Look(keep)
    rows = [look.at(found) for found in folders.values()]
    rows.sort(key=lambda each: (each.submitted_ns, each.client_id, each.submission))
    return InboxView(submissions=tuple(rows), strays=strays, is_whole=is_whole, away=tuple(away))


class _Look:
    """One look at all submissions: what may still be read, and what is known of each."""

    def __init__(self, keep: OpenKeep) -> None:
        self._keep = keep
        self._identity = inbox_identity(keep)
        self._clients = {each.client_id: each for each in keep.state.rows(InboxClient)}
        self._settled = {(each.client_id, each.submission) for each in keep.state.rows(Settled)}
        self._lists = LISTS_OPENED_MAX
        self._bytes = LISTS_BYTES_MAX

    def at(self, found: Found) -> Waiting:
        """One submission."""
        client = self._clients.get(found.client_id)
        row = Waiting(
            submission=found.submission,
            client_id=found.client_id,
            client=client.name if client else "",
            store=found.store.label,
            state=UNREAD,
            objects=found.objects,
            stored_bytes=found.stored_bytes,
        )
        if client is None:
            return replaced(row, state="refused", reason="this keep has no such client")
        if (found.client_id, found.submission) in self._settled:
            return replaced(row, state="settled", reason="accepted or rejected before")
        try:
            demand_allowed(client, self._keep.clock.now_ns())
        except RefusedError as error:
            return replaced(row, state="refused", reason=error.message)
        return self._opened(row, found, client)

    def _opened(self, row: Waiting, found: Found, client: InboxClient) -> Waiting:
        self._lists -= len(found.lists)
        self._bytes -= sum(min(each, OBJECT_BYTES_MAX) for each in found.lists.values())
        if self._lists < 0 or self._bytes < 0:
            return replaced(row, reason="too much lies in the inbox to read all of it")
        opener = Opener(self._identity, bytes.fromhex(client.public))
        try:
            listed = listed_in(found, client, opener, keep=self._keep)
            row = replaced(
                row,
                name=listed.name,
                submitted_ns=listed.submitted_ns,
                files=len(listed.files),
                size_bytes=listed.size_bytes,
            )
            demand_there(found, listed, client)
        except (MissingError, UnavailableError) as error:
            return replaced(row, state="incomplete", reason=error.message)
        except LimitError as error:
            return replaced(row, state="refused", reason=error.message)
        except IntegrityError as error:
            return replaced(row, state="damaged", reason=error.message)
        return replaced(row, state="whole")
