"""Where everything meets: the only file that knows every adapter and how a keep's folder lies.

Adapters are imported where they are constructed, so that a process pays only for what it uses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from modelkeep.config import CONFIG_NAME, Config, StoreSettings, parsed_config
from modelkeep.core.artifact import Schema
from modelkeep.core.errors import (
    IntegrityError,
    MissingError,
    RefusedError,
    UnavailableError,
)
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.alive import state_alive
from modelkeep.flows.create import Unlocked, unlocked
from modelkeep.flows.history import history
from modelkeep.flows.keep import LogEpoch, OpenKeep
from modelkeep.flows.ledger import Sequencer
from modelkeep.flows.opening import agree
from modelkeep.ports.clock import Clock
from modelkeep.ports.entropy import Entropy
from modelkeep.ports.journal import Journal
from modelkeep.ports.keysource import KeySource
from modelkeep.ports.recorder import Recorder
from modelkeep.ports.runtime import Runtime
from modelkeep.ports.state import State
from modelkeep.ports.store import Store

if TYPE_CHECKING:
    from modelkeep.adapters.disk import Disk
    from modelkeep.adapters.recorder_client import RecorderClient

LOCK_WAIT_S = 30.0
# How long a verb waits for the ledger before it asks for the recorder of a running service.
LEDGER_WAIT_S = 0.1
Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class World:
    """What a keep stands on; `modelkeep.testing` puts another one under it.

    Attributes:
        open_state: opens the State database of a path, making it if it is missing.
    """

    disk: Disk
    clock: Clock
    entropy: Entropy
    open_state: Callable[[Path], State]


def real_world() -> World:
    """The machine itself."""
    from modelkeep.adapters.disk import RealDisk  # noqa: PLC0415

    return World(
        disk=RealDisk(),
        clock=system_clock(),
        entropy=system_entropy(),
        open_state=open_state,
    )


@dataclass(frozen=True, slots=True)
class KeepFolder:
    """How a keep's folder lies on disk.

    modelkeep.toml  ca.pem  state.db  ledger/wal-0/  journals/<gateway>/  stores/main/  run/
    """

    path: Path
    world: World = field(default_factory=real_world)

    @property
    def config_path(self) -> Path:
        """The configuration; a keep exists when it does."""
        return self.path / CONFIG_NAME

    @property
    def ca_pem_path(self) -> Path:
        """The certificate that clients trust."""
        return self.path / "ca.pem"

    @property
    def state_path(self) -> Path:
        """The State database."""
        return self.path / "state.db"

    @property
    def journals_folder(self) -> Path:
        """Call journals, a folder per gateway."""
        return self.path / "journals"

    @property
    def run_folder(self) -> Path:
        """Sockets and locks of what runs now."""
        return self.path / "run"

    @property
    def serve_lock(self) -> Path:
        """Held by the supervisor."""
        return self.run_folder / "serve.lock"

    @property
    def writer_lock(self) -> Path:
        """Held by whoever changes the keep."""
        return self.run_folder / "writer.lock"

    @property
    def ledger_lock(self) -> Path:
        """Held by the one sequencer: a verb, or the recorder of a running service."""
        return self.run_folder / "ledger.lock"

    @property
    def service_file(self) -> Path:
        """What the supervisor says of the running service."""
        return self.run_folder / "service.json"

    @property
    def pending_file(self) -> Path:
        """The keep id of an initialisation or recovery that is under way."""
        return self.path / "pending"

    def wal_folder(self, epoch: LogEpoch) -> Path:
        """The write-ahead journal of one log."""
        return self.path / "ledger" / f"wal-{epoch.number}"

    def store_path(self, store: StoreSettings) -> Path:
        """A store's folder; relative paths start at the keep's."""
        return self.path / store.path

    def run_folder_ready(self) -> None:
        """Make the folder for locks and sockets."""
        self.run_folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def short_run_path(self) -> Iterator[str]:
        """A path to the run folder that fits a Unix socket address (108 bytes), for a moment."""
        fd = os.open(self.run_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)


def folder_store(path: Path, label: str, disk: Disk | None = None) -> Store:
    """A store in a folder."""
    from modelkeep.adapters.store_folder import FolderStore  # noqa: PLC0415

    return FolderStore(path, label, disk)


def is_served(folder: KeepFolder) -> bool:
    """Whether a supervisor runs for this keep."""
    from modelkeep.adapters.locks import is_held  # noqa: PLC0415

    return is_held(folder.serve_lock)


def stores_of(folder: KeepFolder, config: Config) -> tuple[Store, ...]:
    """All stores of a keep, the authoritative one first."""
    disk = folder.world.disk
    return tuple(folder_store(folder.store_path(each), each.label, disk) for each in config.stores)


def open_state(path: Path) -> State:
    """The State database, made if it is missing."""
    from modelkeep.adapters.state_sqlite import SqliteState  # noqa: PLC0415

    return SqliteState(path)


def removed_state(folder: KeepFolder, source: KeySource) -> None:
    """Remove the State database; the next opening of the keep makes it anew from the ledger.

    Nothing is removed before it is clear that this is a keep and that its owner asks.

    Raises:
        MissingError: `keep.missing`.
        RefusedError: `keys.passphrase`.
        UnavailableError: `state.served`, while a gateway reads it.
    """
    from modelkeep.adapters.locks import held  # noqa: PLC0415

    config, _ = read_config(folder)
    unlocked(stores_of(folder, config), source)
    if is_served(folder):
        raise UnavailableError(
            "state.served", "a running service reads State", hint="stop `modelkeep serve` first"
        )
    folder.run_folder_ready()
    with held(folder.writer_lock, wait_s=LOCK_WAIT_S, what="another command changes this keep"):
        for suffix in ("", "-wal", "-shm"):
            Path(f"{folder.state_path}{suffix}").unlink(missing_ok=True)


def open_state_readonly(path: Path) -> State:
    """The State database, for a process that only asks."""
    from modelkeep.adapters.state_sqlite import SqliteState  # noqa: PLC0415

    return SqliteState(path, readonly=True)


def write_file(disk: Disk, path: Path, raw: bytes | memoryview) -> None:
    """Put bytes under a name, atomically and durably, readable by their owner only.

    Raises:
        UnavailableError: `file.write`.
    """
    from modelkeep.adapters.disk import write_replacing  # noqa: PLC0415

    try:
        write_replacing(disk, path, raw)
    except OSError as error:
        raise UnavailableError(
            "file.write", f"cannot write {path}: {error.strerror}", hint="is the disk full?"
        ) from error


def read_config(folder: KeepFolder) -> tuple[Config, bytes]:
    """Read a keep's modelkeep.toml; return it with its exact bytes.

    Raises:
        MissingError: `keep.missing`.
        ConfigError: see `config.parsed_config`.
    """
    try:
        raw = folder.world.disk.read(folder.config_path)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingError(
            "keep.missing",
            f"no keep in {folder.path}",
            hint="go into the keep's folder, or name it: `modelkeep --keep FOLDER …`",
        ) from None
    except OSError as error:
        raise UnavailableError(
            "keep.unreadable",
            f"cannot read {folder.config_path}: {error.strerror}",
            hint="run as the user that made the keep",
        ) from error
    return parsed_config(raw, what=str(folder.config_path)), raw


def open_journal(folder: Path, *, writable: bool, disk: Disk | None = None) -> Journal:
    """A journal in a folder."""
    from modelkeep.adapters.disk import RealDisk  # noqa: PLC0415
    from modelkeep.adapters.journal_file import JournalFile  # noqa: PLC0415

    return JournalFile(disk or RealDisk(), folder, writable=writable)


def open_runtime(model_fd: int, *, schema: Schema, threads: int) -> Runtime:
    """A model from its sealed memory file; loads onnxruntime."""
    from modelkeep.adapters.runtime_onnx import runtime_of_fd  # noqa: PLC0415

    return runtime_of_fd(model_fd, schema=schema, threads=threads)


def system_clock() -> Clock:
    """The machine's clock."""
    from modelkeep.adapters.system import SystemClock  # noqa: PLC0415

    return SystemClock()


