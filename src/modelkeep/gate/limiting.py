"""What callers may use up: which limits bind a call, what it takes of them, what it gives back.

A call that enters takes one call, its bytes and its asked tokens of every meter that binds it, a
place of every limit on concurrent calls, and then waits for its turn (`gate.fairness`). All of it
or nothing: who is refused has been charged nothing.

Usually a worker has lent what a call needs before (`Gauge.left`): then entering touches this
process's memory only and never suspends. Leases end with their bucket (`gate.quota`); what is left
of them is given back with the next lease or by `tend`, which somebody has to call ten times a
second.

When what counts is known:

- calls, and bytes that came in: before the call enters. No window ever holds more than the limit.
- tokens: what was asked for is reserved before and what was not used is given back after. They
  count at the moment the call entered. Never more than the limit, if `tokens` was an upper bound.
- bytes that go out, and tokens beyond what was reserved: after. The limit may be passed by what
  calls under way write; nobody enters until that has left the window.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress

from modelkeep.core.errors import KeepError, LimitError, UnavailableError
from modelkeep.core.principal import Principal
from modelkeep.core.record import to_json
from modelkeep.gate.fairness import PRIORITY_USUAL, FairQueue, Room, Turn
from modelkeep.gate.limit_rules import counted_network, fits
from modelkeep.gate.limit_settings import LimitSettings, QueueSettings, numbers_of
from modelkeep.gate.slices import BYTES, CALLS, TOKENS, UNITS, WINDOWS_NS, Gauge, Places, refusal
from modelkeep.ports.limiter import NOW, Lease, Limiter, Meter

# A bundle has 200 bytes, a gauge 400. When there are more they are forgotten and made again.
BUNDLES_MAX = 8192
GAUGES_MAX = 16_384
NETWORKS_MAX = 8192
# After a refusal a gauge is not asked again for a thousandth of its window, and this at most.
CLOSED_NS_MAX = 50_000_000
TOLD_MAX = 256  # gauges of one tend: each takes 10 us of the loop
PLACES_SPARE = 16  # one in so many places may be held by a worker that does not use it yet


class Bundle:
    """Everything that binds the calls of one principal to one model from one network."""

    __slots__ = ("gauges", "is_settled", "places", "priority", "queue", "who")

    def __init__(
        self,
        gauges: tuple[Gauge, ...],
        places: tuple[Places, ...],
        *,
        who: tuple[str, str],
        priority: int,
        queue: FairQueue,
    ) -> None:
        self.gauges = gauges
        self.is_settled = any(each.unit != CALLS for each in gauges)
        self.places = places
        self.who = who
        self.priority = priority
        self.queue = queue


class Ticket:
    """A call that entered."""

    __slots__ = ("_buckets", "_bundle", "_is_over", "_limits", "_tokens")

    def __init__(self, limits: Limits, bundle: Bundle, *, tokens: int, buckets: list[int]) -> None:
        self._limits = limits
        self._bundle = bundle
        self._tokens = tokens
        self._buckets = buckets
        self._is_over = False

    def leave(self, *, tokens: int = 0, size_bytes: int = 0) -> None:
        """The call is over; charge what it used. A second time is ignored.

        Args:
            tokens: all that it used, reserved ones included.
            size_bytes: that went out.
        """
        if self._is_over:
            return
        self._is_over = True
        bundle = self._bundle
        bundle.queue.leave()
        for places in bundle.places:
            places.used -= 1
        beyond = tokens - self._tokens
        if bundle.is_settled and (beyond or size_bytes):
            for gauge, bucket in zip(bundle.gauges, self._buckets, strict=True):
                if gauge.unit == TOKENS and beyond:
                    self._limits.correct(gauge, bucket, beyond)
                elif gauge.unit == BYTES and size_bytes:
                    self._limits.correct(gauge, NOW, size_bytes)


class Limits:
    """The limits of one gateway.

    Args:
        rules: may be replaced while it runs, by `replace`.
        open_limiter: gives what the workers count together; asked once there is a rule.
        make_turn: a new future of the loop.
        now_ns: a clock that never goes back, for who waits.
        room_of: how many calls to a model may be under way, alone and while several principals
            wait.
        on_refused: is told the code of every refusal.

    Attributes:
        rules, queue: in force.
    """

    def __init__(
        self,
        rules: Sequence[LimitSettings],
        open_limiter: Callable[[], Limiter],
        *,
        queue: QueueSettings,
        now_ns: Callable[[], int],
        make_turn: Callable[[], Turn],
        room_of: Callable[[str], Room],
        on_refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._open_limiter = open_limiter
        self._limiter: Limiter | None = None
        self._clock_ns = now_ns
        self._now_ns = now_ns
        self._make_turn = make_turn
        self._room_of = room_of
        self._on_refused = on_refused
        self._queues: dict[str, FairQueue] = {}
        self._touched: dict[Gauge, None] = {}
        self._holding: dict[Places, None] = {}
        self._networks: dict[str, str] = {}
        self.replace(rules, queue=queue)

    def replace(self, rules: Sequence[LimitSettings], *, queue: QueueSettings) -> None:
        """From now on these hold; what was counted under the same names stays.

        Raises:
            UnavailableError: `gate.limiter`.
            IntegrityError: `limits.file`.
        """
        if self._limiter is None and any(numbers_of(each) for each in rules):
            self._limiter = self._open_limiter()
            self._now_ns = self._limiter.now_ns
        self.rules = tuple(rules)
        self.queue = queue
        self._is_by_network = any(
            each.address != "*" or "address" in each.each for each in self.rules
        )
        self._bundles: dict[tuple[object, ...], Bundle] = {}
        self._gauges: dict[bytes, Gauge] = {}
        self._places: dict[bytes, Places] = {}
        for each in self._queues.values():
            each.settings = queue

    async def enter(
        self, principal: Principal, model: str, address: str, *, size_bytes: int, tokens: int = 0
    ) -> Ticket:
        """Let a call in; what it took is settled by the ticket's `leave`.

        Raises:
            LimitError: `quota.calls`, `quota.tokens`, `quota.bytes`, `quota.concurrent`, each with
                `retry_after_s`.
            UnavailableError: `gate.busy`, `gate.limiter`.
        """
        network = self._network_of(address) if self._is_by_network else ""
        key = (principal.name, principal.tenant, principal.roles, model, network)
        bundle = self._bundles.get(key) or self._bundled(principal, model, network)
        amounts = (1, tokens, size_bytes)
        if self._is_quick(bundle, amounts):
            for gauge in bundle.gauges:
                gauge.left -= amounts[gauge.unit]
            for places in bundle.places:
                places.used += 1
                places.peak = max(places.peak, places.used)
            buckets = [each.bucket for each in bundle.gauges]
        else:
            buckets = await self._taken(bundle, amounts)
        queue = bundle.queue
        if queue.in_flight < queue.room and not queue.waiting:
            queue.in_flight += 1
        else:
            await self._turn(bundle, amounts, buckets)
        return Ticket(self, bundle, tokens=tokens, buckets=buckets)

    def correct(self, gauge: Gauge, bucket: int, amount: int) -> None:
        """Settle one gauge of a call that is over."""
        gauge.correct(bucket, amount, self._now_ns())
        self._touched[gauge] = None

    async def tend(self) -> None:
        """Give back what is not used, let go who can; call it ten times a second.

        Raises:
            UnavailableError: `gate.limiter`; the rest was done, and will be tried again.
        """
        for model, queue in list(self._queues.items()):
            queue.tend(self._room_of(model))
            if queue.is_idle() and not self._bundles:
                del self._queues[model]
        if self._limiter is None:
            return
        wanted = await self._limiter.tend()
        now_ns = self._now_ns()
        due = [each for each in self._touched if now_ns >= each.ends_ns or each.changes]
        for gauge in due[:TOLD_MAX]:
            del self._touched[gauge]
            await self._told(gauge)
        for places in list(self._holding):
            await self._freed(places, is_wanted=places.meter.key in wanted)

    async def close(self) -> None:
        """Give everything back; idempotent."""
        if self._limiter is None:
            return
        with suppress(UnavailableError):  # what is not heard any more is missing for one window
            for gauge in list(self._touched):
                await self._told(gauge)
        self._touched.clear()
        limiter, self._limiter = self._limiter, None
        await limiter.close()

    @property
    def waiting(self) -> int:
        """Calls that wait for their turn."""
        return sum(each.waiting for each in self._queues.values())

    # ---- taking ---------------------------------------------------------------------------------

    def _is_quick(self, bundle: Bundle, amounts: tuple[int, int, int]) -> bool:
        """Whether everything that a call needs was lent before."""
        if bundle.gauges:
            now_ns = self._now_ns()
            for gauge in bundle.gauges:
                amount = amounts[gauge.unit]
                if gauge.left < amount or (amount and now_ns >= gauge.ends_ns):
                    return False
        for places in bundle.places:  # noqa: SIM110  # a generator would cost more than the rest
            if places.used >= places.held:
                return False
        return True

    async def _taken(self, bundle: Bundle, amounts: tuple[int, int, int]) -> list[int]:
        """Take everything or nothing, asking for leases; the bucket of each gauge."""
        buckets: list[int] = []
        placed: list[Places] = []
        try:
            for gauge in bundle.gauges:
                amount = amounts[gauge.unit]
                buckets.append(await self._took(gauge, amount) if amount else NOW)
            for places in bundle.places:
                await self._placed(places)
                placed.append(places)
        except BaseException as error:
            self._undo(bundle, amounts, buckets, placed)
            if isinstance(error, KeepError):
                self._on_refused(error.code)
            raise
        return buckets

    def _undo(
        self,
        bundle: Bundle,
        amounts: tuple[int, int, int],
        buckets: Sequence[int],
        placed: Sequence[Places],
    ) -> None:
        """Give back what a call took that does not enter."""
        for gauge, bucket in zip(bundle.gauges, buckets, strict=False):
            if amounts[gauge.unit]:
                self.correct(gauge, bucket, -amounts[gauge.unit])
        for places in placed:
            places.used -= 1

    async def _took(self, gauge: Gauge, amount: int) -> int:
        """Take an amount of one gauge; the bucket it is counted in."""
        now_ns = self._now_ns()
        if gauge.left >= amount and now_ns < gauge.ends_ns:
            gauge.left -= amount
            return gauge.bucket
        if now_ns < gauge.closed_ns and amount >= gauge.closed_amount:
            raise refusal(gauge, now_ns)
        if amount > gauge.meter.limit:
            gauge.opens_ns = -1
            raise refusal(gauge, now_ns)
        wish = gauge.wish_of(amount, now_ns)
        lease = await self._leased(gauge, least=amount, wish=wish)
        if not lease.amount:
            now_ns = self._now_ns()
            pause_ns = min(gauge.meter.window_ns // 1000, CLOSED_NS_MAX)
            gauge.opens_ns = lease.opens_ns
            gauge.closed_amount = amount
            gauge.closed_ns = now_ns + pause_ns
            if lease.opens_ns > 0:
                gauge.closed_ns = min(gauge.closed_ns, lease.opens_ns)
            raise refusal(gauge, now_ns)
        gauge.accept(lease, amount)
        self._touched[gauge] = None
        return lease.bucket

    async def _leased(self, gauge: Gauge, *, least: int, wish: int) -> Lease:
        assert self._limiter is not None, "there is a gauge, so there is a rule"
        changes = gauge.owed()
        try:
            return await self._limiter.lease(gauge.meter, least=least, wish=wish, changes=changes)
        except BaseException:
            gauge.untold(changes)
            self._touched[gauge] = None
            raise

    async def _placed(self, places: Places) -> None:
        """Take a place of one limit on concurrent calls."""
        if places.used >= places.held:
            assert self._limiter is not None, "there are places, so there is a rule"
            spare = places.meter.limit // PLACES_SPARE
            got = await self._limiter.hold(places.meter, 1, spare=spare)
            if got <= 0:
                raise LimitError(
                    "quota.concurrent",
                    f"{places.meter.limit} calls are under way, as many as "
                    f"the limit {places.limit_name} allows at once",
                    hint="wait for one of them to end",
                    retry_after_s=1,
                )
            places.held += got
            self._holding[places] = None
        places.used += 1
        places.peak = max(places.peak, places.used)

    async def _turn(
        self, bundle: Bundle, amounts: tuple[int, int, int], buckets: Sequence[int]
    ) -> None:
        """Wait for a turn; who gets none has been charged nothing."""
        try:
            await bundle.queue.enter(bundle.who, bundle.priority)
        except BaseException as error:
            self._undo(bundle, amounts, buckets, bundle.places)
            if isinstance(error, KeepError):
                self._on_refused(error.code)
            raise

    # ---- giving back ----------------------------------------------------------------------------

    async def _told(self, gauge: Gauge) -> None:
        if gauge.left or gauge.changes:
            await self._leased(gauge, least=0, wish=0)

    async def _freed(self, places: Places, *, is_wanted: bool) -> None:
        """Give back places that nobody needed since the last time, or now if others want them."""
        idle = places.held - (places.used if is_wanted else max(places.peak, places.used))
        places.peak = places.used
        if idle > 0 and self._limiter is not None:
            places.held -= idle
            await self._limiter.hold(places.meter, -idle)
        if not places.held:
            self._holding.pop(places, None)

    # ---- which limits bind ----------------------------------------------------------------------

    def _bundled(self, principal: Principal, model: str, network: str) -> Bundle:
        if len(self._bundles) >= BUNDLES_MAX or len(self._gauges) >= GAUGES_MAX:
            self._bundles.clear()
            self._gauges.clear()
            self._places.clear()
        said = {
            "principal": f"{principal.tenant}\n{principal.name}",
            "tenant": principal.tenant,
            "model": model,
            "address": network,
        }
        gauges: list[Gauge] = []
        places: list[Places] = []
        priority = -1
        for rule in self.rules:
            if not fits(rule, principal, model, network):
                continue
            priority = rule.priority if priority < 0 else priority
            apart = [said[each] for each in sorted(rule.each)]
            for key, limit in numbers_of(rule).items():
                name = hashlib.blake2b(to_json([rule.name, key, apart]), digest_size=16).digest()
                if key == "concurrent":
                    places.append(self._places_of(Meter(name, 0, limit), rule.name))
                else:
                    gauges.append(self._gauge_of(name, limit, key, rule.name))
        bundle = Bundle(
            tuple(gauges),
            tuple(places),
            who=(principal.tenant, principal.name),
            priority=priority if priority >= 0 else PRIORITY_USUAL,
            queue=self._queue_of(model),
        )
        key_of_bundle = (principal.name, principal.tenant, principal.roles, model, network)
        self._bundles[key_of_bundle] = bundle
        return bundle

    def _gauge_of(self, name: bytes, limit: int, key: str, limit_name: str) -> Gauge:
        found = self._gauges.get(name)
        if found is None:
            unit, _, window = key.partition("_per_")
            meter = Meter(name, WINDOWS_NS[window], limit)
            found = Gauge(meter, unit=UNITS[unit], key=key, limit_name=limit_name)
            self._gauges[name] = found
        return found

    def _places_of(self, meter: Meter, limit_name: str) -> Places:
        found = self._places.get(meter.key)
        if found is None:
            found = self._places[meter.key] = Places(meter, limit_name)
        return found

    def _queue_of(self, model: str) -> FairQueue:
        queue = self._queues.get(model)
        if queue is None:
            queue = self._queues[model] = FairQueue(
                self.queue,
                room=self._room_of(model),
                make_turn=self._make_turn,
                now_ns=self._clock_ns,
            )
        return queue

    def _network_of(self, address: str) -> str:
        network = self._networks.get(address)
        if network is None:
            if len(self._networks) >= NETWORKS_MAX:
                self._networks.clear()
            network = self._networks[address] = counted_network(address)
        return network
