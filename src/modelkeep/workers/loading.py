"""Bringing what runs up to what is wanted: opens the keep again, beside a service that goes on.

The keyholder still has the means to open the keyring (what the operator typed was forgotten here on
purpose), so no passphrase is asked. In a thread of its own the keep is opened as a verb opens it,
what is wanted is looked up, and each new version is decrypted, proven, sealed, given replicas and
asked its canary. Only what came through is handed over, all at once; the supervisor then tells the
gateways. A version that fails leaves everything as it was.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue

from modelkeep.adapters.keysources import secret_of
from modelkeep.adapters.memory_file import MemoryFile, sealed_bytes
from modelkeep.adapters.upstream_settings import UpstreamSettings
from modelkeep.config import Config
from modelkeep.core.artifact import FileEntry, ModelReference
from modelkeep.core.errors import KeepError, UnavailableError, UsageError
from modelkeep.core.policy import ANYTHING
from modelkeep.core.reference import parsed_secret_reference
from modelkeep.flows.keep import OpenKeep
from modelkeep.flows.publish import (
    NOTHING,
    PROGRAM,
    TENSOR,
    TEXT,
    UPSTREAM,
    Published,
    Wish,
    published,
    wished,
)
from modelkeep.opening import open_keep
from modelkeep.ports.keyholder import Keyholder, Means
from modelkeep.wiring import KeepFolder, Warn
from modelkeep.workers.fleet import Key, Version
from modelkeep.workers.layout import Layout
from modelkeep.workers.process import Child, stopped
from modelkeep.workers.proving import one_proven, proven
from modelkeep.workers.server_key import ServerKey, pem_file

READY_S = 300.0
GRACE_S = 2.0
UPSTREAM_VERSION = 1
# What a language model's replica cannot do without.
_TEXT_PACKAGES = ("torch", "transformers")
_NOTHING_WISHED = Wish((), {}, (), {})
# What runs, which upstreams are spoken to, and who makes a certificate.
_Asked = tuple[frozenset[Key], dict[str, UpstreamSettings], ServerKey | None]


@dataclass(frozen=True, slots=True)
class Failure:
    """A version that is wanted and cannot be served."""

    key: Key
    error: KeepError


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one look.

    Attributes:
        wish: None where not even that could be found out: then `error` says why.
        added: new versions, whose replicas run and answered.
        chain: another certificate with its key; empty for none.
    """

    config: Config | None = None
    wish: Wish | None = None
    upstreams: tuple[UpstreamSettings, ...] = ()
    added: tuple[Version, ...] = ()
    failed: tuple[Failure, ...] = ()
    chain: bytes = b""
    error: KeepError | None = None


def kinds_here() -> frozenset[str]:
    """The kinds of models that this machine has a runtime for."""
    needs = {TENSOR: (), PROGRAM: ("torch",), TEXT: _TEXT_PACKAGES}
    return frozenset(kind for kind, names in needs.items() if all(map(find_spec, names)))


def wish_of(keep: OpenKeep, config: Config, warn: Warn, *, running: Collection[Key] = ()) -> Wish:
    """What is wanted now; with upstreams a keep without any model will do.

    Raises:
        KeepError: see `flows.publish.wished`.
    """
    try:
        wish = wished(keep, config.serve.models, kinds=kinds_here(), running=running, warn=warn)
    except UsageError as error:
        if error.code != "serve.nothing" or not config.upstreams:
            raise
        return _NOTHING_WISHED
    taken = {each.name for each in wish.references} & {each.name for each in config.upstreams}
    if taken:
        raise UsageError(
            "serve.name", f"{min(taken)} is a model of this keep and an upstream: rename one"
        )
    return wish


def loaded_version(keep: OpenKeep, reference: ModelReference) -> Version:
    """One version in sealed memory, without replicas yet.

    Raises:
        KeepError: see `flows.publish.published`; what was decrypted is wiped then.
    """
    memory: list[tuple[str, MemoryFile]] = []

    def place(entry: FileEntry) -> memoryview:
        made = MemoryFile(f"model-{reference.name}")
        memory.append((entry.path, made))
        return made.allocate(entry.size_bytes)

    def allocate(size_bytes: int) -> memoryview:
        made = MemoryFile(f"model-{reference.name}")
        memory.append(("", made))
        return made.allocate(size_bytes)

    try:
        model = published(keep, reference, is_default=False, allocate=allocate, place=place)
    except BaseException:
        for _, each in memory:
            each.wiped()
        raise
    return Version(model, tuple(memory))


def upstream_version(settings: UpstreamSettings) -> Version:
    """A model that another server answers for.

    Raises:
        KeepError: when its key or its authorities cannot be read.
    """
    secret_fd = ca_fd = -1
    if settings.key:
        secret = secret_of(parsed_secret_reference(settings.key))()
        secret_fd = sealed_bytes("upstream-key", secret.reveal())
    if settings.ca:
        ca_fd = sealed_bytes("upstream-ca", pem_file(Path(settings.ca), what="upstreams.ca"))
    model = Published(
        name=settings.name,
        version=UPSTREAM_VERSION,
        schema=NOTHING,
        domain=settings.domain,
        is_batchable=False,
        is_default=True,
        policy=ANYTHING,
        kind=UPSTREAM,
    )
    return Version(model, upstream=settings, fds=(secret_fd, ca_fd))


