"""What must come with a model, and what is known of the packages that it wants: two tables."""

from __future__ import annotations

import datetime
import math
import re

from modelkeep.core.card import Card
from modelkeep.core.errors import UsageError
from modelkeep.core.record import Record
from modelkeep.crypto.keytext import verifier_bytes
from modelkeep.scan.licences import is_licence

HOLD, DENY, NOTE = "hold", "deny", "note"
BASE = "base"
# What can be demanded of a card, and what the model was made from.
CARD_FIELDS = (BASE, *Card.__struct_fields__)
_SIGNER = re.compile(r"(?:key|root):[0-9a-f]{64}")
_WEEK_S = 7 * 86_400.0


class AdmissionSettings(Record, frozen=True):
    """Table `[admission]` of modelkeep.toml: what must come with a model; nothing by default.

    Attributes:
        signers: whose signatures are trusted: `mkv1…` (a keep, an identity), `key:` and the
            fingerprint of an OMS key as `oms verify` shows it, `root:` and the SHA-256 of a root
            certificate (DER), in hex. None: whoever `--signed-by` names.
        signature_required: patterns (`fraud*`) of names whose models must be signed by one of them.
        licences: SPDX ids of licences that are allowed, such as `Apache-2.0`; none: any.
        card_required: what must be said of a model: `base`, `licence`, `datasets`, `run`, `code`
            or another field of its card.
        decision: what becomes of a model to which something is wanting: `hold` or `deny`.
        unassessed: what becomes of one with requirements that the advisories cannot judge: `note`
            or `hold`.
    """

    signers: tuple[str, ...] = ()
    signature_required: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    card_required: tuple[str, ...] = ()
    decision: str = HOLD
    unassessed: str = NOTE


class Tolerated(Record, frozen=True):
    """One table `[[advisories.tolerated]]`: what somebody has looked at and lives with for a while.

    Attributes:
        id: of an advisory or one of its aliases; empty: that `package` cannot be assessed.
        package: name of the package; empty: every package that the advisory is about.
        why: a sentence for who asks.
        until: the date on which it ends.
    """

    why: str
    until: datetime.date
    id: str = ""
    package: str = ""


class AdvisorySettings(Record, frozen=True):
    """Table `[advisories]` of modelkeep.toml: what is known of packages, for who asks offline.

    Attributes:
        file: an export of OSV: the `all.zip` of PyPI, a folder, JSON or JSON lines; a relative path
            starts at the keep's folder. With it the requirements of a model are assessed when it
            is admitted.
        age_s_max: how old the newest advisory in it may be; past it nothing is called clean.
        count_min: fewer advisories than this are no export of an index (PyPI's has over ten
            thousand), and nothing is called clean by them.
        tolerated: what is known and lived with.
    """

    file: str = ""
    age_s_max: float = _WEEK_S
    count_min: int = 1
    tolerated: tuple[Tolerated, ...] = ()


def admission_problems(settings: AdmissionSettings) -> list[tuple[bool, str]]:
    """What is wrong with `[admission]`."""
    unknown = sorted(set(settings.card_required) - set(CARD_FIELDS))
    return [
        (
            not all(map(_is_signer, settings.signers)),
            "admission.signers: mkv1…, key: or root: with 64 hex digits in lower case",
        ),
        (
            bool(settings.signature_required) and not settings.signers,
            "admission.signature_required needs admission.signers: whose signature it is",
        ),
        (
            not all(map(is_licence, settings.licences)),
            "admission.licences: each is one SPDX id, or LicenseRef-…",
        ),
        (
            bool(unknown),
            f"admission.card_required: {unknown} cannot be demanded; known are {CARD_FIELDS}",
        ),
        (settings.decision not in (HOLD, DENY), "admission.decision is hold or deny"),
        (settings.unassessed not in (NOTE, HOLD), "admission.unassessed is note or hold"),
    ]


def advisory_problems(settings: AdvisorySettings) -> list[tuple[bool, str]]:
    """What is wrong with `[advisories]`."""
    return [
        (not 0 < settings.age_s_max < math.inf, "advisories.age_s_max is not a number above zero"),
        (settings.count_min < 1, "advisories.count_min is below one"),
        (
            not all(each.id or each.package for each in settings.tolerated),
            "advisories.tolerated: one names neither an id nor a package",
        ),
        (
            not all(each.why.strip() for each in settings.tolerated),
            "advisories.tolerated: one does not say why",
        ),
    ]


def _is_signer(text: str) -> bool:
    """Whether a text names somebody; a verifier has a check of its own."""
    if _SIGNER.fullmatch(text):
        return True
    try:
        verifier_bytes(text)
    except UsageError:
        return False
    return text == text.lower()
