"""Who may use up how much: the tables `[[limits]]`, `[limiter]` and `[queue]`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_network

from modelkeep.core.record import Record
from modelkeep.core.reference import parsed_secret_reference
from modelkeep.gate.quota import AMOUNT_MAX

LIMITS_MAX = 256  # rules of one keep: each call is compared with all of them once
PRIORITY_MAX = 9
APART = ("principal", "tenant", "model", "address")
AWAY = ("refuse", "local")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PATTERN_CHARS_MAX = 200
# Only what cannot hold a password, which is `limiter.password`.
_REDIS = re.compile(
    r"rediss?://(?:[A-Za-z0-9_.-]{1,64}@)?(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})"
    r"(?::[0-9]{1,5})?(?:/[0-9]{1,4})?"
    r"|unix:///[^?#@\s]{1,100}"
)


class LimitSettings(Record, frozen=True):
    """A table `[[limits]]` of modelkeep.toml: how much some calls may use up; 0 is no limit.

    A call is bound by every table that fits it. A window may begin at any moment: `per_hour` means
    any 60 minutes, `per_day` any 24 hours.

    Attributes:
        name: of this limit, shown to whoever reaches it; what was counted belongs to the name.
        principal: whose calls, as a pattern: `*` stands for any text.
        tenant: of which tenants, as a pattern.
        role: of whoever holds such a role, as a pattern; `*` fits who has none, too.
        model: to which models, as a pattern.
        address: from where: `*`, an address or a network such as `10.0.0.0/8`.
        each: what is counted apart: any of `principal`, `tenant`, `model`, `address` (IPv6 by /64);
            none counts everything that fits together.
        calls_per_second: calls let in.
        calls_per_minute: calls let in.
        calls_per_hour: calls let in.
        calls_per_day: calls let in.
        tokens_per_second: tokens of language models, read and written.
        tokens_per_minute: tokens of language models, read and written.
        tokens_per_hour: tokens of language models, read and written.
        tokens_per_day: tokens of language models, read and written.
        bytes_per_second: bytes of bodies, in and out.
        bytes_per_minute: bytes of bodies, in and out.
        bytes_per_hour: bytes of bodies, in and out.
        bytes_per_day: bytes of bodies, in and out.
        concurrent: calls under way at once.
        priority: 0 to 9, 4 where nothing is said; under overload each step doubles the share, and
            the lowest are refused first. The first table that fits and says one counts.
    """

    name: str
    principal: str = "*"
    tenant: str = "*"
    role: str = "*"
    model: str = "*"
    address: str = "*"
    each: tuple[str, ...] = ("principal",)
    calls_per_second: int = 0
    calls_per_minute: int = 0
    calls_per_hour: int = 0
    calls_per_day: int = 0
    tokens_per_second: int = 0
    tokens_per_minute: int = 0
    tokens_per_hour: int = 0
    tokens_per_day: int = 0
    bytes_per_second: int = 0
    bytes_per_minute: int = 0
    bytes_per_hour: int = 0
    bytes_per_day: int = 0
    concurrent: int = 0
    priority: int = -1


class LimiterSettings(Record, frozen=True):
    """Table `[limiter]` of modelkeep.toml: where it is counted what callers use up.

    Attributes:
        redis: `rediss://user@host:6379/0` (or Valkey), where several machines share limits; empty
            counts on this machine, in a file of the run folder.
        password: where its password lies: `file:/path` or `exec:/program`; empty for none.
        ca: file with the authority that its certificate must come from; empty for the system's.
        away: what holds while Redis is away: `refuse` every limited call, or `local`: each machine
            gives a share of every limit.
        share: of every limit that this machine gives then; the shares of all machines must not add
            up to more than 1.
        timeout_s: for one answer of Redis.
    """

    redis: str = ""
    password: str = ""
    ca: str = ""
    away: str = "refuse"
    share: float = 0.5
    timeout_s: float = 0.25


class QueueSettings(Record, frozen=True):
    """Table `[queue]` of modelkeep.toml: who waits when there is more to do than can be done.

    Attributes:
        calls_per_replica: tensor calls under way at one replica; more wait here, in turn.
        calls_per_replica_shared: the same within a second of several principals waiting. Small, so
            that nobody waits at a replica behind many calls of somebody else; replicas are
            fastest with a few more.
        texts_per_replica: texts under way at one replica, or at one server of others.
        waiting_max: calls that wait in one gateway; then the lowest priority is refused.
        waiting_each_max: calls of one principal that wait in one gateway.
        wait_s_max: that a call waits; who must wait longer is refused at once.
    """

    calls_per_replica: int = 16
    calls_per_replica_shared: int = 2
    texts_per_replica: int = 32
    waiting_max: int = 4096
    waiting_each_max: int = 1024
    wait_s_max: float = 10.0


def limit_problems(
    limits: Sequence[LimitSettings], limiter: LimiterSettings, queue: QueueSettings
) -> list[tuple[bool, str]]:
    """What is wrong with the three tables; a password is never repeated.

    Raises:
        ConfigError: `reference.*`.
    """
    if limiter.password:
        parsed_secret_reference(limiter.password)
    names = [each.name for each in limits]
    return [
        (len(limits) > LIMITS_MAX, f"limits: more than {LIMITS_MAX} tables"),
        (len(set(names)) != len(names), "limits: two tables have one name"),
        *(problem for each in limits for problem in _problems_of(each)),
        (
            bool(limiter.redis) and _REDIS.fullmatch(limiter.redis) is None,
            "limiter.redis is none, or holds a password: rediss://user@host:6379/0",
        ),
        (
            limiter.redis.startswith("redis://") and not _is_near(limiter.redis),
            "limiter.redis is of another host: what it says lets people in, so it needs rediss://",
        ),
        (limiter.away not in AWAY, "limiter.away is `refuse` or `local`"),
        (not 0.0 < limiter.share <= 1.0, "limiter.share is not above 0 and at most 1"),
        (not 0.01 <= limiter.timeout_s <= 10.0, "limiter.timeout_s is not between 0.01 and 10"),
        *(
            (not 1 <= getattr(queue, key) <= 4096, f"queue.{key}: 1 to 4096")
            for key in ("calls_per_replica", "calls_per_replica_shared", "texts_per_replica")
        ),
        (not 0 <= queue.waiting_max <= 100_000, "queue.waiting_max: 0 to 100000"),
        (not 0 <= queue.waiting_each_max <= 100_000, "queue.waiting_each_max: 0 to 100000"),
        (not 0.0 < queue.wait_s_max <= 600.0, "queue.wait_s_max is not above 0 and at most 600"),
    ]


def numbers_of(limit: LimitSettings) -> dict[str, int]:
    """Every number of a table that limits something, by the name of its key."""
    keys = [
        f"{what}_per_{window}"
        for what in ("calls", "tokens", "bytes")
        for window in ("second", "minute", "hour", "day")
    ]
    found = {key: int(getattr(limit, key)) for key in (*keys, "concurrent")}
    return {key: number for key, number in found.items() if number}


def _problems_of(limit: LimitSettings) -> list[tuple[bool, str]]:
    patterns = (limit.principal, limit.tenant, limit.role, limit.model)
    return [
        (
            _NAME.fullmatch(limit.name) is None,
            "limits.name: small letters, digits, `.`, `_`, `-`, 64 at most",
        ),
        (
            any(not 0 < len(each) <= _PATTERN_CHARS_MAX for each in patterns),
            f"limits {limit.name}: a pattern is empty or longer than {_PATTERN_CHARS_MAX}",
        ),
        (
            limit.address != "*" and not _is_network(limit.address),
            f"limits {limit.name}: address is `*`, or a network (IPv6: /64 or wider)",
        ),
        (
            len(set(limit.each)) != len(limit.each) or not set(limit.each) <= set(APART),
            f"limits {limit.name}: each is any of {', '.join(APART)}, each once",
        ),
        *(
            (not 0 < number <= AMOUNT_MAX, f"limits {limit.name}: {key} is not 0 to 2**46")
            for key, number in numbers_of(limit).items()
        ),
        (
            limit.concurrent > 2**20,
            f"limits {limit.name}: concurrent is more than 2**20",
        ),
        (
            not -1 <= limit.priority <= PRIORITY_MAX,
            f"limits {limit.name}: priority is not 0 to {PRIORITY_MAX}",
        ),
        (
            not numbers_of(limit) and limit.priority < 0,
            f"limits {limit.name} limits nothing",
        ),
    ]


def _is_network(text: str) -> bool:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return False
    return network.version == 4 or network.prefixlen <= 64


def _is_near(url: str) -> bool:
    host = re.split(r"[/]", url.partition("://")[2], maxsplit=1)[0].rpartition("@")[2]
    return re.sub(r":[0-9]{1,5}$", "", host) in ("localhost", "127.0.0.1", "[::1]")
