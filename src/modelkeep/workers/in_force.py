"""What a gateway has in force: the supervisor's table, made answerable, and how that goes.

A table is put in force between two turns of the event loop, whole. A version that is in it no more
keeps its replicas until the last call that was permitted to use it is over, however slowly that
call's body arrives: calls hold their `Served`, and when nobody holds it any more the pool lets the
version go. Only then does the gateway stop saying that it holds the replicas' sockets, and only
then does the supervisor end them.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping

from modelkeep.adapters.metrics_prometheus import GatewayMeters
from modelkeep.adapters.replica_pool import ReplicaPool
from modelkeep.core.record import replaced
from modelkeep.flows.call import Served
from modelkeep.flows.serve import Serving
from modelkeep.gate.traffic import ModelTable
from modelkeep.workers.control import Load, ModelLoad, Table
from modelkeep.workers.plan import ServedModel
from modelkeep.workers.shadowing import Shadowing

Key = tuple[str, int]


class InForce:
    """The table of one gateway.

    Args:
        served: makes a model answerable.
        shadowing: asks shadows too; switched on where the table has some.
    """

    def __init__(
        self,
        serving: Serving,
        pool: ReplicaPool,
        meters: GatewayMeters,
        *,
        served: Callable[[ServedModel], Served],
        shadowing: Shadowing,
    ) -> None:
        self._serving = serving
        self._pool = pool
        self._meters = meters
        self._served = served
        self._shadowing = shadowing
        self._loop = asyncio.get_running_loop()
        self.number = 0
        self.first = asyncio.Event()
        self._models: dict[Key, ServedModel] = {}
        # Replicas that were in a table once, by version; those that are let go leave.
        self._sockets: dict[Key, set[str]] = {}
        self._ending: dict[Key, asyncio.Future[None]] = {}
        self._hung: set[str] = set()

    def put(self, table: Table) -> None:
        """Put a table in force."""
        before = {(each.name, each.version): each for each in self._serving.table}
        served, models = [], {}
        for model in table.models:
            key = (model.name, model.version)
            old = before.pop(key, None)
            if old is None or _another(self._models[key], model):
                old = self._served(model)
            served.append(old)
            models[key] = model
            self._answerable(model)
        self._models = models
        defaults = {each.name: each.version for each in table.models if each.is_default}
        self._serving.table = ModelTable(served, defaults, table.traffic)
        has_shadow = any(each.shadow_lots for each in table.traffic)
        self._serving.shadow = self._shadowing if has_shadow else None
        for key, each in before.items():
            weakref.finalize(each, self._loop.call_soon, self._let_go, key)
        self.number = table.number
        self.first.set()

    def hangs(self, _model: str, _version: int, socket_name: str) -> None:
        """The pool found a replica that hangs: the supervisor is to start it anew."""
        self._hung.add(socket_name)

    def load(self) -> Load:
        """How it goes; a replica that hangs is said once."""
        hung, self._hung = tuple(self._hung), set()
        return Load(
            table=self.number,
            in_flight=self._serving.in_flight,
            is_ready=bool(self.number) and self._serving.is_ready(),
            models=tuple(
                ModelLoad(model=name, version=at, in_flight=self._pool.pending_count(name, at))
                for name, at in self._models
            ),
            sockets=tuple(self._held()),
            silent=self._pool.silent(),
            hung=hung,
        )

    def _answerable(self, model: ServedModel) -> None:
        key = (model.name, model.version)
        self._ending.pop(key, None)
        self._pool.change(*key, model.sockets)
        if key not in self._sockets:
            self._meters.watch_replicas(*key, lambda: self._pool.ready_count(*key))
        self._sockets.setdefault(key, set()).update(model.sockets)

    def _let_go(self, key: Key) -> None:
        """No call uses a version any more that the table has not either."""
        if key not in self._models and key not in self._ending:
            self._ending[key] = self._pool.remove(*key)

    def _held(self) -> list[str]:
        """Sockets of replicas that still may be asked, or still compute."""
        found: list[str] = []
        for key, sockets in tuple(self._sockets.items()):
            ending, model = self._ending.get(key), self._models.get(key)
            if ending is not None and ending.done():
                del self._ending[key], self._sockets[key]
                self._meters.forget_replicas(*key)
                continue
            if model is not None:
                gone = {
                    name
                    for name in sockets - set(model.sockets)
                    if self._pool.is_drained(*key, name)
                }
                sockets.difference_update(gone)
            found += sockets
        return found


def _another(old: ServedModel, new: ServedModel) -> bool:
    """Whether what is answered, and to whom, is another; which replicas do is the pool's."""
    same: Mapping[str, object] = {"sockets": (), "is_default": False}
    return bool(replaced(old, **same) != replaced(new, **same))
