"""What one file and everything inside it may cost together."""

from __future__ import annotations

from dataclasses import dataclass

from modelkeep.scan.settings import ScanSettings


@dataclass(slots=True)
class Allowance:
    """What is left to spend; every member of every nested archive spends from the same one."""

    plain_bytes: int
    members: int
    opcodes: int


def allowance_of(settings: ScanSettings) -> Allowance:
    """A fresh allowance for one file."""
    return Allowance(
        plain_bytes=settings.expanded_bytes_max,
        members=settings.members_max,
        opcodes=settings.pickle_opcodes_max,
    )
