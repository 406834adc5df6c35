"""The owner's side of the inbox: what was handed in is listed, accepted or rejected.

Nothing in an inbox is believed before it is accepted. What is read of a hostile one is bounded:
objects listed, lists opened, sizes, names. To accept, numbered as in the code:

1. The submission is there, in one client's folder.
2. The client is known, not revoked, not expired: State says so, not the client.
3. The submission was not settled before, so none counts twice.
4. Its list, the only one that opens and is signed by this client, names this client, this
   submission and this keep; its certificate is of this keep and of this client's key.
5. Size within the client's allowance; every part that it names is there.
6. Every part opens, is signed, is this part; every file has the digest that the list says.
7. Only then it is stored; parts are read again, and proven again.
8. Ledger, in one write with the commit, where whoever stores can do that; the objects go.

A cut before 8 leaves the submission as it was. A cut within 8 leaves objects of a submission that
is settled: they are listed as such, and `reject` removes them.
"""

from __future__ import annotations

from collections.abc import Sequence

from modelkeep.core.artifact import checked_model_name
from modelkeep.core.entry import Fact
from modelkeep.core.errors import (
    LimitError,
    MissingError,
    RefusedError,
    UnavailableError,
    UsageError,
)
from modelkeep.core.projection import settled_key
from modelkeep.core.record import Record
from modelkeep.core.rows import InboxClient, Settled
from modelkeep.flows.clients import inbox_identity, known_client
from modelkeep.flows.incoming import (
    Facts,
    Found,
    Incoming,
    Parts,
    Progress,
    Storing,
    demand_allowed,
    demand_digest,
    demand_there,
    files_of,
    listed_in,
)
from modelkeep.flows.keep import OpenKeep, record
from modelkeep.ports.store import Store
from modelkeep.vault.inbox import INBOX, PARTS_MAX, Opener, folder_of, is_inbox_id, place_of


class Accepted(Record, frozen=True):
    """What was stored, and as which version."""

    submission: str
    client: str
    name: str
    version: int
    files: int
    size_bytes: int


class Rejected(Record, frozen=True):
    """What was removed."""

    submission: str
    client_id: str
    objects: int


def accepted(
    keep: OpenKeep,
    reference: str,
    *,
    store: Storing,
    name: str = "",
    progress: Progress = lambda _: None,
) -> Accepted:
    """Prove a submission, have it stored, remove it from the inbox.

    Args:
        reference: id of the submission, or `CLIENT/ID` where two clients chose one id.
        name: what to call it; what the client wanted unless given.
        progress: called with the number of bytes done since the last call; each counts twice,
            once when it is proven, once when it is stored.

    Raises:
        MissingError: `inbox.none`, `inbox.incomplete`, `inbox.missing_part`.
        UsageError: `inbox.ambiguous`, `model.name`.
        RefusedError: `inbox.revoked`, `inbox.expired`, `inbox.settled`; LimitError `inbox.size`,
            `inbox.crowded`.
        IntegrityError: `inbox.list`, `inbox.certificate`, `inbox.part`, `inbox.file`.
    """
    everywhere = _findings(keep, reference)
    found = _only(everywhere, reference)  # 1
    client = known_client(keep, found.client_id)
    demand_allowed(client, keep.clock.now_ns())  # 2
    _demand_unsettled(keep, found)  # 3
    opener = Opener(inbox_identity(keep), bytes.fromhex(client.public))
    listed = listed_in(found, client, opener, keep=keep)  # 4
    demand_there(found, listed, client)  # 5
    chosen = checked_model_name(name or listed.name)
    files = tuple(files_of(listed, Parts(found.store, listed, opener)))
    for file in files:
        demand_digest(file, progress)  # 6

    def entry(version: int) -> Facts:
        return (
            "inbox.accepted",
            {
                "submission": listed.submission,
                "client_id": client.client_id,
                "client": client.name,
                "model": chosen,
                "version": version,
                "files": len(files),
                "size_bytes": listed.size_bytes,
            },
        )

    note = f"inbox {client.name} {client.client_id}/{listed.submission}"
    version = store(Incoming(name=chosen, files=files, note=note, entry=entry))  # 7
    progress(listed.size_bytes)
    if not _is_settled(keep, found):
        kind, facts = entry(version)
        record(keep, kind, facts)  # 8
    for each in everywhere:
        _removed(each)
    return Accepted(
        submission=listed.submission,
        client=client.name,
        name=chosen,
        version=version,
        files=len(files),
        size_bytes=listed.size_bytes,
    )


