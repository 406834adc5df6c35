"""Which entries are meant: by kind, actor, tenant, time and facts."""

from __future__ import annotations

import datetime
import re

from modelkeep.core.entry import Entry, Fact
from modelkeep.core.errors import UsageError
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.record import Record, to_json

FOREVER_NS = 2**63 - 1
# 2026-01-31, or with a time of day and its offset; RFC 3339 in the forms that people type.
_INSTANT = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[Tt ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:[Zz]|[+-]\d{2}:\d{2}))?"
)
_FRACTION = re.compile(r"\.(\d+)")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class Query(Record, frozen=True):
    """What an entry must be to be found; what is left empty asks for nothing.

    Attributes:
        kind: the beginning of it, such as `model.`.
        since_ns: at this instant or later.
        until_ns: before this instant.
        facts: name and text of facts that it must have.
    """

    kind: str = ""
    actor: str = ""
    tenant: str = ""
    since_ns: int = -FOREVER_NS
    until_ns: int = FOREVER_NS
    facts: tuple[tuple[str, str], ...] = ()

    def is_met_by(self, entry: Entry) -> bool:
        """Whether the entry is meant."""
        return (
            entry.kind.startswith(self.kind)
            and self.actor in ("", entry.actor)
            and self.tenant in ("", entry.tenant)
            and self.since_ns <= entry.at_ns < self.until_ns
            and all(
                name in entry.facts and fact_text(entry.facts[name]) == text
                for name, text in self.facts
            )
        )


def fact_text(fact: Fact) -> str:
    """A fact as people write it: text as it is, all else as JSON (`true`, `17`, `["a","b"]`)."""
    return fact if isinstance(fact, str) else to_json(fact).decode()


def instant_ns(text: str) -> int:
    """The instant that an RFC 3339 text names; a date alone is its first moment in UTC.

    Raises:
        UsageError: `time.form`.
    """
    try:
        if _INSTANT.fullmatch(text) is None or not text.isascii():
            raise ValueError(text)
        fraction = _FRACTION.search(text)
        moment = datetime.datetime.fromisoformat(_FRACTION.sub("", text.upper()))
        moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
        whole = (moment - _EPOCH) // datetime.timedelta(seconds=1)
    except (ValueError, OverflowError):
        raise UsageError(
            "time.form", f"{text[:80]!r} is no time", hint="2026-01-31T08:00:00Z, or 2026-01-31"
        ) from None
    return whole * NS_PER_S + (int(fraction[1].ljust(9, "0")) if fraction else 0)
