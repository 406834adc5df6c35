"""Claims that are not true, against the rules of `seal.marks`: each of them must be refused.

The owner registers, marks and releases; then others claim what is not theirs, each in the way that
suits them best. The owner's own claim, checked by a stranger with the log's key only, must hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import _seal_classifiers as classifiers
import numpy as np

from modelkeep.core.errors import KeepError
from modelkeep.core.record import Record, replaced, to_json
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.watermark import CheckedClaim, opened_claim
from modelkeep.kernels import text_mark, trigger_mark, weight_mark
from modelkeep.ledger.checkpoint import parsed_verifier_key
from modelkeep.ledger.cosignature import Witness
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.suspects import examined
from modelkeep.sdk.watermarks import Watermarks, checked
from modelkeep.seal.marks import (
    TRIES_LOG2_MIN,
    Reading,
    Registration,
    claim_bytes,
    commitment_of,
    judged,
    parsed_claim,
)

PASSPHRASE = "a passphrase of a benchmark"  # noqa: S105 - of keeps that live for one run
CHEAP = Argon2Settings(memory_kib=8, passes=1, lanes=1)
BITS, POSITIONS = 64, 16  # a forger reads few weights for each seed
VOCABULARY, TEXT_TOKENS = 49_152, 200
Found = dict[str, Any]
Read = Callable[[bytes], Reading]


def measured(folder: Path, data: classifiers.Data, tried: int) -> list[Found]:
    """Every attempt: how, what came of it, what was wanted, whether that came."""
    released, other = (classifiers.trained(data, 2_000_000 + number) for number in range(2))
    return [
        searched("weights", *weights_reader(other), tried),
        searched("triggers", *triggers_reader(other, data), 10 * tried),
        searched("text", *text_reader(), tried // 10),
        *claims(folder, released, other),
    ]


# ---- seeds found after the fact --------------------------------------------------------------


def weights_reader(model: Any) -> tuple[Record, Read]:
    """Parameters of the forger's choice, which are cheap to try."""
    suspect = classifiers.tensors(model)
    sizes = tuple(
        weight_mark.MarkedTensor(name=each.place.name, items=each.items) for each in suspect
    )
    parameters = weight_mark.WeightParameters(
        bits=BITS, positions=POSITIONS, margin=1.0, tensors=sizes
    )

    def read(seed: bytes) -> Reading:
        hits = weight_mark.hits_in(suspect, seed, parameters)
        return Reading(hits=hits, trials=BITS, chance=0.5)

    return parameters, read


def triggers_reader(model: Any, data: classifiers.Data) -> tuple[Record, Read]:
    """Natural inputs, which every good model tells alike."""
    inputs = data.test[0][: trigger_mark.COUNT]
    answers = model.predict(inputs)
    parameters = trigger_mark.chosen_parameters(inputs, classes=classifiers.CLASSES)

    def read(seed: bytes) -> Reading:
        hits = trigger_mark.matches_in(answers, seed, parameters)
        return Reading(hits=hits, trials=len(inputs), chance=1 / classifiers.CLASSES)

    return parameters, read


def text_reader() -> tuple[Record, Read]:
    """One text."""
    text = np.random.default_rng(9).integers(0, VOCABULARY, TEXT_TOKENS).tolist()
    parameters = text_mark.TextParameters()

    def read(seed: bytes) -> Reading:
        found = text_mark.tally([text], text_mark.text_key(seed, parameters))
        return Reading(hits=found.hits, trials=found.trials, chance=0.5)

    return parameters, read


def searched(method: str, parameters: Record, read: Read, tried: int) -> Found:
    """The best of many seeds, registered first of all in a log of the forger's own."""
    seeds = ((number + (1 << 200)).to_bytes(32, "big") for number in range(tried))
    best, seed = max(((read(each), each) for each in seeds), key=lambda pair: pair[0].hits)
    text = to_json(parameters).decode()
    registration = Registration(
        mark="forged", method=method, parameters=text, ordinal=1,
        commitment=commitment_of("forged", method, text, seed),
    )  # fmt: skip
    judgement = judged(registration, best, tests=3)  # what the shortest log holds before it
    is_convincing = judgement.is_found and judgement.tries_log2 >= TRIES_LOG2_MIN
    return {
        "how": f"the best of {tried:,} seeds, {method}",
        "outcome": f"p {best.p_value:.0e}, 2^{judgement.tries_log2:.0f} tries",
        "wanted": f"not found, or under 2^{TRIES_LOG2_MIN:.0f} tries",
        "is_met": not is_convincing,
    }


# ---- claims in files -------------------------------------------------------------------------