def system_entropy() -> Entropy:
    """The kernel's random generator."""
    from modelkeep.adapters.system import SystemEntropy  # noqa: PLC0415

    return SystemEntropy()


def passphrase_source(passphrase: Secret, settings: Argon2Settings | None = None) -> KeySource:
    """A KeySource from a passphrase."""
    from modelkeep.adapters.keysource_passphrase import PassphraseSource  # noqa: PLC0415

    return PassphraseSource(
        passphrase, entropy=system_entropy(), settings=settings or Argon2Settings()
    )


def recorder_client(folder: KeepFolder) -> RecorderClient:
    """The recorder of a running service."""
    from modelkeep.adapters.recorder_client import RecorderClient  # noqa: PLC0415

    return RecorderClient(folder.run_folder)


@contextmanager
def open_keep(
    folder: KeepFolder, source: KeySource, *, actor: str, warn: Warn = lambda _: None
) -> Iterator[tuple[OpenKeep, Config]]:
    """Open a keep for reading and writing; one writer at a time.

    While the keep is served, facts go through the service's recorder; otherwise this process is
    the sequencer, and publishes what it recorded to every store when it is done.

    Raises:
        MissingError: `keep.missing`.
        RefusedError: `keys.passphrase`.
        UnavailableError: `lock.held`.
        IntegrityError: when neither store holds what a keep needs.
    """
    from modelkeep.adapters.locks import held  # noqa: PLC0415

    config, raw = read_config(folder)
    folder.run_folder_ready()
    stores = stores_of(folder, config)
    opened = unlocked(stores, source)
    if opened.keep_id != config.keep_id:
        raise IntegrityError(
            "keep.identity",
            f"modelkeep.toml is of keep {config.keep_id}, its stores are of {opened.keep_id}",
        )
    _demand_own_log(folder, opened.epochs[-1])
    with ExitStack() as stack:
        stack.enter_context(
            held(folder.writer_lock, wait_s=LOCK_WAIT_S, what="another command changes this keep")
        )
        recorder, journal = _recorder(folder, config, opened, stores=stores, stack=stack, warn=warn)
        state = folder.world.open_state(folder.state_path)
        stack.callback(state.close)
        healed: list[str] = []
        keep = OpenKeep(
            keep_id=opened.keep_id,
            stores=stores,
            clock=folder.world.clock,
            entropy=folder.world.entropy,
            keys=opened.keys,
            domain=opened.domain,
            authority=opened.authority,
            epochs=opened.epochs,
            state=state,
            recorder=recorder,
            history=lambda start: history(opened, stores, journal, start, healed),
            actor=actor,
        )
        agree(keep, journal=journal, config=raw, healed=healed)
        yield keep, config


