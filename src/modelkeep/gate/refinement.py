"""What an input may hold beyond what its model says: ranges, categories, sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from modelkeep.core.artifact import Port
from modelkeep.core.errors import UsageError
from modelkeep.gate.rule_settings import InputRule
from modelkeep.kernels.byte_tensors import texts_of
from modelkeep.kernels.ranges import bounds_of, has_others
from modelkeep.kernels.wire import BYTES, Tensor, element_count

# Values that a refusal names; a caller who needs more asks the operator.
_NAMED_MAX = 10


class Refinement:
    """The rules of one input, prepared.

    Args:
        rules: of this input; all of them hold.
    """

    __slots__ = ("_max", "_min", "_port", "_rows_max", "_text_bytes_max", "_texts", "_values")

    def __init__(self, port: Port, rules: Sequence[InputRule]) -> None:
        self._port = port
        self._min = max((rule.min for rule in rules), default=-math.inf)
        self._max = min((rule.max for rule in rules), default=math.inf)
        self._rows_max = min((rule.rows_max for rule in rules if rule.rows_max), default=0)
        self._text_bytes_max = min(
            (rule.text_bytes_max for rule in rules if rule.text_bytes_max), default=0
        )
        values = [set(rule.values) for rule in rules if rule.values]
        texts = [set(rule.texts) for rule in rules if rule.texts]
        self._values = tuple(sorted(set.intersection(*values))) if values else None
        self._texts = frozenset(set.intersection(*texts)) if texts else None

    def demand(self, tensor: Tensor) -> None:
        """Go on only with an input that the rules permit.

        Raises:
            UsageError: `schema.rows`, `schema.range`, `schema.category` or `schema.text`.
        """
        name = self._port.name
        if self._rows_max and tensor.shape and tensor.shape[0] > self._rows_max:
            raise UsageError(
                "schema.rows",
                f"input {name!r} has {tensor.shape[0]} rows",
                hint=f"send {self._rows_max} at most in one call",
            )
        if self._port.dtype == BYTES:
            self._demand_texts(tensor)
            return
        if self._min > -math.inf or self._max < math.inf:
            least, most = bounds_of(tensor)
            if least < self._min or most > self._max:
                raise UsageError(
                    "schema.range",
                    f"input {name!r} has values outside the permitted range",
                    hint=f"it takes {self._min:g} to {self._max:g}",
                )
        if self._values is not None and has_others(tensor, self._values):
            named = ", ".join(f"{value:g}" for value in self._values[:_NAMED_MAX])
            raise UsageError(
                "schema.category",
                f"input {name!r} has a value that is none of the permitted ones",
                hint=f"it takes {named}" + (", …" if len(self._values) > _NAMED_MAX else ""),
            )

    def _demand_texts(self, tensor: Tensor) -> None:
        name = self._port.name
        for text in texts_of(tensor.raw, element_count(tensor.shape)):
            if self._text_bytes_max and len(text.encode()) > self._text_bytes_max:
                raise UsageError(
                    "schema.text",
                    f"input {name!r} has a text that is too long",
                    hint=f"it takes {self._text_bytes_max} bytes of UTF-8 at most",
                )
            if self._texts is not None and text not in self._texts:
                raise UsageError(
                    "schema.category",
                    f"input {name!r} has a text that is none of the permitted ones",
                    hint=f"it takes {', '.join(sorted(self._texts)[:_NAMED_MAX])}",
                )


def refinements_of(
    ports: Sequence[Port], rules: Sequence[InputRule]
) -> tuple[Refinement | None, ...]:
    """Of each input its rules, prepared; None where there are none."""
    found = []
    for port in ports:
        own = [rule for rule in rules if rule.input == port.name]
        found.append(Refinement(port, own) if own else None)
    return tuple(found)
