"""What the operator says of a model's inputs and outputs, beyond what the model itself says."""

from __future__ import annotations

import math
from collections.abc import Sequence

from modelkeep.core.artifact import is_model_name
from modelkeep.core.policy import Output
from modelkeep.core.record import Record

# A category is looked up among all of them; an input with more is better bounded by a range.
VALUES_MAX = 10_000
EVERY_MODEL = "*"


class InputRule(Record, frozen=True):
    """Table `[[inputs]]` of modelkeep.toml: what an input may hold. All rules of an input hold.

    Attributes:
        model: whose input it is; `*` for every model that has one of this name.
        input: its name.
        min: no element is below it; infinite for no bound.
        max: no element is above it; infinite for no bound.
        values: the only values that an element may have; empty for any.
        texts: the same of an input that holds texts.
        rows_max: of the first dimension, in one call; 0 for no bound.
        text_bytes_max: of one text, in UTF-8; 0 for no bound.
    """

    model: str
    input: str
    min: float = -math.inf
    max: float = math.inf
    values: tuple[float, ...] = ()
    texts: tuple[str, ...] = ()
    rows_max: int = 0
    text_bytes_max: int = 0


class OutputRule(Record, frozen=True):
    """Table `[[outputs]]` of modelkeep.toml: how much of an answer leaves, and to whom.

    The first rule that fits a call counts. What the model's signed policy says holds beside it.

    Attributes:
        model: whose answers; `*` for every model's.
        roles: of callers that it is for; empty for all callers.
        output: `full`, `rounded` or `labels`; only floating-point outputs change.
        decimals: digits after the point where outputs are rounded.
        top: how many of each row's largest elements leave, the others become 0; 0 for all.
        noise: scale of the Laplace noise that each element gets first; for a query of sensitivity
            S and a privacy loss of E for each answer it is S / E. Who asks the same again gets the
            same noise. 0 for none.
    """

    model: str
    roles: tuple[str, ...] = ()
    output: Output = Output.FULL
    decimals: int = 2
    top: int = 0
    noise: float = 0.0


def rule_problems(
    inputs: Sequence[InputRule], outputs: Sequence[OutputRule]
) -> list[tuple[bool, str]]:
    """What is wrong with `[[inputs]]` and `[[outputs]]`."""
    found = []
    for rule in inputs:
        what = f"inputs of {rule.model[:100]!r}, {rule.input[:100]!r}"
        found += [
            (not _is_named(rule.model), f"{what}: model is no name of a model and not `*`"),
            (not rule.input, f"{what}: input is empty"),
            (not rule.min <= rule.max, f"{what}: min is not below max"),
            (
                max(len(rule.values), len(rule.texts)) > VALUES_MAX,
                f"{what}: more than {VALUES_MAX} values",
            ),
            (not all(map(math.isfinite, rule.values)), f"{what}: a value is not finite"),
            (min(rule.rows_max, rule.text_bytes_max) < 0, f"{what}: a bound is below 0"),
        ]
    for each in outputs:
        what = f"outputs of {each.model[:100]!r}"
        found += [
            (not _is_named(each.model), f"{what}: model is no name of a model and not `*`"),
            (not 0 <= each.decimals <= 15, f"{what}: decimals is not 0 to 15"),
            (not 0 <= each.top <= 1_000_000, f"{what}: top is not 0 to 1000000"),
            (not 0 <= each.noise < math.inf, f"{what}: noise is no scale"),
        ]
    return found


def rules_of(rules: Sequence[InputRule], model: str) -> tuple[InputRule, ...]:
    """The rules of one model's inputs."""
    return tuple(rule for rule in rules if rule.model in (model, EVERY_MODEL))


def outputs_of(rules: Sequence[OutputRule], model: str) -> tuple[OutputRule, ...]:
    """The rules of one model's answers, in order."""
    return tuple(rule for rule in rules if rule.model in (model, EVERY_MODEL))


def _is_named(model: str) -> bool:
    return model == EVERY_MODEL or is_model_name(model)
