"""The knobs of the pool of replicas: when one is doubted, what is tried again, what is shared."""

from __future__ import annotations

import math

from modelkeep.core.record import Record, as_plain

# Where several of these are percentages of calls, more than all of them is a mistake.
_PERCENTS = ("ejected_percent_max", "retry_percent", "hedge_percent")
_MAY_BE_ZERO = ("hedge_percent", "retry_percent", "slow_start_s", "shared_bytes")


class PoolSettings(Record, frozen=True):
    """Table `[pool]` of modelkeep.toml: a gateway and the replicas of its models.

    Attributes:
        pending_max: calls of one version that are under way or wait, in one gateway; more are 503.
        sends_max: how often a call is sent at most; replicas that are lost under it are its doing.
        ping_s: how often a replica that has nothing to do is asked whether it is there.
        suspect_s: a replica that owes an answer and says nothing for so long, and for four times
            the longest pause of its model, gets no more calls; those it has are asked elsewhere.
        first_s: the same while nobody knows how long this model takes.
        hung_s: a replica that owes an answer and says nothing for so long hangs: its connection is
            closed and the supervisor starts it anew. Not shorter than `gate.call_timeout_s`, so
            that no run of a model is cut off while a call may still have its answer.
        text_hung_s: the same for a language model, whose first word may take longer.
        failures_to_eject: failures in a row after which a replica gets no more calls.
        ejection_s: for how long, times how often that happened to it lately.
        ejection_s_max: for how long at most.
        ejected_percent_max: of a model's replicas may be without calls at once; one always may,
            the last one never.
        slow_start_s: over which a replica that is back gets more and more calls; 0 for at once.
        retry_percent: of calls may be sent again.
        retries_per_s_min: that may be sent again in any case, per second and model.
        hedge_percent: of calls may be asked of a second replica; 0 switches that off.
        hedge_after_s_min: no call is asked twice before, nor before 95 of 100 calls are answered.
        open_after_failures: calls in a row that no replica answered in time; then the model's
            calls are refused at once for a while.
        open_s: for how long, before one call tries; doubled when it fails.
        open_s_max: for how long at most.
        shared_bytes: of memory that is shared with a replica, for calls and again for answers,
            per connection; 0 for none.
        shared_from_bytes: tensors of one call from this size on go through shared memory.
        answer_bytes_max: of one frame from a replica.
        drain_s: how long a replica that is taken out may still answer what it was asked.
        talk_s_max: of one text, from its call to its end.
        pieces_max: of one text that wait for a reader; a slower reader loses the rest.
        pieces_bytes_max: the same in bytes of text; one piece may be larger.
    """

    pending_max: int = 2048
    sends_max: int = 4
    ping_s: float = 1.0
    suspect_s: float = 1.0
    first_s: float = 10.0
    hung_s: float = 40.0
    text_hung_s: float = 60.0
    failures_to_eject: int = 5
    ejection_s: float = 5.0
    ejection_s_max: float = 60.0
    ejected_percent_max: int = 50
    slow_start_s: float = 2.0
    retry_percent: int = 20
    retries_per_s_min: int = 10
    hedge_percent: int = 5
    hedge_after_s_min: float = 0.01
    open_after_failures: int = 10
    open_s: float = 1.0
    open_s_max: float = 30.0
    shared_bytes: int = 16 * 1024 * 1024
    shared_from_bytes: int = 64 * 1024
    answer_bytes_max: int = 256 * 1024 * 1024
    drain_s: float = 30.0
    talk_s_max: float = 900.0
    pieces_max: int = 4096
    pieces_bytes_max: int = 4 * 1024 * 1024


def pool_problems(pool: PoolSettings) -> list[tuple[bool, str]]:
    """What is wrong with `[pool]`, each with whether it is."""
    plain = as_plain(pool)
    return [
        *(
            (not (value > 0 or (value == 0 and key in _MAY_BE_ZERO)) or not value < math.inf,
             f"pool.{key} is not a number above zero")
            for key, value in plain.items()
        ),
        *((plain[key] > 100, f"pool.{key} is a percentage") for key in _PERCENTS),
        (pool.hung_s <= pool.suspect_s, "pool.hung_s is not longer than pool.suspect_s"),
        (pool.ejection_s_max < pool.ejection_s, "pool.ejection_s_max is below pool.ejection_s"),
        (pool.open_s_max < pool.open_s, "pool.open_s_max is below pool.open_s"),
        (pool.shared_bytes > 1 << 30, "pool.shared_bytes is above 1 GiB"),
    ]  # fmt: skip
