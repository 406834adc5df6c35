"""Every bound of `[pool]` is checked."""

import pytest

from modelkeep.core.record import replaced
from modelkeep.gate.pool_settings import PoolSettings, pool_problems


def named(**changed):
    return [text for is_bad, text in pool_problems(replaced(PoolSettings(), **changed)) if is_bad]


def test_the_defaults_are_sound():
    assert named() == []
    assert named(hedge_percent=0, retry_percent=0, slow_start_s=0, shared_bytes=0) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"pending_max": 0},
        {"ping_s": -1.0},
        {"ping_s": float("nan")},
        {"first_s": float("inf")},
        {"hedge_percent": -1},
        {"hedge_percent": 101},
        {"ejected_percent_max": 101},
        {"hung_s": 1.0, "suspect_s": 1.0},
        {"ejection_s_max": 1.0},
        {"open_s_max": 0.5},
        {"shared_bytes": 1 << 31},
    ],
    ids=str,
)
def test_nonsense_is_named(changed):
    assert named(**changed)
