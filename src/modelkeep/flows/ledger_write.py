"""Appending to the ledger from outside: typed, bounded, in families of its own."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from modelkeep.core.entry import Entry, Fact
from modelkeep.core.errors import UsageError
from modelkeep.flows.keep import OpenKeep, recorded
from modelkeep.flows.values import kept_value
from modelkeep.ledger.entry import encoded_body
from modelkeep.ledger.kinds import checked_own_kind
from modelkeep.ledger.value import RESERVED_FACTS

FACTS_MAX = 32
FACT_CHARS_MAX = 4096
INTEGER_MAX = 2**63 - 1

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def appended(
    keep: OpenKeep, kind: str, facts: Mapping[str, Fact], private: Mapping[str, Fact]
) -> int:
    """Record an entry of a kind below `note.` or `x.`; its index.

    Args:
        private: facts that are sealed under a key of their own, which `erased_value` destroys.

    Raises:
        UsageError: `ledger.kind`, `ledger.fact` or `ledger.entry_size`.
    """
    checked_own_kind(kind)
    _demand_facts({**facts, **private}, count=len(facts) + len(private))
    entry = Entry(
        kind=kind,
        at_ns=keep.clock.now_ns(),
        actor=keep.actor,
        facts={**facts, **(kept_value(keep, private) if private else {})},
    )
    encoded_body(entry)  # what is too long is refused before anything is recorded
    return recorded(keep, [entry])


def parsed_fact(text: str) -> tuple[str, Fact]:
    """A fact as a person types it: `name=text`, `name:int=7`, `name:float=0.5`, `name:bool=true`.

    Raises:
        UsageError: `ledger.fact`.
    """
    name, equals, value = text.partition("=")
    name, _, type_ = name.partition(":")
    read = _READ.get(type_)
    if not equals or read is None:
        raise _bad(f"{text[:80]!r} is no fact")
    try:
        return name, read(value)
    except ValueError:
        raise _bad(f"{value[:80]!r} is no {type_}") from None


def _bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _int(text: str) -> int:
    if len(text) > len(str(-INTEGER_MAX)) or not re.fullmatch(r"-?[0-9]+", text):
        raise ValueError(text)
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


_READ: dict[str, Callable[[str], Fact]] = {
    "": str,
    "str": str,
    "int": _int,
    "float": _float,
    "bool": _bool,
}


def _demand_facts(facts: Mapping[str, Fact], *, count: int) -> None:
    if count > FACTS_MAX or count != len(facts):
        raise _bad(f"an entry has at most {FACTS_MAX} facts, each name once")
    for name, value in facts.items():
        if _NAME.fullmatch(name) is None or name in RESERVED_FACTS:
            raise _bad(f"{name[:80]!r} cannot name a fact")
        if isinstance(value, int) and not -INTEGER_MAX <= value <= INTEGER_MAX:
            raise _bad(f"{name} is beyond 63 bits")
        if isinstance(value, str):
            _demand_text(name, value)


def _demand_text(name: str, value: str) -> None:
    if len(value) > FACT_CHARS_MAX:
        raise _bad(f"{name} is longer than {FACT_CHARS_MAX} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _bad(f"{name} is no UTF-8") from None


def _bad(why: str) -> UsageError:
    return UsageError(
        "ledger.fact", why, hint="NAME=TEXT, NAME:int=7, NAME:bool=true; names in lower case"
    )
