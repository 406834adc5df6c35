"""Where everything meets: the only file that knows every adapter and how a keep's folder lies.

Adapters are imported where they are constructed, so that a process pays only for what it uses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from modelkeep.adapters.store_settings import StoreSettings, encoding_of
from modelkeep.config import CONFIG_NAME, Config, parsed_config
from modelkeep.core.artifact import Schema
from modelkeep.core.errors import MissingError, UnavailableError, UsageError, extra_hint
from modelkeep.flows.create import unlocked
from modelkeep.flows.keep import LogEpoch
from modelkeep.flows.settings import StateSettings
from modelkeep.ports.attestor import Attested
from modelkeep.ports.clock import Clock
from modelkeep.ports.entropy import Entropy
from modelkeep.ports.host import HostFacts
from modelkeep.ports.keyholder import PASSPHRASE, Keyholder, Means
from modelkeep.ports.runtime import Runtime
from modelkeep.ports.state import State
from modelkeep.ports.store import Store
from modelkeep.ports.trial import Trial
from modelkeep.ports.workers import SERIAL, Workers

if TYPE_CHECKING:
    from modelkeep.adapters.disk import Disk
    from modelkeep.adapters.journal_file import JournalFile
    from modelkeep.adapters.keyholder_process import ProcessKeyholder
    from modelkeep.adapters.recorder_client import RecorderClient
    from modelkeep.adapters.scan_process import ProcessScanner

LOCK_WAIT_S = 30.0
# How a zip archive begins: TorchScript or a program of `torch.export`; no ONNX file does.
_ARCHIVE = b"PK\x03\x04"
# How long a verb waits for the ledger before it asks for the recorder of a running service.
LEDGER_WAIT_S = 0.1
# How long a verb that must not meet a service waits for one that is just being asked for.
SERVE_WAIT_S = 0.1
Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class World:
    """What a keep stands on; `modelkeep.testing` puts another one under it.

    Attributes:
        open_state: opens the State database of a path, making it if it is missing.
        keyholder: makes the one that sees the root.
        workers: makes the threads that hash, encode and encrypt.
    """

    disk: Disk
    clock: Clock
    entropy: Entropy
    open_state: Callable[[Path], State]
    keyholder: Callable[[Means], Keyholder]
    workers: Callable[[], Workers] = lambda: SERIAL


def real_world() -> World:
    """The machine itself."""
    from modelkeep.adapters.disk import RealDisk  # noqa: PLC0415

    return World(
        disk=RealDisk(),
        clock=system_clock(),
        entropy=system_entropy(),
        open_state=open_state,
        keyholder=process_keyholder,
        workers=thread_workers,
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
    def recovery_lock(self) -> Path:
        """Held by a recovery from when the folder is whole until it is proven."""
        return self.run_folder / "recovery.lock"

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

    @property
    def cache_folder(self) -> Path:
        """Copies of small objects of stores elsewhere, a folder per store; it holds no truth."""
        return self.run_folder / "cache"

    @property
    def proofs_folder(self) -> Path:
        """Which models this host has proven since it started."""
        return self.run_folder / "proven"

    def store_path(self, store: StoreSettings) -> Path:
        """The folder of a store that is one; relative paths start at the keep's."""
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
    """A store in a folder, whatever is there."""
    from modelkeep.adapters.store_folder import FolderStore  # noqa: PLC0415

    return FolderStore(path, label, disk)


def served_store(settings: StoreSettings, *, keep_id: str) -> Store:
    """A store of a keep for one process of a running service; its path is absolute."""
    from modelkeep.adapters.stores import opened_store  # noqa: PLC0415

    return opened_store(settings, keep_id=keep_id)


def store_of(
    folder: KeepFolder, settings: StoreSettings, *, keep_id: str, disk: Disk | None = None
) -> Store:
    """A store of a keep, with its wrappers: nothing is written where it is not there."""
    from modelkeep.adapters.stores import opened_store  # noqa: PLC0415

    return opened_store(
        settings, base=folder.path, keep_id=keep_id, disk=disk, cache=folder.cache_folder
    )


def any_store(folder: KeepFolder, settings: StoreSettings) -> Store:
    """A store of which nothing is known yet, whatever is there."""
    from modelkeep.adapters.stores import opened_store  # noqa: PLC0415

    return opened_store(settings, base=folder.path, disk=folder.world.disk)


