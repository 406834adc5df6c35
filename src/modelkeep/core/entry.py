"""One audited fact: the body of a ledger entry."""

from __future__ import annotations

from modelkeep.core.record import Record

Fact = str | int | float | bool | None | tuple[str, ...]


class Entry(Record, frozen=True):
    """What happened, when, and who did it.

    Attributes:
        kind: dotted, stable, lower case, such as `model.admitted`.
        at_ns: nanoseconds since the Unix epoch.
        actor: the principal or process, such as `cli:root` or `recorder`.
        tenant: whose stream it belongs to.
        facts: flat facts, never content and never a secret.
    """

    kind: str
    at_ns: int
    actor: str
    tenant: str = "default"
    facts: dict[str, Fact] = {}
