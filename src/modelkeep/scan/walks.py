"""A walk over a parsed document, without recursion and within a bound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_PATH_CHARS_MAX = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a document.

    Attributes:
        path: where it stands, such as `config.layers[3]`.
        value: the object; None with the path `…` where the bound was met.
    """

    path: str
    value: Mapping[str, Any] | None
    root: Any = None

    @property
    def pairs(self) -> Mapping[str, Any]:
        """The object's keys and values."""
        return self.value or {}


def walked(document: Any, nodes_max: int) -> Iterator[Entry]:
    """Every object (mapping) of a document, outer ones first."""
    pending: list[tuple[str, Any]] = [("", document)]
    left = nodes_max
    seen: set[int] = set()  # YAML's aliases make graphs
    while pending:
        path, value = pending.pop()
        left -= 1
        if left < 0:
            yield Entry("…", None)
            return
        if isinstance(value, Mapping):
            if id(value) in seen:
                continue
            seen.add(id(value))
            yield Entry(path, value, document)
            pending.extend((_joined(path, key), each) for key, each in value.items() if _deep(each))
        elif isinstance(value, list):
            if id(value) in seen:
                continue
            seen.add(id(value))
            pending.extend((f"{path}[{at}]", each) for at, each in enumerate(value) if _deep(each))


def _deep(value: Any) -> bool:
    return isinstance(value, Mapping | list)


def _joined(path: str, key: Any) -> str:
    text = f"{path}.{key}" if path else str(key)
    return text if len(text) <= _PATH_CHARS_MAX else text[:_PATH_CHARS_MAX]
