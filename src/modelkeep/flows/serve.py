"""One call, from its head to the moment its answer may leave.

    head -> known -> judged -> answered -> cleared -> recorded -> (the surface sends)

Every surface (HTTP today, gRPC next) hands its calls to `Serving` and sends only what comes back
as a `Reply`; a Reply exists only after its record is durable, or, before authentication, after
the refusal was counted. How bytes are read and written is the surface's: it brings `render`.

What an error does depends on where it happens. Before KNOWN: counted per second, address prefix
and reason, in bounded summaries. After: recorded like an answer. If the journal itself fails,
nothing of the answer leaves: the caller gets UnavailableError `journal.write` without content,
and the call ends LOST.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from modelkeep.core.call_record import (
    CALL_ID_BYTES,
    NONCE_BYTES,
    PREFIX_OTHERS,
    CallRecord,
    JournalRecord,
    RefusalSummary,
    address_prefix,
    encoded_record,
)
from modelkeep.core.errors import KeepError, MissingError, UnavailableError
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.policy import ANYTHING, Policy
from modelkeep.core.principal import Principal
from modelkeep.core.record import Row
from modelkeep.core.rows import DEFAULT_DOMAIN
from modelkeep.gate.authn import Keyring, demand_scope
from modelkeep.gate.disclosure import limit_of
from modelkeep.gate.domains import KnownDomains, demand_live
from modelkeep.gate.limits import demand_slot
from modelkeep.gate.passage import Passage, Step
from modelkeep.gate.schema import CheckedCall, SchemaCheck, cleared
from modelkeep.gate.settings import GateSettings
from modelkeep.kernels.digest import keyed_id
from modelkeep.kernels.replica_frames import AnswerFrame
from modelkeep.kernels.wire import Tensor
from modelkeep.ports.clock import Clock
from modelkeep.ports.entropy import Entropy
from modelkeep.seal.policy import expired

# Distinct (prefix, reason) pairs of one second; a flood from everywhere folds into one line.
SUMMARIES_PER_S_MAX = 256
# Beyond every instant that fits a record.
NEVER_NS = 2**63
# Random bytes are drawn for many calls at once: a system call each would cost more than the rest.
_ENTROPY_BYTES = 64 * (CALL_ID_BYTES + NONCE_BYTES)


class Replicas(Protocol):
    """What computes answers."""

    def ask(self, model: str, version: int, inputs: Sequence[Tensor]) -> Awaitable[AnswerFrame]:
        """Compute one call; fails with UnavailableError."""
        ...

    def ready_count(self, model: str, version: int) -> int:
        """How many replicas of a model are ready."""
        ...


class CallLog(Protocol):
    """Where records become durable."""

    name: str

    def record(self, frame: bytes) -> Awaitable[int]:
        """Make a frame durable; the result is its position."""
        ...


class Meters(Protocol):
    """What is counted."""

    def call(self, *, tenant: str, model: str, version: int, status: int, seconds: float) -> None:
        """Count one recorded call."""
        ...

    def refusal(self, reason: str) -> None:
        """Count one refusal before authentication."""
        ...


class Rendered(Row, frozen=True):
    """A body as the surface sends it, in parts, with what its headers must say of it."""

    body: bytes
    head_bytes: int = 0  # length of the JSON part, when binary tensors follow; 0 for none


Render = Callable[["Served", CheckedCall, Sequence[Tensor]], Rendered]


class Reply(Row, frozen=True):
    """What may leave now; whoever sends it steps the call's passage to SENT first.

    Attributes:
        position: of the call's record in the journal; -1 for a refusal before authentication.
        error: what is sent in place of an answer.
    """

    position: int
    rendered: Rendered | None
    error: KeepError | None


class Served:
    """A model that is answered for, as far as its policy permits.

    Attributes:
        ends_ns: no call that arrives from then on is answered.
        limit: what outputs go through before they leave; None where all of them does.
    """

    __slots__ = ("check", "domain", "ends_ns", "limit", "name", "policy", "scope", "version")

    def __init__(
        self,
        name: str,
        version: int,
        check: SchemaCheck,
        *,
        domain: str = DEFAULT_DOMAIN,
        policy: Policy = ANYTHING,
    ) -> None:
        self.name = name
        self.version = version
        self.check = check
        self.domain = domain
        self.scope = f"infer:{name}"
        self.policy = policy
        self.ends_ns = policy.not_after_ns or NEVER_NS
        self.limit = limit_of(policy, check.schema)


class Call:
    """One authenticated call on its way."""

    __slots__ = ("arrived_ns", "model", "passage", "principal", "version")

    def __init__(self, principal: Principal, arrived_ns: int) -> None:
        self.passage = Passage()
        self.principal = principal
        self.arrived_ns = arrived_ns
        self.model = ""
        self.version = 0
        self.passage.step(Step.KNOW)


class Serving:
    """The passage of calls through one gateway."""

    def __init__(
        self,
        *,
        models: Mapping[str, Mapping[int, Served]],
        defaults: Mapping[str, int],
        replicas: Replicas,
        log: CallLog,
        meters: Meters,
        settings: GateSettings,
        clock: Clock,
        entropy: Entropy,
        commitment_key: bytes,
    ) -> None:
        self.keyring = Keyring(())
        self.domains = KnownDomains()
        self.settings = settings
        self.is_stopping = False
        self.in_flight = 0
        self._models = models
        self._defaults = defaults
        self._replicas = replicas
        self.log_name = log.name.encode()
        self._log = log
        self._meters = meters
        self._clock = clock
        self._entropy = entropy
        self._commitment_key = commitment_key
        self._random = b""
        self._turned_away: dict[tuple[int, str, str], int] = {}

    # ---- questions of the surface, before and beside a call ------------------------------------

    def is_ready(self) -> bool:
        """Whether every served model has a replica, and keys are known."""
        return not self.is_stopping and all(
            self._replicas.ready_count(served.name, served.version)
            for versions in self._models.values()
            for served in versions.values()
        )

    def is_model_ready(self, served: Served) -> bool:
        """Whether a replica of this model is ready."""
        return self._replicas.ready_count(served.name, served.version) > 0

    def versions_of(self, name: str) -> tuple[int, ...]:
        """The served versions of a model."""
        return tuple(sorted(self._models.get(name, {})))

    def known(self, authorization: bytes | None) -> Call:
        """Authenticate: ARRIVED -> KNOWN.

        Raises:
            UsageError: `auth.missing` or `auth.invalid`.
        """
        now_ns = self._clock.now_ns()
        return Call(self.keyring.principal_of(authorization, now_ns=now_ns), now_ns)

    def permitted(self, call: Call, name: str, version: int | None) -> Served:
        """The model that a call names, if its principal may use it.

        The scope is asked first: whoever may not use a model does not learn whether it exists.
        To another tenant a model looks like one that is not there.

        Raises:
            RefusedError: `auth.forbidden`, `key.revoked` of the model's domain, `policy.expired`.
            MissingError: `model.missing`.
        """
        call.model = name
        demand_scope(call.principal, f"infer:{name}")
        number = self._defaults.get(name, 0) if version is None else version
        served = self._models.get(name, {}).get(number)
        if served is None or not self.domains.is_open_to(call.principal, served.domain):
            raise MissingError(
                "model.missing",
                f"no such model is served: {name}" + (f":{version}" if version else ""),
                hint="`modelkeep status` lists the served models",
            )
        call.version = number
        demand_live(self.domains.of(served.domain))
        if call.arrived_ns >= served.ends_ns:
            raise expired(f"{name}:{number}", served.policy)
        return served

    # ---- the passage ---------------------------------------------------------------------------

    async def answer(
        self, call: Call, served: Served, body: bytes, head_bytes: int | None, render: Render
    ) -> Reply:
        """Take a call from KNOWN to RECORDED, whatever happens; expected errors become refusals."""
        self.in_flight += 1
        try:
            try:
                rendered = await self._computed(call, served, body, head_bytes, render)
            except KeepError as error:
                return await self._refused(call, error, body)
            except Exception:
                # Ours is at fault, such as a policy that cannot be computed. Nothing leaves but
                # what the surface says then, and the ledger knows of the call all the same.
                await self._refused(call, KeepError("serve.internal", "a bug"), body)
                raise
            return await self._recorded(call, body, rendered, None)
        finally:
            self.in_flight -= 1

    async def refuse(self, call: Call, error: KeepError) -> Reply:
        """Record a refusal that the surface decided, such as a body that is too large."""
        return await self._refused(call, error, b"")

    def turn_away(self, error: KeepError, address: str) -> Reply:
        """Count a refusal before authentication."""
        passage = Passage()
        passage.step(Step.COUNT)
        self._meters.refusal(error.code)
        second = self._clock.now_ns() // NS_PER_S
        key = (second, address_prefix(address), error.code)
        if key not in self._turned_away and len(self._turned_away) >= SUMMARIES_PER_S_MAX:
            key = (second, PREFIX_OTHERS, error.code)
        self._turned_away[key] = self._turned_away.get(key, 0) + 1
        passage.step(Step.SEND)
        return Reply(-1, None, error)

    async def summarise(self) -> None:
        """Record what was turned away since the last time; called every second and at the end."""
        counted, self._turned_away = self._turned_away, {}
        records: list[JournalRecord] = [
            RefusalSummary(second, prefix, reason, count)
            for (second, prefix, reason), count in counted.items()
        ]
        for waiting in [self._log.record(encoded_record(each)) for each in records]:
            await waiting

    async def _computed(
        self, call: Call, served: Served, body: bytes, head_bytes: int | None, render: Render
    ) -> Rendered:
        demand_slot(self.in_flight - 1, self.settings)
        checked = served.check.checked(body, head_bytes=head_bytes)
        call.passage.step(Step.JUDGE)
        frame = await self._replicas.ask(served.name, served.version, checked.inputs)
        call.passage.step(Step.ANSWER)
        outputs = cleared(served.check.schema, frame.shapes, frame.tensors)
        if served.limit is not None:
            outputs = served.limit(outputs)
        rendered = render(served, checked, outputs)
        call.passage.step(Step.CLEAR)
        return rendered

    async def _refused(self, call: Call, error: KeepError, body: bytes) -> Reply:
        call.passage.step(Step.REFUSE)
        return await self._recorded(call, body, None, error)

    async def _recorded(
        self, call: Call, body: bytes, rendered: Rendered | None, error: KeepError | None
    ) -> Reply:
        """Make the record durable; only then is there a Reply."""
        latency_ns = self._clock.now_ns() - call.arrived_ns
        call_id, nonce = self._drawn()
        status = error.http_status if error is not None else 200
        key = self._commitment_key
        record = CallRecord(
            call_id,
            call.arrived_ns,
            call.principal.name,
            call.principal.tenant,
            call.model,
            call.version,
            status,
            error.code if error is not None else "",
            keyed_id(key, nonce + body) if body else b"",
            keyed_id(key, nonce + rendered.body) if rendered is not None else b"",
            latency_ns // 1000,
            nonce,
        )
        try:
            position = await self._log.record(encoded_record(record))
        except UnavailableError:
            call.passage.step(Step.LOSE)
            raise
        call.passage.step(Step.RECORD)
        self._meters.call(
            tenant=call.principal.tenant,
            model=call.model if call.version else "",
            version=call.version,
            status=status,
            seconds=(self._clock.now_ns() - call.arrived_ns) / NS_PER_S,
        )
        return Reply(position, rendered, error)

    def _drawn(self) -> tuple[bytes, bytes]:
        """A call id and a nonce, each handed out once."""
        count = CALL_ID_BYTES + NONCE_BYTES
        if len(self._random) < count:
            self._random = self._entropy.random_bytes(_ENTROPY_BYTES)
        drawn, self._random = self._random[:count], self._random[count:]
        return drawn[:CALL_ID_BYTES], drawn[CALL_ID_BYTES:]