class Loader:
    """Looks in a thread of its own, one look at a time.

    One thread for as long as the service runs: what is locked in ends with the thread that started
    it (PR_SET_PDEATHSIG), and the replicas of a new version are started here.

    Args:
        wake: called from the thread when there is an outcome.
    """

    def __init__(
        self,
        folder: KeepFolder,
        keyholder: Keyholder,
        layout: Layout,
        *,
        wake: Callable[[], None],
        warn: Warn,
    ) -> None:
        self._folder = folder
        self._keyholder = keyholder
        self._layout = layout
        self._wake = wake
        self._warn = warn
        self._thread: threading.Thread | None = None
        self._asked: SimpleQueue[_Asked] = SimpleQueue()
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self._is_stopping = False
        self._warned: set[str] = set()
        self.is_busy = False

    def begin(
        self,
        have: Collection[Key],
        upstreams: Mapping[str, UpstreamSettings],
        server_key: ServerKey | None,
    ) -> None:
        """Begin to look.

        Args:
            have: versions that run.
            upstreams: those that are spoken to, by name.
            server_key: makes an own certificate too, unless it is None.
        """
        assert not self.is_busy
        self.is_busy = True
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._look_on, name="loader", daemon=True)
            self._thread.start()
        self._asked.put((frozenset(have), dict(upstreams), server_key))

    def taken(self) -> Outcome | None:
        """The outcome of a look that is over, once."""
        if not self.is_busy:
            return None
        try:
            outcome = self._outcomes.get_nowait()
        except Empty:
            if self._thread is not None and self._thread.is_alive():
                return None
            outcome = Outcome(error=UnavailableError("serve.loader", "a look ended by a bug"))
        self.is_busy = False
        return outcome

    def stop(self, wait_s: float) -> None:
        """Look no further; a look that does not end in time ends with this process."""
        self._is_stopping = True
        if self.is_busy:
            with contextlib.suppress(Empty):
                for each in self._outcomes.get(timeout=wait_s).added:
                    _given_up(each)

    def _look_on(self) -> None:
        while True:
            asked = self._asked.get()
            try:
                self._outcomes.put(self._looked(*asked))
            except KeepError as error:
                self._outcomes.put(Outcome(error=error))
            finally:
                self._wake()

    def _looked(
        self,
        have: frozenset[Key],
        upstreams: dict[str, UpstreamSettings],
        server_key: ServerKey | None,
    ) -> Outcome:
        found: list[Version] = []
        failed: list[Failure] = []
        chain = b""
        with open_keep(
            self._folder,
            Means(),
            actor="supervisor",
            warn=self._warn_once,
            keyholder=self._keyholder,
        ) as (keep, config):
            wish = wish_of(keep, config, self._warn_once, running=have)
            for reference in wish.references:
                key = (reference.name, int(reference.selector))
                if key in have or self._is_stopping:
                    continue
                try:
                    found.append(loaded_version(keep, reference))
                except KeepError as error:
                    failed.append(Failure(key, error))
            if server_key is not None and not config.serve.certificate:
                chain = server_key.made(keep, config)
        for settings in config.upstreams:
            if upstreams.get(settings.name) != settings:
                try:
                    found.append(upstream_version(settings))
                except KeepError as error:
                    failed.append(Failure((settings.name, UPSTREAM_VERSION), error))
        added = []
        for version in found:
            try:
                self._raised(version)
                added.append(version)
            except KeepError as error:
                _given_up(version)
                failed.append(Failure(version.key, error))
        return Outcome(config, wish, config.upstreams, tuple(added), tuple(failed), chain)

    def _warn_once(self, text: str) -> None:
        """What holds for as long as the service runs is said once."""
        if text not in self._warned:
            self._warned.add(text)
            self._warn(text)

    def _raised(self, version: Version) -> None:
        """Start a version's replicas and wait until each here has answered.

        Those on other hosts may be away, and are asked by who speaks to them; where there are no
        others, one of them has to answer.

        Raises:
            KeepError: when one does not.
        """
        self._layout.staffed(version)
        for replica in version.everywhere:
            replica.child.start()
        until_s = time.monotonic() + READY_S
        if not version.replicas:
            named = [(each.name, partial(self._is_down, each.child)) for each in version.elsewhere]
            one_proven(self._folder.run_folder, named, version.model, wait_s=READY_S)
        for replica in version.replicas:
            child = replica.child
            proven(
                self._folder.run_folder,
                replica.name,
                version.model,
                is_lost=partial(self._is_down, child),
                wait_s=until_s - time.monotonic(),
            )

    def _is_down(self, child: Child) -> bool:
        child.reaped()
        return self._is_stopping or child.process is None


def _given_up(version: Version) -> None:
    """End what was started of a version that is not to be served."""
    stopped([each.child for each in version.everywhere], grace_s=GRACE_S)
    for each in version.everywhere:
        each.listener.close()
    version.wiped()
