"""What a call is on its way through a gateway, and what the way needs of the world.

A surface makes an `Arrival`, gets a `Call`, finds what is `Served`, brings a `Work` and sends a
`Reply`; `flows.serve` and `flows.converse` walk it. The protocols below are what they ask for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

from modelkeep.core.errors import KeepError
from modelkeep.core.policy import ANYTHING, Policy
from modelkeep.core.principal import Principal
from modelkeep.core.record import Row
from modelkeep.core.rows import DEFAULT_DOMAIN
from modelkeep.gate.authn import Keyring
from modelkeep.gate.disclosure import Disclosure
from modelkeep.gate.passage import Passage, Step
from modelkeep.gate.rule_settings import OutputRule
from modelkeep.gate.schema import CheckedCall, SchemaCheck
from modelkeep.kernels.replica_frames import AnswerFrame, Piece, TextEnd
from modelkeep.kernels.wire import Tensor

# Beyond every instant that fits a record.
NEVER_NS = 2**63


class Replicas(Protocol):
    """What computes answers."""

    def ask(
        self,
        model: str,
        version: int,
        inputs: Sequence[Tensor],
        *,
        timeout_s: float | None = None,
    ) -> Awaitable[AnswerFrame]:
        """Compute one call; fails with UnavailableError, `gate.deadline` after the timeout."""
        ...

    def talk(self, model: str, version: int, request: bytes) -> AsyncIterator[Piece | TextEnd]:
        """Have a language model answer, piece by piece and its end last.

        Fails with UnavailableError; closing the iterator tells the replica to stop.
        """
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


class Ticket(Protocol):
    """A call that is within its limits."""

    def leave(self, *, tokens: int = 0, size_bytes: int = 0) -> None:
        """It is over: give its place back, charge what it used beyond what was known; once."""
        ...


class Limits(Protocol):
    """What a caller may use up."""

    async def enter(
        self, principal: Principal, model: str, address: str, *, size_bytes: int, tokens: int = 0
    ) -> Ticket:
        """Wait for a place and charge a call; raises LimitError `quota.*` or UnavailableError."""
        ...


class Unlimited:
    """No limits but those of the process."""

    async def enter(
        self, principal: Principal, model: str, address: str, *, size_bytes: int, tokens: int = 0
    ) -> Ticket:
        """Let every call in."""
        del principal, model, address, size_bytes, tokens
        return self

    def leave(self, *, tokens: int = 0, size_bytes: int = 0) -> None:
        """Charge nothing."""


class Arrival(Row, frozen=True):
    """What a surface knows of a call before anything is believed.

    Attributes:
        authorization: value of the header.
        address: of the peer.
        certificate: DER of the peer's verified certificate; empty for none.
        trace: value of `traceparent`; empty for none.
    """

    authorization: bytes | None
    address: str = ""
    certificate: bytes = b""
    trace: bytes = b""


class Rendered(Row, frozen=True):
    """A body as the surface sends it, in parts, with what its headers must say of it."""

    body: bytes
    head_bytes: int = 0  # length of the JSON part, when binary tensors follow; 0 for none


class Work(Protocol):
    """One tensor call as its surface reads and writes it."""

    @property
    def body(self) -> bytes | bytearray:
        """The exact bytes that were received."""
        ...

    def read(self, check: SchemaCheck) -> CheckedCall:
        """Check the call; raises UsageError `schema.*`."""
        ...

    def render(self, served: Served, checked: CheckedCall, outputs: Sequence[Tensor]) -> Rendered:
        """Write the answer."""
        ...


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
        check: of calls with tensors; None for a language model.
        ends_ns: no call that arrives from then on is answered.
        disclosure: what outputs go through before they leave; None for a language model.
    """

    __slots__ = (
        "__weakref__",  # a version is let go when no call holds it any more
        "check",
        "disclosure",
        "domain",
        "ends_ns",
        "name",
        "policy",
        "scope",
        "version",
    )

    def __init__(
        self,
        name: str,
        version: int,
        check: SchemaCheck | None,
        *,
        domain: str = DEFAULT_DOMAIN,
        policy: Policy = ANYTHING,
        rules: Sequence[OutputRule] = (),
    ) -> None:
        self.name = name
        self.version = version
        self.check = check
        self.domain = domain
        self.scope = f"infer:{name}"
        self.policy = policy
        self.ends_ns = policy.not_after_ns or NEVER_NS
        self.disclosure = Disclosure(policy, check.schema, rules) if check is not None else None


# Takes what answered, the checked call, and the outputs before anything was taken from them.
Shadow = Callable[[Served, CheckedCall, Sequence[Tensor]], None]


class Call:
    """One authenticated call on its way.

    Attributes:
        arrival: what it was authenticated by.
        keyring: under which it was; None for a call that a password or the like began.
    """

    __slots__ = (
        "address",
        "arrival",
        "arrived_ns",
        "call_id",
        "keyring",
        "model",
        "passage",
        "principal",
        "tokens_in",
        "tokens_out",
        "trace",
        "version",
    )

    def __init__(
        self, principal: Principal, arrived_ns: int, *, address: str = "", trace: bytes = b""
    ) -> None:
        self.passage = Passage()
        self.principal = principal
        self.arrived_ns = arrived_ns
        self.address = address
        self.trace = trace
        self.model = ""
        self.version = 0
        self.arrival: Arrival | None = None
        self.keyring: Keyring | None = None
        self.call_id = b""  # drawn when it is first recorded
        self.tokens_in = self.tokens_out = 0
        self.passage.step(Step.KNOW)
