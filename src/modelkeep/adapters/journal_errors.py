"""What can be wrong with a journal's files, as errors that say what to do."""

from __future__ import annotations

import errno
from pathlib import Path

from modelkeep.core.errors import IntegrityError, MissingError, UnavailableError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def damaged(path: Path, position: int, why: str) -> IntegrityError:
    """Bytes that were durable are not what was written."""
    return IntegrityError(
        "journal.damaged",
        f"journal {path.parent.name}, {path.name}, frame {position}: {why}",
        hint="keep the file as evidence; what the ledger committed of it is in its batches",
        journal=path.parent.name,
        segment=path.name,
        position=position,
    )


def expired(folder: Path, position: int) -> MissingError:
    """The frame lies before the oldest segment that is here."""
    return MissingError(
        "journal.expired",
        f"frame {position} of journal {folder.name} is no longer kept",
        hint="what the ledger committed of it can still be proven",
        journal=folder.name,
        position=position,
    )


def full(folder: Path, error: OSError) -> UnavailableError:
    """The disk has no room, or what it has is kept for control entries."""
    return UnavailableError(
        "ledger.full",
        f"journal {folder.name}: {error.strerror or error}",
        hint="free some space: calls are refused until then, control entries are not",
        journal=folder.name,
    )