def claims(folder: Path, plain: Any, other: Any) -> Iterator[Found]:
    """A released model, its owner's claim, and claims of others."""
    clean, released = folder / "clean.safetensors", folder / "released.safetensors"
    clean.write_bytes(classifiers.as_file(plain))
    own_log = life(folder / "owner", "own-1", clean, released)
    released_ns = time.time_ns()
    stolen, late = folder / "stolen.safetensors", folder / "late.safetensors"
    weights = list(classifiers.read_back(released.read_bytes(), plain))
    tuned = classifiers.changed(plain, weights)
    stolen.write_bytes(classifiers.as_file(classifiers.noisy(tuned, 0.1)))
    own_claim = claim(folder / "owner", "own-1", stolen)
    thief_log = life(folder / "thief", "mine", stolen, late)
    thief_claim = claim(folder / "thief", "mine", late)
    independent = folder / "independent.safetensors"
    independent.write_bytes(classifiers.as_file(other))

    truths: dict[str, Callable[[], Any]] = {
        "none: the owner's own claim": lambda: is_beyond_doubt(
            checked(own_claim, stolen, keys=[own_log], before_ns=released_ns)
        ),
        "none: the owner's mark below the thief's": lambda: found_in(own_claim, late, own_log),
    }
    attempts: dict[str, Callable[[], Any]] = {
        "a mark laid over the owner's, registered after the release": lambda: checked(
            thief_claim, late, keys=[thief_log], before_ns=released_ns
        ),
        "a log's own early clock, no witness has seen it": lambda: checked(
            thief_claim, late, keys=[thief_log], witnesses=[witness()],
            before_ns=time.time_ns(),
        ),
        "the thief's mark in the model that was released": lambda: found_in(
            thief_claim, released, thief_log
        ),
        "a seed that was not registered": lambda: checked(
            with_seed(own_claim), stolen, keys=[own_log]
        ),
        "numbers better than what is read": lambda: checked(
            with_hits(own_claim), stolen, keys=[own_log]
        ),
        "the claim of another suspect": lambda: checked(own_claim, released, keys=[own_log]),
        "the owner's mark in an independent model": lambda: found_in(
            own_claim, independent, own_log
        ),
    }  # fmt: skip
    for how, attempt in truths.items():
        said = refusal(attempt) or "holds"
        yield {"how": how, "outcome": said, "wanted": "holds", "is_met": said == "holds"}
    for how, attempt in attempts.items():
        said = refusal(attempt) or "HOLDS"
        yield {"how": how, "outcome": said, "wanted": "refused", "is_met": said != "HOLDS"}


def life(folder: Path, mark: str, model: Path, output: Path) -> str:
    """A keep that registers a mark and lays it on a model; its log's key."""
    with Keep.create(folder, passphrase=PASSPHRASE, argon2=CHEAP) as keep:
        marks = Watermarks(keep)
        marks.new_weights(mark, model)
        marks.embed(mark, model, output)
        return keep.ledger.verifier_key()


def claim(folder: Path, mark: str, suspect: Path) -> bytes:
    """What a keep claims of a suspect."""
    path = folder.with_suffix(".claim")
    with Keep(folder, passphrase=PASSPHRASE) as keep:
        Watermarks(keep).verify(mark, suspect, claim=path)
    return path.read_bytes()


def is_beyond_doubt(done: CheckedClaim) -> bool:
    """Found, and by more than can be tried."""
    return done.judgement.is_found and done.is_beyond_trial


def found_in(raw: bytes, suspect: Path, log: str) -> bool:
    """A claim turned on another suspect, with the numbers that are read there."""
    one = parsed_claim(raw)
    registration, _ = opened_claim(one, logs=dict([parsed_verifier_key(log)]))
    done = examined(registration, one.seed, suspect)
    turned = replaced(one, suspect=done.suspect, reading=done.reading)
    return checked(claim_bytes(turned), suspect, keys=[log]).judgement.is_found


def refusal(attempt: Callable[[], Any]) -> str:
    """Why a claim does not hold; empty where it does."""
    try:
        return "" if attempt() else "not found"
    except KeepError as error:
        return error.code


def with_seed(raw: bytes) -> bytes:
    """A claim that shows another seed."""
    return claim_bytes(replaced(parsed_claim(raw), seed=bytes(32)))


def with_hits(raw: bytes) -> bytes:
    """A claim of more hits than there are."""
    one = parsed_claim(raw)
    better = replaced(one.reading, trials=one.reading.trials + 9, hits=one.reading.hits + 9)
    return claim_bytes(replaced(one, reading=better))


def witness() -> str:
    """The key of a witness that has seen none of these logs."""
    public = Signer(Secret(bytes(range(32)))).public
    return Witness("witness.invalid", public).verifier_key
