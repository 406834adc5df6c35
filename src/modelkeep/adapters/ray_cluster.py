"""One deployment of Ray Serve: replicas on the nodes of a cluster, asked through its handle.

Theory of operation. Three things live in the cluster, for each version of a model:

- the *holder*, an actor on this machine's own node. It has the key, which is given to it by a call
  and again every second, so that it is there again after a crash. It ends with this process.
- the *parts*: the sealed weights, in Ray's object store.
- the *replicas*, deployed by Ray Serve, spread over the nodes. One asks the holder for the key and
  for where the parts lie before it says that it is ready. When the holder is gone for good, it
  declares itself ill, so weights do not outlive the service that lent them.

Ray Serve starts a replica anew, elsewhere if need be, when it, its worker or its node dies. Its own
HTTP proxy is not started.

A key is no argument of a constructor: Ray keeps those, in its control store, for restarts. The
arguments of a call live in the memory of the processes that send and take it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import ray
from ray import serve
from ray.exceptions import ActorDiedError, RayError
from ray.serve.config import ProxyLocation
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from modelkeep.adapters.ray_settings import RaySettings
from modelkeep.core.errors import UnavailableError

NAMESPACE = "modelkeep"
# How long a new replica waits for its key: a holder that crashed has it again within a second.
KEY_S_MAX = 60.0
KEY_POLL_S = 0.1
HEALTH_PERIOD_S = 2.0
HEALTH_TIMEOUT_S = 10.0
STOP_S_MAX = 2.0


class Model(Protocol):
    """What a replica is made of: `workers.ray_replica.RayReplica`."""

    def answer(self, blob: bytes) -> bytes:
        """Answer a sealed batch."""
        ...


class _Holder:
    """Has the key, in memory."""

    def __init__(self) -> None:
        self._given: tuple[bytes, Sequence[Any]] | None = None

    def give(self, key: bytes, parts: Sequence[Any]) -> None:
        """Take the key, and where the sealed weights lie."""
        self._given = key, parts

    def given(self) -> tuple[bytes, Sequence[Any]] | None:
        """The key and the places; None while they are not here."""
        return self._given


class _Served:
    """One replica in Ray Serve."""

    def __init__(
        self, made: Callable[[bytes, bytes, Iterable[memoryview]], Model], model: bytes, holder: str
    ) -> None:
        self._holder = ray.get_actor(holder, namespace=NAMESPACE)
        until_s = time.monotonic() + KEY_S_MAX
        while (given := ray.get(self._holder.given.remote(), timeout=KEY_S_MAX)) is None:
            if time.monotonic() >= until_s:
                raise UnavailableError("ray.key", "nobody gave the key of this model")
            time.sleep(KEY_POLL_S)
        key, parts = given
        self._model = made(model, key, (memoryview(ray.get(each)) for each in parts))

    async def check_health(self) -> None:
        """Be ill once the holder is gone for good.

        Raises:
            UnavailableError: `ray.key`.
        """
        try:
            await self._holder.given.remote()
        except ActorDiedError as error:
            raise UnavailableError("ray.key", "the service that lent this model ended") from error
        except RayError:
            return  # it is being started again

    async def answer(self, blob: bytes) -> bytes:
        """Answer; one batch at a time, for the loop waits meanwhile: runtimes want it so."""
        return self._model.answer(blob)


class RayCluster:
    """One version's deployment.

    Args:
        name: of the deployment in the cluster.
    """

    def __init__(self, settings: RaySettings, *, name: str, replicas: int) -> None:
        self._settings = settings
        self._name = name
        self._replicas = replicas
        self._holder: Any = None
        self._handle: Any = None
        self._given: tuple[bytes, list[Any]] = b"", []

    def start(
        self,
        made: Callable[[bytes, bytes, Iterable[memoryview]], Model],
        model: bytes,
        *,
        key: bytes,
        parts: Iterable[bytes],
    ) -> None:
        """Deploy, and wait until every replica is ready; what an earlier bridge left is removed.

        Args:
            made: makes a replica of the next argument, the key and the sealed parts.

        Raises:
            UnavailableError: `ray.start`.
        """
        # While a node is dead Serve's router warns hundreds of times a second, from its event loop:
        # who does not read our standard error would stop every call.
        logging.disable(logging.ERROR)
        try:
            ray.init(
                self._settings.address,
                namespace=NAMESPACE,
                log_to_driver=False,
                configure_logging=False,
            )
            serve.start(proxy_location=ProxyLocation.Disabled)
            serve.delete(self._name)
            self._given = key, [ray.put(each) for each in parts]
            self._holder = self._made_holder()
            self.give()
            application = self._deployment().bind(made, model, self._name)
            self._handle = serve.run(application, name=self._name, route_prefix=None)
        except (RayError, RuntimeError, OSError, ValueError) as error:
            raise UnavailableError(
                "ray.start",
                f"{self._name} does not start in Ray: {str(error)[:500]}",
                hint="is this machine a node of the cluster (`ray status`), with modelkeep on all?",
            ) from error

    def give(self) -> None:
        """Give the key, once more if need be; returns at once."""
        key, parts = self._given
        with suppress(RayError):
            self._holder.give.remote(key, parts)

    async def ask(self, blob: bytes) -> bytes:
        """Have a batch answered by one of the replicas.

        Raises:
            UnavailableError: `ray.lost`, when that one did not answer; another may.
        """
        try:
            answered: bytes = await self._handle.answer.remote(blob)
        except Exception as error:  # of Ray, Ray Serve, gRPC, or our own, far away
            raise UnavailableError(
                "ray.lost", f"a replica in Ray did not answer: {type(error).__name__}"
            ) from error
        return answered

    def stop(self) -> None:
        """Remove everything from the cluster; idempotent."""
        if ray.is_initialized():
            with suppress(RayError, RuntimeError, OSError):
                serve.delete(self._name, _blocking=False)
            if self._holder is not None:
                with suppress(RayError):
                    ray.kill(self._holder)
            ray.shutdown()

    def _made_holder(self) -> Any:
        with suppress(ValueError):  # there is none, as it should be
            ray.kill(ray.get_actor(self._name, namespace=NAMESPACE))
        here = ray.get_runtime_context().get_node_id()
        options = ray.remote(_Holder).options(
            name=self._name,
            namespace=NAMESPACE,
            num_cpus=0,
            max_restarts=-1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=here, soft=False),
        )
        return options.remote()

    def _deployment(self) -> Any:
        settings = self._settings
        actor: dict[str, Any] = {"num_cpus": settings.cpus}
        if settings.resource:
            actor["resources"] = {settings.resource: 0.001}
        more = {"max_replicas_per_node": settings.per_node_max} if settings.per_node_max else {}
        return serve.deployment(_Served).options(
            name="replica",
            num_replicas=self._replicas,
            ray_actor_options=actor,
            max_ongoing_requests=4,
            health_check_period_s=HEALTH_PERIOD_S,
            health_check_timeout_s=HEALTH_TIMEOUT_S,
            graceful_shutdown_timeout_s=STOP_S_MAX,
            **more,
        )
