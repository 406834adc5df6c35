"""Goal: how long a refusal takes does not tell a known key from an unknown or a revoked one.

Method: calls of three kinds in random order, each timed by itself, in one process: a known id with
a wrong secret, an id that nobody has, and the right text of a revoked key. Welch's t for each pair
of kinds over all calls, nothing cut off.

Cache effects: a call that finds an entry reads memory that a call which finds none would not, and
that was told apart (40 to 240 ns of 2 us; t up to 150 with the slowest tenth cut off). So every id
leads to an entry (`gate.authn._Table`), and here each kind uses as many ids, often, in the same
order of magnitude of times, with headers that are made alike and before the first call.
"""

import gc
import math
import random
import time

import pytest

from modelkeep.adapters.system import SystemEntropy
from modelkeep.core.errors import UsageError
from modelkeep.core.record import replaced
from modelkeep.gate.authn import Keyring, new_token

KEYS = 1000
IDS = 300
T_MAX = 4.5
KINDS = ("known", "unknown", "revoked")


def calls(count):
    """A keyring, and headers of three kinds in random order."""
    made = [
        new_token(SystemEntropy(), principal=f"p{number}", scopes=("infer:*",))
        for number in range(KEYS + IDS)
    ]
    texts = [text.reveal() for text, _ in made]
    rows = [row for _, row in made[:KEYS]]
    rows[IDS : 2 * IDS] = [replaced(row, revoked=True) for row in rows[IDS : 2 * IDS]]
    ids = {
        "known": [text[:20] for text in texts[:IDS]],
        "unknown": [text[:20] for text in texts[KEYS:]],
        "revoked": [text[:20] for text in texts[IDS : 2 * IDS]],
    }
    secrets = dict(zip((text[:20] for text in texts), (text[20:] for text in texts), strict=True))
    chance = random.Random(7)  # noqa: S311 - a test's
    found = []
    for number in range(count):
        kind = KINDS[number % 3]
        one = chance.choice(ids[kind])
        secret = secrets[one] if kind == "revoked" else texts[chance.randrange(KEYS)][:-44:-1]
        found.append((kind, b"".join((b"Bearer ", one, secret))))
    chance.shuffle(found)
    return Keyring(rows), found


def took_ns(count):
    """How long each call took, by kind."""
    keyring, shown = calls(count)
    found = {kind: [] for kind in KINDS}
    clock, ask = time.perf_counter_ns, keyring.principal_of
    gc.collect()
    gc.disable()
    try:
        for kind, header in shown:
            began = clock()
            try:
                ask(header, now_ns=5)
            except UsageError:
                ended = clock()
            else:
                raise AssertionError("a wrong key was let in")
            found[kind].append(ended - began)
    finally:
        gc.enable()
    return found


def welch_t(one, other):
    means = [sum(each) / len(each) for each in (one, other)]
    errors = [
        sum((value - mean) ** 2 for value in each) / (len(each) - 1) / len(each)
        for each, mean in zip((one, other), means, strict=True)
    ]
    return (means[0] - means[1]) / math.sqrt(sum(errors))


@pytest.mark.slow
@pytest.mark.verify("auth-timing")
def test_wrong_keys_cannot_be_told_apart_by_time(count):
    found = took_ns(count(9_000, full=100_000))
    pairs = (("known", "unknown"), ("known", "revoked"), ("unknown", "revoked"))
    told = {pair: welch_t(found[pair[0]], found[pair[1]]) for pair in pairs}
    assert all(abs(t) < T_MAX for t in told.values()), told