def encodings_of(config: Config) -> dict[str, str]:
    """How chunks are encoded in each store, by label: `fast` or `small`."""
    return {each.label: encoding_of(each, number=at) for at, each in enumerate(config.stores)}


def is_served(folder: KeepFolder) -> bool:
    """Whether a supervisor runs for this keep."""
    from modelkeep.adapters.locks import is_held  # noqa: PLC0415

    return is_held(folder.serve_lock)


def stores_of(folder: KeepFolder, config: Config) -> tuple[Store, ...]:
    """All stores of a keep, the authoritative one first."""
    disk = folder.world.disk
    return tuple(
        store_of(folder, each, keep_id=config.keep_id, disk=disk) for each in config.stores
    )


def witness_stores_of(folder: KeepFolder, config: Config) -> tuple[Store, ...]:
    """The stores elsewhere that only keep checkpoints."""
    return tuple(
        folder_store(folder.path / each.path, each.label, folder.world.disk)
        for each in config.ledger.witness.stores
    )


def open_state(path: Path) -> State:
    """The State database, made if it is missing."""
    from modelkeep.adapters.state_sqlite import SqliteState  # noqa: PLC0415

    return SqliteState(path)


def state_of(folder: KeepFolder, config: Config, origin: str) -> State:
    """State where `[state]` says it lies, made if it is missing."""
    if not config.state.url:
        return folder.world.open_state(folder.state_path)
    from modelkeep.adapters.state_opening import postgres_state  # noqa: PLC0415

    return postgres_state(config.state.url, password=config.state.password, origin=origin)


def removed_state(folder: KeepFolder, means: Means) -> None:
    """Remove the State database; the next opening of the keep makes it anew from the ledger.

    Nothing is removed before it is clear that this is a keep and that its owner asks.

    Raises:
        MissingError: `keep.missing`.
        RefusedError: `keys.passphrase`.
        UnavailableError: `state.served`, while a gateway reads it.
    """
    from modelkeep.adapters.locks import held  # noqa: PLC0415

    config, _ = read_config(folder)
    with closing(keyholder_of(folder, means, config)) as keyholder:
        opened = unlocked(stores_of(folder, config), keyholder, keep_id=config.keep_id)
    folder.run_folder_ready()
    with ExitStack() as stack:
        stack.enter_context(
            held(folder.writer_lock, wait_s=LOCK_WAIT_S, what="another command changes this keep")
        )
        try:  # held until the end: no service starts meanwhile
            stack.enter_context(held(folder.serve_lock, wait_s=SERVE_WAIT_S, what="it is served"))
        except UnavailableError:
            raise UnavailableError(
                "state.served", "a running service reads State", hint="stop `modelkeep serve` first"
            ) from None
        if config.state.url:
            from modelkeep.adapters.state_opening import postgres_state  # noqa: PLC0415

            password, origin = config.state.password, opened.epochs[-1].origin
            with closing(
                postgres_state(config.state.url, password=password, origin=origin)
            ) as state:
                state.forget()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{folder.state_path}{suffix}").unlink(missing_ok=True)


def open_state_readonly(path: Path, settings: StateSettings, *, origin: str) -> State:
    """The State database, for a process that only asks."""
    if settings.url:
        from modelkeep.adapters.state_opening import postgres_state  # noqa: PLC0415

        return postgres_state(
            settings.url, password=settings.password, origin=origin, readonly=True
        )
    from modelkeep.adapters.state_sqlite import SqliteState  # noqa: PLC0415

    return SqliteState(path, readonly=True)


def write_file(disk: Disk, path: Path, raw: bytes | memoryview) -> None:
    """Put bytes under a name, atomically and durably, readable by their owner only.

    Raises:
        UnavailableError: `file.write`.
    """
    from modelkeep.adapters.disk import write_replacing, writing  # noqa: PLC0415

    with writing(path):
        write_replacing(disk, path, raw)


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


def open_journal(
    folder: Path, *, writable: bool, disk: Disk | None = None, refused_by: Path | None = None
) -> JournalFile:
    """A journal in a folder; while the file `refused_by` is there, it takes nothing."""
    from modelkeep.adapters.disk import RealDisk  # noqa: PLC0415
    from modelkeep.adapters.journal_file import JournalFile  # noqa: PLC0415

    return JournalFile(disk or RealDisk(), folder, refused_by=refused_by, writable=writable)


