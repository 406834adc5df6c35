"""What comes with a model in files of its own: its policy and its card, as TOML."""

from __future__ import annotations

import datetime
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from modelkeep.core.card import Card
from modelkeep.core.errors import IntegrityError, MissingError, UsageError
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.limits import CONFIG_BYTES_MAX
from modelkeep.core.policy import Policy, demand_bounded
from modelkeep.core.record import Record, converted

R = TypeVar("R", bound=Record)
_UNTIL = "not_after"


def policy_of(given: Policy | str | Path) -> Policy:
    """A policy, or the one that a file says.

    In a file the end is `not_after`, a date or a time with its zone.

    Raises:
        MissingError: `file.missing`.
        UsageError: `paper.toml`, `paper.policy`, `policy.bounds`.
    """
    if isinstance(given, Policy):
        demand_bounded(given)
        return given
    plain = _read(Path(given))
    until = plain.pop(_UNTIL, None)
    if until is not None:
        plain["not_after_ns"] = _instant_ns(until, Path(given))
    policy = _converted(Policy, plain, Path(given))
    demand_bounded(policy)
    return policy


def card_of(given: Card | str | Path | None) -> Card:
    """A card, or the one that a file says.

    Raises:
        MissingError: `file.missing`.
        UsageError: `paper.toml`, `paper.policy`.
    """
    if given is None or isinstance(given, Card):
        return given or Card()
    return _converted(Card, _read(Path(given)), Path(given))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingError("file.missing", f"there is no file {path}")
    with path.open("rb") as stream:
        raw = stream.read(CONFIG_BYTES_MAX + 1)
    if len(raw) > CONFIG_BYTES_MAX:
        raise UsageError("paper.toml", f"{path} is larger than 1 MiB")
    try:
        return tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError("paper.toml", f"{path} is not TOML: {error}") from error


def _converted(kind: type[R], plain: dict[str, Any], path: Path) -> R:
    try:
        return converted(kind, plain, what=str(path))
    except IntegrityError as error:
        raise UsageError(
            "paper.policy",
            error.message,
            hint="docs/guide/policy.md says every key of a policy, sealed-models.md shows a card",
        ) from error


def _instant_ns(value: object, path: Path) -> int:
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        moment = value
    elif isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        moment = datetime.datetime.combine(value, datetime.time(), tzinfo=datetime.UTC)
    else:
        raise UsageError(
            "paper.policy",
            f"{path}: {_UNTIL} is no date, and no time with a zone",
            hint="write 2027-06-30 or 2027-06-30T12:00:00Z",
        )
    instant_s = int(moment.timestamp())
    if instant_s <= 0:  # 0 is what a policy says that never ends
        raise UsageError(
            "paper.policy", f"{path}: {_UNTIL} is before 1970", hint="write a date that is to come"
        )
    return instant_s * NS_PER_S
