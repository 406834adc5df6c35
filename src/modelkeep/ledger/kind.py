"""What a kind of ledger entry is: its sentence, its facts, and what it means to a SIEM."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from modelkeep.core.verdict import Severity


class Act(Enum):
    """What an entry says was done, in the words of OCSF's Entity Management class."""

    CREATE = 1
    READ = 2
    UPDATE = 3
    DELETE = 4
    DETECT = 5  # something is wrong: a Detection Finding
    OTHER = 99  # neither: a Base Event


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of entry.

    Attributes:
        name: dotted, stable; `note.` and `x.` stand for all that begins so.
        entity: what it is about, for who sorts by it; empty where `act` is OTHER or DETECT.
    """

    name: str
    meaning: str
    facts: tuple[str, ...]
    act: Act = Act.OTHER
    entity: str = ""
    severity: Severity = Severity.NOTE


def kind(
    name: str,
    facts: str,
    meaning: str,
    act: Act = Act.OTHER,
    *,
    entity: str = "",
    severity: Severity = Severity.NOTE,
) -> Kind:
    """A kind, with its facts in one text; what is wrong is at least of medium severity."""
    if act is Act.DETECT and severity is Severity.NOTE:
        severity = Severity.MEDIUM
    return Kind(name, meaning, tuple(facts.split()), act, entity, severity)
