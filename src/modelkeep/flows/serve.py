"""One call, from its head to the moment its answer may leave.

    head -> known -> judged -> answered -> cleared -> recorded -> (the surface sends)

Every surface (HTTP, gRPC) hands its calls to `Serving` and sends only what comes back as a
`Reply`; a Reply exists only after its record is durable, or, before authentication, after the
refusal was counted. How bytes are read and written is the surface's: it brings a `Work`. Texts and
streams of text walk the same table in `flows.converse`.

What an error does depends on where it happens. Before KNOWN: counted per second, address prefix
and reason, in bounded summaries. After: recorded like an answer. If the journal itself fails,
nothing of the answer leaves: the caller gets UnavailableError `journal.write` without content,
and the call ends LOST.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from modelkeep.core.call_record import (
    CALL_ID_BYTES,
    NONCE_BYTES,
    PREFIX_OTHERS,
    CallRecord,
    IntentRecord,
    JournalRecord,
    RefusalSummary,
    address_prefix,
    encoded_record,
)
from modelkeep.core.errors import KeepError, MissingError, UnavailableError, UsageError
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.principal import Principal, is_permitted
from modelkeep.core.rows import LOTS
from modelkeep.flows.call import (
    Arrival,
    Call,
    CallLog,
    Limits,
    Meters,
    Rendered,
    Replicas,
    Reply,
    Served,
    Shadow,
    Unlimited,
    Work,
)
from modelkeep.gate.authn import Keyring, demand_scope
from modelkeep.gate.disclosure import noise_seed
from modelkeep.gate.domains import KnownDomains, demand_live
from modelkeep.gate.identity_token import invalid
from modelkeep.gate.limits import demand_slot
from modelkeep.gate.passage import Passage, Step
from modelkeep.gate.schema import CheckedCall, cleared
from modelkeep.gate.settings import GateSettings
from modelkeep.gate.trace import trace_id
from modelkeep.gate.traffic import ModelTable
from modelkeep.kernels.digest import KeyedDigester, keyed_id, keyed_pair_id
from modelkeep.kernels.wire import Tensor
from modelkeep.ports.clock import Clock
from modelkeep.ports.entropy import Entropy
from modelkeep.seal.policy import expired

# Distinct (prefix, reason) pairs of one second; a flood from everywhere folds into one line.
SUMMARIES_PER_S_MAX = 256
# Random bytes are drawn for many calls at once: a system call each would cost more than the rest.
_ENTROPY_BYTES = 64 * (CALL_ID_BYTES + NONCE_BYTES)
# Coprime with the number of lots and near its golden section: calls in a row spread evenly.
_LOT_STEP = 6181


class Serving:
    """The passage of calls through one gateway.

    Attributes:
        keyring: who is known; this and the next three are replaced while calls are answered.
        domains: whose keys are in force.
        table: what is served.
        limits: what callers may use up.
        shadow: told of each answered call that names no version, once its answer is cleared.
    """

    def __init__(
        self,
        *,
        table: ModelTable[Served],
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
        self.table = table
        self.limits: Limits = Unlimited()
        self.shadow: Shadow | None = None
        self.replicas = replicas
        self.log_name = log.name.encode()
        self._log = log
        self._meters = meters
        self._clock = clock
        self._entropy = entropy
        self._commitment_key = commitment_key
        self._noise_key = keyed_id(commitment_key, b"noise of outputs")
        self._random = b""
        self._lot = 0
        self._turned_away: dict[tuple[int, str, str], int] = {}

    # ---- questions of the surface, before and beside a call ------------------------------------

    def is_ready(self) -> bool:
        """Whether every served model has a replica, and keys are known."""
        return not self.is_stopping and all(
            self.replicas.ready_count(served.name, served.version) for served in self.table
        )

    def is_model_ready(self, served: Served) -> bool:
        """Whether a replica of this model is ready."""
        return self.replicas.ready_count(served.name, served.version) > 0

    def versions_of(self, name: str) -> tuple[int, ...]:
        """The served versions of a model."""
        return self.table.versions_of(name)

    def visible_to(self, principal: Principal) -> tuple[Served, ...]:
        """The models that a principal may use, of each the version that answers by default."""
        found = [self.table.pick(name, None, 0) for name in self.table.names()]
        return tuple(
            served
            for served in found
            if served is not None
            and is_permitted(principal, served.scope)
            and self.domains.is_open_to(principal, served.domain)
        )

    def known(self, arrival: Arrival) -> Call:
        """Authenticate: ARRIVED -> KNOWN.

        Raises:
            UsageError: `auth.missing` or `auth.invalid`.
        """
        now_ns = self._clock.now_ns()
        principal = self.keyring.principal_of(
            arrival.authorization, certificate=arrival.certificate, now_ns=now_ns
        )
        trace = trace_id(arrival.trace) if arrival.trace else b""
        call = Call(principal, now_ns, address=arrival.address, trace=trace)
        call.arrival, call.keyring = arrival, self.keyring
        return call

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
        self._lot = lot = (self._lot + _LOT_STEP) % LOTS
        served = self.table.pick(name, version, lot, who=call.principal.name)
        if served is None or not self.domains.is_open_to(call.principal, served.domain):
            raise MissingError(
                "model.missing",
                f"no such model is served: {name}" + (f":{version}" if version else ""),
                hint="`modelkeep status` lists the served models",
            )
        call.version = served.version
        demand_live(self.domains.of(served.domain))
        if call.arrived_ns >= served.ends_ns:
            raise expired(f"{name}:{served.version}", served.policy)
        return served

    def demand_still(self, call: Call, served: Served) -> None:
        """Go on only if what let a call in holds yet: it may have been on its way for long.

        While State is as it was this is one comparison.

        Raises:
            UsageError: `auth.invalid`.
            RefusedError: `auth.forbidden`, or `key.revoked` of the model's domain.
        """
        keyring, arrival = self.keyring, call.arrival
        if call.keyring is keyring or arrival is None:
            return
        principal = keyring.principal_of(
            arrival.authorization, certificate=arrival.certificate, now_ns=self._clock.now_ns()
        )
        if (principal.name, principal.tenant) != (call.principal.name, call.principal.tenant):
            raise invalid("other")
        demand_scope(principal, served.scope)
        demand_live(self.domains.of(served.domain))
        call.principal, call.keyring = principal, keyring

    # ---- the passage ---------------------------------------------------------------------------

    async def answer(self, call: Call, served: Served, work: Work) -> Reply:
        """Take a call from KNOWN to RECORDED, whatever happens; expected errors become refusals."""
        self.in_flight += 1
        try:
            try:
                rendered = await self._computed(call, served, work)
            except KeepError as error:
                return await self.refused(call, error, work.body)
            except Exception:
                # Ours is at fault, such as a policy that cannot be computed. Nothing leaves but
                # what the surface says then, and the ledger knows of the call all the same.
                await self.refused(call, KeepError("serve.internal", "a bug"), work.body)
                raise
            return Reply(await self.recorded(call, work.body, sent=rendered.body), rendered, None)
        finally:
            self.in_flight -= 1

    async def refuse(self, call: Call, error: KeepError) -> Reply:
        """Record a refusal that the surface decided, such as a body that is too large."""
        return await self.refused(call, error, b"")

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

    async def refused(self, call: Call, error: KeepError, body: bytes | bytearray) -> Reply:
        """Record an error in place of an answer."""
        call.passage.step(Step.REFUSE)
        return Reply(await self.recorded(call, body, error=error), None, error)

    async def recorded(
        self,
        call: Call,
        body: bytes | bytearray,
        *,
        sent: bytes = b"",
        error: KeepError | None = None,
    ) -> int:
        """Make the record of a call durable; its position. Only then may anything leave.

        Args:
            sent: the exact bytes of the answer.

        Raises:
            UnavailableError: `journal.write`; the call is LOST.
        """
        nonce = self.nonce_of(call)
        commitment = keyed_pair_id(self._commitment_key, nonce, sent) if sent else b""
        return await self.recorded_as(call, body, nonce, commitment, error)

    async def recorded_as(
        self,
        call: Call,
        body: bytes | bytearray,
        nonce: bytes,
        commitment: bytes,
        error: KeepError | None,
    ) -> int:
        """As `recorded`, for an answer whose commitment is known already."""
        latency_ns = self._clock.now_ns() - call.arrived_ns
        status = error.http_status if error is not None else 200
        record = CallRecord(
            call.call_id,
            call.arrived_ns,
            call.principal.name,
            call.principal.tenant,
            call.model,
            call.version,
            status,
            error.code if error is not None else "",
            keyed_pair_id(self._commitment_key, nonce, body) if body else b"",
            commitment,
            latency_ns // 1000,
            nonce,
            call.trace,
            call.tokens_in,
            call.tokens_out,
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
        return position

    def announced(self, call: Call, body: bytes | bytearray) -> Awaitable[int]:
        """Queue the intent of a stream; nothing of it may leave before the result is there."""
        nonce = self.nonce_of(call)
        record = IntentRecord(
            call.call_id,
            call.arrived_ns,
            call.principal.name,
            call.principal.tenant,
            call.model,
            call.version,
            keyed_pair_id(self._commitment_key, nonce, body),
            nonce,
            call.trace,
        )
        return self._log.record(encoded_record(record))

    def commitment_to(self, nonce: bytes) -> KeyedDigester:
        """The commitment to an answer that leaves in parts."""
        digester = KeyedDigester(self._commitment_key)
        digester.update(nonce)
        return digester

    def nonce_of(self, call: Call) -> bytes:
        """A nonce that is handed out once; with the first one a call gets its id."""
        count = CALL_ID_BYTES + NONCE_BYTES
        if len(self._random) < count:
            self._random = self._entropy.random_bytes(_ENTROPY_BYTES)
        drawn, self._random = self._random[:count], self._random[count:]
        call.call_id = call.call_id or drawn[:CALL_ID_BYTES]
        return drawn[CALL_ID_BYTES:]

    def _disclosed(
        self, call: Call, served: Served, checked: CheckedCall, outputs: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """What of the outputs may leave."""
        disclosure = served.disclosure
        limit = disclosure.limit_for(call.principal) if disclosure is not None else None
        if disclosure is None or limit is None:
            return outputs
        seed = b""
        if disclosure.is_noisy:
            seed = noise_seed(self._noise_key, call.principal, served.name, checked.inputs)
        return limit(outputs, seed)

    async def _computed(self, call: Call, served: Served, work: Work) -> Rendered:
        demand_slot(self.in_flight - 1, self.settings)
        check = served.check
        if check is None:
            raise UsageError(
                "schema.kind",
                f"{served.name} is a language model: it takes no tensors",
                hint="call it at /v1/chat/completions",
            )
        body = work.body
        ticket = await self.limits.enter(
            call.principal, served.name, call.address, size_bytes=len(body)
        )
        sent_bytes = 0
        try:
            self.demand_still(call, served)
            checked = work.read(check)
            call.passage.step(Step.JUDGE)
            frame = await self.replicas.ask(
                served.name,
                served.version,
                checked.inputs,
                timeout_s=self._left_s(call, checked) if checked.timeout_us else None,
            )
            call.passage.step(Step.ANSWER)
            outputs = cleared(check.schema, frame.shapes, frame.tensors)
            if self.shadow is not None:
                self.shadow(served, checked, outputs)
            left = self._disclosed(call, served, checked, outputs)
            rendered = work.render(served, checked, left)
            sent_bytes = len(rendered.body)
        finally:
            ticket.leave(size_bytes=sent_bytes)
        call.passage.step(Step.CLEAR)
        return rendered

    def _left_s(self, call: Call, checked: CheckedCall) -> float:
        """What is left of the time that the caller gives this call, since it arrived."""
        passed_ns = self._clock.now_ns() - call.arrived_ns
        return max(checked.timeout_us * 1000 - passed_ns, 0) / NS_PER_S
