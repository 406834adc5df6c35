"""Which version of a model answers a call: the default, the one named, or a canary by weight.

A table is made anew at every change and replaced as a whole, so a call sees one table from its
beginning to its end. A canary takes calls that name no version; whoever names one gets that one.
Calls are shared out by a lot that is drawn for each. With a sticky canary the lot follows from
who calls instead: all calls of one principal go one way, which is of use where there are many.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar
from zlib import crc32

from modelkeep.core.rows import LOTS, Traffic


class Servable(Protocol):
    """A version that is answered for."""

    @property
    def name(self) -> str:
        """Of the model."""
        ...

    @property
    def version(self) -> int:
        """Its number."""
        ...


S = TypeVar("S", bound=Servable)


class ModelTable(Generic[S]):
    """Everything that is answered for, as of one moment.

    Args:
        defaults: of each model the version that answers calls which name none.
        traffic: what is said of versions that are not served counts for nothing.
    """

    __slots__ = ("_by_name", "_defaults", "_traffic")

    def __init__(
        self,
        served: Iterable[S] = (),
        defaults: Mapping[str, int] | None = None,
        traffic: Iterable[Traffic] = (),
    ) -> None:
        self._by_name: dict[str, dict[int, S]] = {}
        for each in served:
            self._by_name.setdefault(each.name, {})[each.version] = each
        self._defaults = dict(defaults or {})
        self._traffic = {each.model: each for each in traffic}

    def __iter__(self) -> Iterator[S]:
        """Every version of every model."""
        for versions in self._by_name.values():
            yield from versions.values()

    def __len__(self) -> int:
        """How many versions are answered for."""
        return sum(map(len, self._by_name.values()))

    def names(self) -> tuple[str, ...]:
        """The models, in order."""
        return tuple(sorted(self._by_name))

    def versions_of(self, name: str) -> tuple[int, ...]:
        """The versions of a model that are answered for, in order."""
        return tuple(sorted(self._by_name.get(name, ())))

    def default_of(self, name: str) -> int:
        """The version that answers calls which name none; 0 for no such model."""
        return self._defaults.get(name, 0)

    def pick(self, name: str, version: int | None, lot: int, *, who: str = "") -> S | None:
        """Who answers a call; None when nobody does.

        Args:
            lot: 0 to 9,999, drawn for this call.
            who: the principal that calls.
        """
        versions = self._by_name.get(name)
        if versions is None:
            return None
        if version is not None:
            return versions.get(version)
        rule = self._traffic.get(name)
        if rule is not None and rule.canary in versions:
            if rule.sticky:
                lot = crc32(f"{name}\0{who}".encode()) % LOTS
            if lot < rule.canary_lots:
                return versions[rule.canary]
        return versions.get(self._defaults.get(name, 0))

    def shadow_of(self, name: str, lot: int) -> S | None:
        """Who is asked too, without its answer leaving; None for nobody.

        Args:
            lot: 0 to 9,999, drawn for this call, and another one than that of `pick`.
        """
        rule = self._traffic.get(name)
        if rule is None or lot >= rule.shadow_lots:
            return None
        return self._by_name.get(name, {}).get(rule.shadow)