def _demand_own_log(folder: KeepFolder, epoch: LogEpoch) -> None:
    """Check that nobody recovered this keep elsewhere, which begins a log that is not ours.

    Raises:
        RefusedError: `keep.superseded`.
    """
    written = [path for path, _ in folder.world.disk.walk(folder.path / "ledger")]
    if written and not any(folder.wal_folder(epoch) in path.parents for path in written):
        raise RefusedError(
            "keep.superseded",
            f"this keep was recovered elsewhere and goes on there as {epoch.origin}",
            hint="stop what still runs here and use the recovered keep",
        )


def _recorder(
    folder: KeepFolder,
    config: Config,
    opened: Unlocked,
    *,
    stores: Sequence[Store],
    stack: ExitStack,
    warn: Warn,
) -> tuple[Recorder, Journal]:
    """The ledger's writer: this process, or the recorder of the service that runs."""
    from modelkeep.adapters.locks import held  # noqa: PLC0415

    epoch = opened.epochs[-1]
    wal = folder.wal_folder(epoch)
    for attempt in count():
        try:
            stack.enter_context(
                held(folder.ledger_lock, wait_s=LEDGER_WAIT_S, what="the ledger has its writer")
            )
            break
        except UnavailableError:
            client = recorder_client(folder)
            if client.is_reachable():
                return client, open_journal(wal, writable=False, disk=folder.world.disk)
            if attempt * LEDGER_WAIT_S > LOCK_WAIT_S:
                raise
    journal = open_journal(wal, writable=True, disk=folder.world.disk)
    stack.callback(journal.close)
    signer = Signer(opened.keys.ledger_seed)
    sequencer = Sequencer(
        origin=epoch.origin,
        journal=journal,
        stores=stores,
        signer=signer,
        body_key=opened.keys.ledger_body,
        entropy=folder.world.entropy,
        settings=config.ledger,
    )
    stack.callback(_publish, sequencer, stores, signer, folder.world.clock, warn)
    return sequencer, journal


def _publish(
    sequencer: Sequencer, stores: Sequence[Store], signer: Signer, clock: Clock, warn: Warn
) -> None:
    """Bring every store up to date, and state in each that it is."""
    at_ns, size = clock.now_ns(), sequencer.size
    for store, report in zip(stores, sequencer.publish(), strict=True):
        for name in report.healed:
            warn(f"{report.label}: {name} was damaged and is written anew")
        if report.error is not None:
            warn(f"{report.label} lacks the latest ledger entries: {report.error}")
            continue
        try:
            state_alive(store, origin=sequencer.origin, size=size, at_ns=at_ns, signer=signer)
        except UnavailableError as error:
            warn(f"{report.label}: {error}")
