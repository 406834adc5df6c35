"""How current a store is: a signed statement that it held everything at some second.

A checkpoint says what the log holds, not when; while nothing happens it does not change, and a
recovery could not tell an idle hour from a lost one. So whoever publishes also states, each second
and when a verb ends, that the store has had every entry up to `size` at that moment. Statements
are a numbered series `alive/<unix second>` under the checkpoint key; older ones are removed. Who
deletes or keeps back a statement makes a store look older than it is, never newer.
"""

from __future__ import annotations

from modelkeep.core.errors import IntegrityError, MissingError
from modelkeep.core.instant import NS_PER_S
from modelkeep.ports.note_signer import NoteSigner
from modelkeep.ports.store import Store
from modelkeep.vault.objects import Numbered, latest, member_names, series_member

KIND = "alive"


class Alive(Numbered, frozen=True):
    """Everything up to `size` was in this store at `at_ns`; its number is that second.

    Attributes:
        origin: of the log that is meant.
    """

    origin: str
    size: int
    at_ns: int


def state_alive(store: Store, *, origin: str, size: int, at_ns: int, signer: NoteSigner) -> None:
    """Put a statement into a store and remove the ones before it; once a second is enough.

    Raises:
        UnavailableError: of the store.
    """
    statement = Alive(number=at_ns // NS_PER_S, origin=origin, size=size, at_ns=at_ns)
    name, raw = series_member(KIND, statement, signer=signer)
    before = member_names(store, KIND)
    if name in before:
        return  # this second is stated already
    store.put(name, raw)
    for old in before:
        store.delete(old)


def alive_ns(store: Store, *, origin: str, size: int, public: bytes, now_ns: int) -> int:
    """When the store was last known to hold everything, if it holds that much now; else 0.

    A statement from the future, of a clock that was wrong, counts for nothing.
    """
    try:
        statement = latest(Alive, store, KIND, public=public).member
    except (MissingError, IntegrityError):
        return 0
    is_ours = statement.origin == origin and statement.size <= size
    return statement.at_ns if is_ours and statement.at_ns <= now_ns else 0