def rejected(keep: OpenKeep, reference: str) -> Rejected:
    """Remove a submission unread, or what is left of one; its id does not count again.

    Raises:
        MissingError: `inbox.none`; UsageError: `inbox.ambiguous`.
    """
    everywhere = _findings(keep, reference)
    found = _only(everywhere, reference)
    count = sum(each.objects for each in everywhere)
    if not _is_settled(keep, found):
        _record_rejected(keep, found.client_id, found.submission, count)
    for each in everywhere:
        _removed(each)
    return Rejected(submission=found.submission, client_id=found.client_id, objects=count)


def rejected_all(keep: OpenKeep, client: str) -> Rejected:
    """Remove all that a client has put into the inboxes: of a stolen client, revoked before.

    Args:
        client: name, or id, which need not be known.

    Raises:
        MissingError: `client.unknown`.
    """
    is_unknown = is_inbox_id(client) and all(
        client not in (each.client_id, each.name) for each in keep.state.rows(InboxClient)
    )
    client_id = client if is_unknown else known_client(keep, client).client_id
    count = 0
    for store in keep.stores:
        try:
            for stat in store.list(f"{INBOX}/{client_id}/"):
                store.delete(stat.name)
                count += 1
        except UnavailableError:
            continue
    _record_rejected(keep, client_id, "", count)
    return Rejected(submission="", client_id=client_id, objects=count)


def _record_rejected(keep: OpenKeep, client_id: str, submission: str, objects: int) -> None:
    names = [each.name for each in keep.state.rows(InboxClient) if each.client_id == client_id]
    facts: dict[str, Fact] = {
        "submission": submission,
        "client_id": client_id,
        "client": next(iter(names), ""),
        "objects": objects,
    }
    record(keep, "inbox.rejected", facts)


def _findings(keep: OpenKeep, reference: str) -> list[Found]:
    """The submission in every store that has something of it.

    Raises:
        MissingError: `inbox.none`.
        LimitError: `inbox.crowded`.
    """
    owner, _, submission = reference.rpartition("/")
    known = [each.client_id for each in keep.state.rows(InboxClient)]
    clients = [owner] if owner else known
    found: list[Found] = []
    for store in keep.stores if is_inbox_id(submission) else ():
        for client_id in filter(is_inbox_id, clients):
            try:
                one = _of(store, client_id, submission)
            except UnavailableError:
                continue
            if one.objects:
                found.append(one)
    if not found:
        raise MissingError(
            "inbox.none",
            f"there is no submission {reference[:80]!r} in any inbox",
            hint="`modelkeep inbox list` shows them; of an unknown client, write CLIENT/ID",
        )
    return found


def _of(store: Store, client_id: str, submission: str) -> Found:
    found = Found(store, client_id, submission)
    for stat in store.list(folder_of(client_id, submission)):
        place = place_of(stat.name)
        if place is not None:
            found.take(stat, is_list=place.is_list)
        if found.objects > 2 * PARTS_MAX:
            raise LimitError(
                "inbox.crowded",
                f"submission {submission} has more objects than one can have",
                hint="`modelkeep inbox reject --client` removes all that its client put there",
            )
    return found


def _only(found: Sequence[Found], reference: str) -> Found:
    """The submission, from the first store that has its list.

    Raises:
        UsageError: `inbox.ambiguous`.
    """
    if len({each.client_id for each in found}) > 1:
        ids = ", ".join(f"{each.client_id}/{each.submission}" for each in found)
        raise UsageError(
            "inbox.ambiguous",
            f"{len(found)} clients have a submission {reference[:80]}",
            hint=f"name one of them: {ids[:400]}",
        )
    return next((each for each in found if each.lists), found[0])


def _demand_unsettled(keep: OpenKeep, found: Found) -> None:
    """Step 3."""
    if _is_settled(keep, found):
        raise RefusedError(
            "inbox.settled",
            f"submission {found.submission} was accepted or rejected before: it does not count",
            hint=f"`modelkeep inbox reject {found.submission}` removes what lies there",
        )


def _is_settled(keep: OpenKeep, found: Found) -> bool:
    wanted = settled_key(found.client_id, found.submission)
    rows = keep.state.rows(Settled)
    return any(settled_key(each.client_id, each.submission) == wanted for each in rows)


def _removed(found: Found) -> None:
    """The lists first: what is left of a cut is no submission any more."""
    for name in (*found.lists, *found.parts):
        found.store.delete(name)
