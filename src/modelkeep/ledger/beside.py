"""Names of what lies beside a log's checkpoints: cosignatures, time stamps, and checkpoints abroad.

Below the log's own folder, named so that nothing is ever overwritten and the newest is found by
listing alone:

    cosignature/<size, 12 digits>/<witness key id, 8 hex>/<unix second, 12 digits>   signed note
    timestamp/<size, 12 digits>/<authority, 8 hex>/<unix second, 12 digits>          `Stamp`, JSON

and in a store that only witnesses, for many keeps side by side:

    witness/<origin hash>/<size, 12 digits>                                          signed note
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from modelkeep.core.limits import SERIES_DIGITS
from modelkeep.core.names import checked_object_name, series_name
from modelkeep.ledger.tiles import log_prefix

COSIGNATURE = "cosignature"
TIMESTAMP = "timestamp"
AUTHOR_DIGITS = 8

_DIGITS = f"[0-9]{{{SERIES_DIGITS}}}"
_BESIDE = re.compile(
    rf"(?P<kind>{COSIGNATURE}|{TIMESTAMP})/(?P<size>{_DIGITS})"
    rf"/(?P<author>[0-9a-f]{{{AUTHOR_DIGITS}}})/(?P<at>{_DIGITS})"
)
_ABROAD = re.compile(rf"(?P<size>{_DIGITS})")


@dataclass(frozen=True, slots=True)
class Beside:
    """What one such object is: about which tree, by whom, and when it was made."""

    kind: str
    size: int
    author: str
    at_s: int


def beside_name(prefix: str, beside: Beside) -> str:
    """The object name of a cosignature or time stamp."""
    at = f"{beside.at_s:0{SERIES_DIGITS}d}"
    size = f"{beside.size:0{SERIES_DIGITS}d}"
    return checked_object_name(f"{prefix}{beside.kind}/{size}/{beside.author}/{at}")


def parsed_beside(prefix: str, name: str) -> Beside | None:
    """What a name means; None when it names nothing of the kind."""
    match = _BESIDE.fullmatch(name.removeprefix(prefix)) if name.startswith(prefix) else None
    if match is None:
        return None
    return Beside(match["kind"], int(match["size"]), match["author"], int(match["at"]))


def abroad_prefix(origin: str) -> str:
    """The folder of one log's checkpoints in a store that witnesses, with its closing slash."""
    return "witness/" + log_prefix(origin).removeprefix("ledger/")


def abroad_name(origin: str, size: int) -> str:
    """The object name of a checkpoint in a store that witnesses."""
    return checked_object_name(series_name(abroad_prefix(origin).rstrip("/"), size))


def parsed_abroad(origin: str, name: str) -> int | None:
    """The tree size in such a name; None when it names no checkpoint of the log."""
    prefix = abroad_prefix(origin)
    match = _ABROAD.fullmatch(name.removeprefix(prefix)) if name.startswith(prefix) else None
    return int(match["size"]) if match is not None else None
