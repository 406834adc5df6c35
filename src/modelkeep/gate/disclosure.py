"""How much of an answer leaves the gateway: what rules and a model's policy make of its outputs.

The operator's rule for the caller comes first, then what the signed policy says: nothing that a
rule lets out passes a policy that does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from modelkeep.core.artifact import Port, Schema
from modelkeep.core.policy import Output, Policy
from modelkeep.core.principal import Principal
from modelkeep.gate.rule_settings import OutputRule
from modelkeep.kernels.digest import keyed_id
from modelkeep.kernels.outputs import blurred, labelled, rounded, topmost
from modelkeep.kernels.wire import Tensor

# Takes the outputs of a schema, in its order, and a seed of 32 bytes for noise.
Limit = Callable[[Sequence[Tensor], bytes], tuple[Tensor, ...]]


class Disclosure:
    """What the answers of one model go through, by who asks.

    Args:
        rules: of this model; the first that fits a caller's roles counts.
    """

    __slots__ = ("_by_roles", "_policy", "_ports", "_rules", "is_noisy")

    def __init__(self, policy: Policy, schema: Schema, rules: Sequence[OutputRule] = ()) -> None:
        self._policy = policy
        self._ports = schema.outputs
        self._rules = tuple(rules)
        self._by_roles: dict[tuple[str, ...], Limit | None] = {}
        self.is_noisy = any(rule.noise for rule in rules)

    def limit_for(self, principal: Principal) -> Limit | None:
        """What outputs go through; None where all of an answer leaves."""
        roles = principal.roles if self._rules else ()
        if roles not in self._by_roles:
            if len(self._by_roles) >= 1024:  # more sets of roles than anybody has defined
                self._by_roles.clear()
            self._by_roles[roles] = self._limit(self._rule_for(roles))
        return self._by_roles[roles]

    def _rule_for(self, roles: tuple[str, ...]) -> OutputRule | None:
        fitting = (
            rule for rule in self._rules if not rule.roles or not set(roles).isdisjoint(rule.roles)
        )
        return next(fitting, None)

    def _limit(self, rule: OutputRule | None) -> Limit | None:
        if rule is not None and _is_nothing(rule):
            rule = None
        if rule is None and self._policy.output is Output.FULL:
            return None
        ports, policy = self._ports, self._policy

        def limit(outputs: Sequence[Tensor], seed: bytes) -> tuple[Tensor, ...]:
            left = []
            for number, (output, port) in enumerate(zip(outputs, ports, strict=True)):
                if rule is not None:
                    own = keyed_id(seed, number.to_bytes(4, "little")) if rule.noise else b""
                    output = ruled(output, port, rule, seed=own)  # noqa: PLW2901  # step by step
                left.append(limited(output, port, policy))
            return tuple(left)

        return limit


def ruled(output: Tensor, port: Port, rule: OutputRule, *, seed: bytes) -> Tensor:
    """What a rule leaves of one output."""
    if rule.noise:
        output = blurred(output, rule.noise, seed=seed)
    if rule.top:
        output = topmost(output, rule.top)
    return _reduced(output, port, rule.output, rule.decimals)


def limited(output: Tensor, port: Port, policy: Policy) -> Tensor:
    """What a policy leaves of one output."""
    return _reduced(output, port, policy.output, policy.decimals)


def noise_seed(key: bytes, principal: Principal, model: str, inputs: Iterable[Tensor]) -> bytes:
    """The seed of an answer's noise: the same for the same caller, model and inputs.

    So asking again and again averages nothing out.
    """
    said = [f"{principal.tenant}\0{principal.name}\0{model}".encode()]
    for each in inputs:
        raw = bytes(each.raw)
        said += [str(each.shape).encode(), len(raw).to_bytes(8, "little"), raw]
    return keyed_id(key, b"\0".join(said))


def _is_nothing(rule: OutputRule) -> bool:
    return rule.output is Output.FULL and not rule.top and not rule.noise


def _reduced(output: Tensor, port: Port, to: Output, decimals: int) -> Tensor:
    match to:
        case Output.FULL:
            return output
        case Output.ROUNDED:
            return rounded(output, decimals)
        case Output.LABELS:
            # Where the only axis counts rows, each has one number: none of them is the largest.
            return labelled(output, is_row_each=port.shape == (-1,))
