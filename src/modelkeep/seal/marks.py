"""Watermarks as evidence: what is registered before a release, and what is claimed of a suspect.

A registration commits to everything that decides how a suspect is read, before it is read:

    commitment = SHA-256("modelkeep/mark/v0" || mark || method || parameters || seed)

each part after its length as uint64; the parameters are the exact text that was registered. A claim
is the entry of the registration, its proof, and the seed. Whoever checks it

1. checks the proof of the entry under the log's key,
2. takes mark, method and parameters from that entry and from nowhere else,
3. makes the commitment again from them and the seed that the claim shows,
4. reads the suspect again with the seed: the claim's own numbers are compared, never believed,
5. multiplies the p-value by the number of things that this log could have meant instead.

What a seed and parameters are fixed by is therefore older than the claim by as much as the log's
checkpoint is. docs/design/watermarks.md says what forgers can still try, and what it costs them.
"""

from __future__ import annotations

import hashlib
import re
from math import exp, log

from modelkeep.core.artifact import is_model_name
from modelkeep.core.entry import Entry, Fact
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.record import Record, from_json, to_json
from modelkeep.kernels.mark_stream import SEED_BYTES
from modelkeep.kernels.tails import SMALLEST, log_binomial_tail

REGISTERED = "watermark.registered"
CLAIMED = "watermark.claimed"
WEIGHTS, TRIGGERS, TEXT = "weights", "triggers", "text"
METHODS = (WEIGHTS, TRIGGERS, TEXT)
CLAIM_FORMAT = "modelkeep/mark-claim/v0"
# A proof has at most 1 MiB; JSON within JSON at most doubles it.
CLAIM_BYTES_MAX = 4 * 1024 * 1024
# From here on a mark counts as found. One in a million models that are not ours would be accused.
FOUND_P = 1e-6
# Keys that nobody tries to find one that fits: at 30,000 a second a core takes a million years.
TRIES_LOG2_MIN = 60.0

_DOMAIN = b"modelkeep/mark/v0"
_COMMITMENT = re.compile(r"[0-9a-f]{64}")
_INDEPENDENT = (
    "The seed was made without knowledge of the suspect, so it is for whoever has not seen the "
    "suspect before the registration; and the suspect comes from its holder, not from who claims."
)
_WEIGHTS_EXACT = (
    "Exact: signs are fair coins, so each bit of a model that is not ours is hit with probability "
    "at most 1/2, whatever its weights are."
)
_WEIGHTS_GONE = (
    "A miss proves nothing: weights that were trained anew, or whose units were reordered, carry "
    "no mark."
)
_TRIGGERS_EXACT = (
    "Exact: labels are drawn after the triggers are fixed, so each answer of a model that is not "
    "ours matches with probability 1/classes, whatever it answers."
)
_TRIGGERS_OWN = (
    "The answers are the suspect's own, to the registered triggers in their order: whoever has the "
    "seed can write them down without asking anybody."
)
_TEXT_EXACT = (
    "Exact: coins of different cells are fair, so of a text that was neither made nor picked with "
    "our seed each shows 1 with probability 1/2, whatever the text is."
)
_TEXT_ALL = (
    "The texts were chosen by somebody without the key, or are all of one source: whoever has the "
    "key can pick innocent texts that read well, and tries no key for it."
)
_TEXT_WHOSE = "It says that the text was made with our seed, not by which copy of the model."
_ASSUMPTIONS = {
    WEIGHTS: (_WEIGHTS_EXACT, _WEIGHTS_GONE),
    TRIGGERS: (_TRIGGERS_EXACT, _TRIGGERS_OWN),
    TEXT: (_TEXT_EXACT, _TEXT_ALL, _TEXT_WHOSE),
}


class Registration(Record, frozen=True):
    """What was committed to.

    Attributes:
        mark: its id.
        parameters: exact JSON, in the form of its method.
        commitment: 64 hex digits.
        ordinal: how many marks this keep had registered then, with this one; it has more since.
        model: name of the model that it is meant for; may be empty.
    """

    mark: str
    method: str
    parameters: str
    commitment: str
    ordinal: int
    model: str = ""


class Reading(Record, frozen=True):
    """What a mark gave when it was read in a suspect.

    Attributes:
        trials: independent draws.
        chance: that one of them hits by accident, exactly.
    """

    hits: int
    trials: int
    chance: float

    @property
    def p_value(self) -> float:
        """Probability of so many hits, or more, in a suspect that has nothing of ours."""
        return corrected(self, 1)


class Judgement(Record, frozen=True):
    """What a reading means.

    Attributes:
        tests: things that might have been read instead, by which the p-value is multiplied.
        tries_log2: keys, as a power of two, that a forger must try for a reading like this.
        is_found: whether `corrected_p` is below FOUND_P.
    """

    mark: str
    method: str
    hits: int
    trials: int
    chance: float
    p_value: float
    log10_p: float
    tests: int
    corrected_p: float
    tries_log2: float
    is_found: bool
    assumptions: tuple[str, ...]


class Claim(Record, frozen=True):
    """That a suspect carries one of our marks; it shows the mark's seed.

    Attributes:
        suspect: digest of what was examined.
        proof: the bytes of a proof file of the registration's entry.
    """

    seed: bytes
    suspect: str
    reading: Reading
    proof: str
    format: str = CLAIM_FORMAT