def open_runtime(
    model_fd: int,
    *,
    schema: Schema,
    threads: int,
    lock_in: Callable[[int], object] = lambda _size: None,
) -> Runtime:
    """A model from its sealed memory file; loads onnxruntime, or torch for an archive.

    Args:
        lock_in: told the model's size when all is open, before the model is looked at.

    Raises:
        UsageError: `runtime.torch`, where torch is not installed.
    """
    if os.pread(model_fd, len(_ARCHIVE), 0) == _ARCHIVE:
        if find_spec("torch") is None:
            raise UsageError(
                "runtime.torch",
                "the model is a program of PyTorch, and torch is not installed",
                hint="`pip install torch`",
            )
        from modelkeep.adapters.runtime_torch import torch_of_fd  # noqa: PLC0415

        return torch_of_fd(model_fd, schema=schema, threads=threads, lock_in=lock_in)
    from modelkeep.adapters.runtime_onnx import runtime_of_fd  # noqa: PLC0415

    return runtime_of_fd(model_fd, schema=schema, threads=threads, lock_in=lock_in)


def host_prover(folder: KeepFolder, config: Config) -> Callable[[], Attested] | None:
    """What proves which host this is; None where `[attestation]` names no attester."""
    settings, world = config.attestation, folder.world
    if not settings.attester:
        return None

    def prove() -> Attested:
        with attesting():
            from modelkeep.adapters.attestors import prover  # noqa: PLC0415

        return prover(settings, clock=world.clock, entropy=world.entropy)()

    return prove


@contextmanager
def attesting() -> Iterator[None]:
    """Say how to install what attestation imports.

    Raises:
        UsageError: `extra.missing`.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            "extra.missing",
            f"attestation needs {error.name}, which is not installed",
            hint=extra_hint("attest"),
        ) from error


def system_clock() -> Clock:
    """The machine's clock."""
    from modelkeep.adapters.system import SystemClock  # noqa: PLC0415

    return SystemClock()


def thread_workers() -> Workers:
    """One thread per core that this process may use."""
    from modelkeep.adapters.thread_workers import ThreadWorkers  # noqa: PLC0415

    return ThreadWorkers(len(os.sched_getaffinity(0)))


def system_entropy() -> Entropy:
    """The kernel's random generator."""
    from modelkeep.adapters.system import SystemEntropy  # noqa: PLC0415

    return SystemEntropy()


def process_keyholder(means: Means, *, sign_fd: int = -1) -> ProcessKeyholder:
    """The keyholder as a process of its own; it ends with this one."""
    from modelkeep.adapters.keyholder_process import ProcessKeyholder  # noqa: PLC0415

    return ProcessKeyholder(means, sign_fd=sign_fd)


def keyholder_of(folder: KeepFolder, means: Means, config: Config | None = None) -> Keyholder:
    """The keyholder of a keep.

    Its key source is what modelkeep.toml says unless told otherwise. A configuration that comes
    out of a store has no say: what it names might be run.
    """
    if config is not None:
        means = replace(means, source=means.source or config.keys.source, argon2=config.argon2)
    return folder.world.keyholder(replace(means, source=means.source or PASSPHRASE))


def recorder_client(folder: KeepFolder) -> RecorderClient:
    """The recorder of a running service."""
    from modelkeep.adapters.recorder_client import RecorderClient  # noqa: PLC0415

    return RecorderClient(folder.run_folder)


@cache
def scanner() -> ProcessScanner:
    """The warm scanner of this process, shared by all that it opens; it ends with this process."""
    from modelkeep.adapters.scan_process import ProcessScanner  # noqa: PLC0415

    return ProcessScanner()


@cache
def canary_trial() -> Trial:
    """The warm process that asks models, shared by all that this one opens; it ends with it."""
    from modelkeep.adapters.trial_process import ProcessTrial  # noqa: PLC0415

    return ProcessTrial()


def host_facts() -> HostFacts:
    """Looks at this machine; its isolation is tried with what a replica keeps."""
    from modelkeep.adapters.host_facts import SystemFacts  # noqa: PLC0415
    from modelkeep.adapters.replica_sandbox import replica_grants, replica_limits  # noqa: PLC0415

    return SystemFacts(grants=replica_grants((), sockets=True), limits=replica_limits(0))


def private_paths(folder: KeepFolder, config: Config) -> tuple[str, ...]:
    """What of a keep should be its owner's only, and where its keys lie in files."""
    from modelkeep.adapters.host_facts import kept_private  # noqa: PLC0415

    return kept_private(folder.path, (config.keys.source, config.state.password))