def checked_mark(name: str) -> str:
    """Accept the id of a mark: it stands in names of files and of keys.

    Raises:
        UsageError: `mark.name`.
    """
    if not is_model_name(name):
        raise UsageError(
            "mark.name",
            f"{name[:120]!r} cannot name a mark",
            hint="use lower-case letters, digits, '.', '_' and '-', at most 100 characters",
        )
    return name


def checked_method(method: str) -> str:
    """Accept a method that is known.

    Raises:
        UsageError: `mark.method`.
    """
    if method not in METHODS:
        raise UsageError(
            "mark.method", f"{method[:40]!r} is no method", hint=f"one of {', '.join(METHODS)}"
        )
    return method


def commitment_of(mark: str, method: str, parameters: str, seed: bytes) -> str:
    """What is registered instead of the seed: 64 hex digits."""
    if len(seed) != SEED_BYTES:
        raise AssertionError("a mark's seed is 32 bytes")
    parts = (_DOMAIN, mark.encode(), method.encode(), parameters.encode(), seed)
    framed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return hashlib.sha256(framed).hexdigest()


def demand_committed(registration: Registration, seed: bytes) -> None:
    """Go on only if this seed is the one that was registered.

    Raises:
        IntegrityError: `mark.commitment`.
    """
    is_seed = len(seed) == SEED_BYTES
    if not is_seed or registration.commitment != commitment_of(
        registration.mark, registration.method, registration.parameters, seed
    ):
        raise IntegrityError(
            "mark.commitment",
            f"this seed is not the one that was registered as {registration.mark[:120]!r}",
        )


def registration_facts(registration: Registration) -> dict[str, Fact]:
    """What the ledger says of it."""
    return {
        "mark": registration.mark,
        "method": registration.method,
        "parameters": registration.parameters,
        "commitment": registration.commitment,
        "ordinal": registration.ordinal,
        "model": registration.model,
    }


def registration_in(entry: Entry) -> Registration:
    """The registration that an entry states.

    Raises:
        IntegrityError: `mark.entry`, when it states none.
    """
    facts = entry.facts
    texts = [facts.get(name) for name in ("mark", "method", "parameters", "commitment", "model")]
    mark, method, parameters, commitment, model = (
        each if isinstance(each, str) else "" for each in texts
    )
    ordinal = facts.get("ordinal")
    is_it = (
        entry.kind == REGISTERED
        and method in METHODS
        and is_model_name(mark)
        and _COMMITMENT.fullmatch(commitment)
    )
    if not is_it or not isinstance(ordinal, int) or isinstance(ordinal, bool) or ordinal < 1:
        raise IntegrityError("mark.entry", "the entry does not register a watermark")
    return Registration(
        mark=mark,
        method=method,
        parameters=parameters,
        commitment=commitment,
        ordinal=ordinal,
        model=model,
    )


def corrected(reading: Reading, tests: int) -> float:
    """The p-value of a reading when so many marks might have been read (Bonferroni); at most 1."""
    return min(1.0, max(SMALLEST, exp(min(0.0, _log_p(reading) + log(tests)))))


def judged(registration: Registration, reading: Reading, *, tests: int) -> Judgement:
    """Say what a reading means.

    Args:
        tests: by how much the p-value is multiplied: as many marks might have been read.
    """
    demand_reading(reading)
    corrected_p = corrected(reading, tests)
    return Judgement(
        mark=registration.mark,
        method=registration.method,
        hits=reading.hits,
        trials=reading.trials,
        chance=reading.chance,
        p_value=reading.p_value,
        log10_p=_log_p(reading) / log(10),
        tests=tests,
        corrected_p=corrected_p,
        tries_log2=-_log_p(reading) / log(2),
        is_found=corrected_p < FOUND_P,
        assumptions=(_INDEPENDENT, *_ASSUMPTIONS[registration.method]),
    )


def demand_reading(reading: Reading) -> None:
    """Accept numbers that a reading can have.

    Raises:
        IntegrityError: `mark.reading`.
    """
    if not (0 <= reading.hits <= reading.trials < 1 << 40 and 0.0 < reading.chance < 1.0):
        raise IntegrityError("mark.reading", "the numbers of this reading are impossible")


def claim_bytes(claim: Claim) -> bytes:
    """The bytes of a claim file."""
    return to_json(claim) + b"\n"


def parsed_claim(raw: bytes) -> Claim:
    """Read a claim file; nothing in it is verified yet.

    Raises:
        IntegrityError: `mark.claim`.
    """
    if len(raw) > CLAIM_BYTES_MAX:
        raise IntegrityError("mark.claim", "that is not a claim: it is too long")
    try:
        claim = from_json(Claim, raw, what="the claim")
        demand_reading(claim.reading)
    except IntegrityError as error:
        raise IntegrityError("mark.claim", f"that is not a claim: {error.message}") from error
    if claim.format != CLAIM_FORMAT or len(claim.seed) != SEED_BYTES:
        raise IntegrityError("mark.claim", "that is not a claim of a form that is known here")
    return claim


def _log_p(reading: Reading) -> float:
    """Natural logarithm of the p-value."""
    return log_binomial_tail(reading.hits, reading.trials, reading.chance)
