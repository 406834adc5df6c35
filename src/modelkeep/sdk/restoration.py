"""The part of a recovery before any process: from a store to a keep's folder that can be opened.

unlock -> verify the log -> mark the folder -> copy, each object proven -> a new log begins ->
modelkeep.toml, the last. A marked folder is begun anew: what a keep keeps beside its stores is
removed, by name, while nothing runs there. Whatever else lies in the folder is never touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelkeep.adapters.attestation_settings import AttestationSettings
from modelkeep.adapters.locks import held
from modelkeep.adapters.store_settings import StoreSettings
from modelkeep.config import (
    CONFIG_NAME,
    Config,
    new_config_text,
    parsed_config,
    quoted,
    with_source,
    without_attestation,
    without_state,
)
from modelkeep.core.errors import ConfigError, IntegrityError, UsageError
from modelkeep.core.record import replaced
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.check import demand_object
from modelkeep.flows.create import Unlocked, config_of, unlocked
from modelkeep.flows.history import history
from modelkeep.flows.recover import (
    Backed,
    Survived,
    backed,
    copied,
    honoured_snapshot,
    next_epoch,
    put_epoch,
    survived,
)
from modelkeep.flows.settings import StateSettings
from modelkeep.ledger.checkpoint import Checkpoint, verified_checkpoint
from modelkeep.ledger.log import LogReader
from modelkeep.ports.keyholder import PASSPHRASE, Means
from modelkeep.ports.store import Store
from modelkeep.wiring import KeepFolder, any_store, folder_store, keyholder_of, write_file

# What the mark of a recovery that is under way says.
PENDING = b"recovery"
# What a keep keeps beside its stores; nothing else is ever removed.
OWN_FILES = (CONFIG_NAME, "ca.pem", "state.db", "state.db-wal", "state.db-shm")
OWN_FOLDERS = ("journals", "ledger", "run")
# How long a recovery waits for what ran in its folder before: it may still drain.
LOCK_WAIT_S = 2.0
# Stands in for the program of a recovered configuration until a person writes it there again.
UNCONFIRMED = "file:/confirm/the/program/that/gave/these/credentials"
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp")  # `write_file` may leave such a one


@dataclass(frozen=True, slots=True)
class Plan:
    """What a recovery starts from.

    Attributes:
        target: where the keep is made again.
        source: the surviving store: its folder, or what `[[stores]]` would say of it.
        means: what opens the surviving store.
        successor: what is to hold the root from then on, where shares or an escrow key opened it.
        port: to listen on instead of the configured one; None keeps that.
        expected: a signed checkpoint that must be in the history.
        disaster_ns: when it happened; 0 for the start of the recovery.
        is_rehearsal: whether the surviving store is left as it is.
        entries: of a rehearsal: how many the keep that is rehearsed holds.
    """

    target: Path
    source: Path | StoreSettings
    means: Means
    successor: Means | None = None
    port: int | None = None
    expected: bytes | None = None
    disaster_ns: int = 0
    is_rehearsal: bool = False
    entries: int = 0

    @property
    def survivor(self) -> StoreSettings:
        """The surviving store as a table of modelkeep.toml."""
        if isinstance(self.source, StoreSettings):
            return self.source
        return StoreSettings(label=str(self.source), path=str(self.source.resolve()))

    @property
    def source_folder(self) -> Path | None:
        """The surviving store's folder; None where it lies elsewhere."""
        return Path(self.survivor.path).resolve() if self.survivor.path else None


def demand_apart(source: Path, target: Path) -> None:
    """Check that a store does not lie where the recovered keep's own files go.

    Raises:
        UsageError: `recover.inside`.
    """
    there, here = source.resolve(), target.resolve()
    if here in (there, *there.parents) and here / "stores" not in there.parents:
        raise UsageError(
            "recover.inside",
            f"the store {source} lies in {target}, where a keep's own files go",
            hint="name another folder for the keep",
        )


def demand_free(plan: Plan, folder: KeepFolder) -> None:
    """Check that the target holds nothing but what a recovery that failed left; change nothing.

    Raises:
        UsageError: `recover.inside`, `recover.exists` when the target is a keep, or
            `recover.taken` when it holds anything else.
    """
    here = plan.source_folder
    if here is not None:
        demand_apart(here, folder.path)
    disk = folder.world.disk
    is_marked = disk.size(folder.pending_file) is not None
    if is_marked and disk.read(folder.pending_file).startswith(PENDING):
        return
    if disk.size(folder.config_path) is not None:
        raise UsageError(
            "recover.exists",
            f"{folder.path} is a keep already; it is not replaced",
            hint="name another folder, or remove this one",
        )
    stores = folder.path / "stores"
    is_among = here is not None and stores.resolve() in here.parents
    for path, _ in disk.walk(folder.path):
        is_harmless = folder.run_folder in path.parents or _is_temporary(path)
        if not is_harmless and not (is_among and stores in path.parents):
            raise UsageError(
                "recover.taken",
                f"{folder.path} is not empty: it holds {path.relative_to(folder.path)}",
                hint="name another folder, or a new one",
            )


@dataclass(frozen=True, slots=True)
class Restored:
    """What came over from the surviving store."""

    config: Config
    was: Survived
    objects: int
    size_bytes: int
    damaged: tuple[str, ...]
    lost: tuple[str, ...]
    lost_ns: int


def restored_folder(plan: Plan, folder: KeepFolder, lap: Callable[[str], float]) -> Restored:
    """The part before any process: unlock, verify, copy, begin a new log, write the folder.

    The configuration goes last: a run that was cut short is simply run again.

    Raises:
        UsageError: `recover.*`, when the target is not free or the configuration does not fit.
        UnavailableError: `lock.held`, when something still runs in the target.
    """
    disk = folder.world.disk
    survivor = any_store(folder, plan.survivor)
    with closing(keyholder_of(folder, plan.means)) as keyholder:
        opened = unlocked([survivor], keyholder)
    lap("root unlocked")
    raw = config_of([survivor], opened.keys)[1]
    config = parsed_config(raw, what="the stored configuration")
    text = _config_text(plan, config, raw)
    public = Signer(opened.keys.ledger_seed).public
    was = survived(
        survivor,
        opened,
        public=public,
        expected=_expected(plan.expected, opened, public),
        now_ns=folder.world.clock.now_ns(),
    )
    lap("ledger verified")
    after = parsed_config(text, what="the recovered configuration")
    main = folder_store(folder.store_path(after.stores[0]), after.stores[0].label, disk)
    disk.make_folder(folder.path)
    with _alone(folder):
        demand_free(plan, folder)  # it was when this began, and verifying can take hours
        _begin_anew(folder)
        workers = folder.world.workers()
        reader = opened.reader_of((survivor,))
        done = copied(
            survivor,
            main,
            verify=lambda name, raw: demand_object(opened, name, raw, reader=reader),
            workers=workers,
        )
        lap("objects copied")
        had = backed(survivor, opened, (e for _, e in history(opened, [survivor], None, 0, [])))
        _begin_log(plan, opened, (was, had), survivor, main)
        write_file(disk, folder.ca_pem_path, opened.authority.certificate)
        write_file(disk, folder.config_path, text)
    return Restored(
        config=config,
        was=was,
        objects=done.objects,
        size_bytes=done.size_bytes,
        damaged=done.damaged + was.damaged,
        lost=tuple(f"{name}:{version}" for name, version in had.lost),
        lost_ns=had.lost_ns,
    )


@contextmanager
def _alone(folder: KeepFolder) -> Iterator[None]:
    """Nobody serves, changes or still writes what lies in the folder.

    Raises:
        UnavailableError: `lock.held`.
    """
    folder.run_folder_ready()
    locks = {folder.serve_lock, folder.writer_lock}
    for name in OWN_FOLDERS:
        locks.update((folder.path / name).glob("*.lock"))
    with ExitStack() as stack:
        for lock in sorted(locks):
            what = f"something still runs in {folder.path}"
            stack.enter_context(held(lock, wait_s=LOCK_WAIT_S, what=what))
        yield


def _begin_anew(folder: KeepFolder) -> None:
    """Mark the folder, and remove what an earlier recovery left: no more than our own names.

    The configuration goes first, durably: what is half removed is no keep. Objects stay, they
    are proven again; so do the locks that are held.
    """
    disk = folder.world.disk
    write_file(disk, folder.pending_file, PENDING)
    disk.unlink(folder.config_path)
    disk.sync_folder(folder.path)
    for path, _ in disk.walk(folder.path):
        first, *rest = path.relative_to(folder.path).parts
        is_own = first in OWN_FOLDERS if rest else first in OWN_FILES or _is_temporary(path)
        if is_own and not (path.parent == folder.run_folder and path.suffix == ".lock"):
            disk.unlink(path)


def _is_temporary(path: Path) -> bool:
    """Whether a cut write of one of our files left it."""
    found = _TEMPORARY.fullmatch(path.name)
    return found is not None and found[1] in ("pending", *OWN_FILES)


def _begin_log(
    plan: Plan, opened: Unlocked, what: tuple[Survived, Backed], survivor: Store, main: Store
) -> None:
    """Begin a new log; one that an earlier, cut recovery began and never used is taken up."""
    newest = opened.epochs[-1]
    sizes = LogReader(survivor, newest.origin).checkpoint_sizes()
    snapshot = honoured_snapshot(survivor, opened, what[1], main)
    epoch = next_epoch(opened, *what, snapshot=snapshot, is_empty=newest.number > 0 and not sizes)
    put_epoch(main, epoch, opened)
    if not plan.is_rehearsal:
        put_epoch(survivor, epoch, opened)


def source_of(plan: Plan) -> str:
    """The key source of the recovered keep: what the operator gave, never what a store names."""
    return (plan.successor or plan.means).source or PASSPHRASE


def _config_text(plan: Plan, config: Config, raw: bytes) -> bytes:
    """The recovered modelkeep.toml: as it was, but for where the store lies and the port."""
    if plan.is_rehearsal:
        return new_config_text(
            keep_id=config.keep_id,
            stores=(StoreSettings(label=config.stores[0].label, path="stores/main"),),
            host="127.0.0.1",
            port=0,
            source=source_of(plan),
        ).encode()
    source, here = source_of(plan), plan.source_folder
    text = without_attestation(without_state(with_source(raw.decode(), source)))
    stores, others = config.stores, config.stores[1:]
    if others and not _is_known(plan, stores):
        if len(others) != 1 or here is None or others[0].url:
            raise UsageError(
                "recover.store",
                f"none of the keep's stores lies in {here or plan.survivor.url}",
                hint="give it as it was: "
                + ", ".join(store.url or f"mounted at {store.path}" for store in others),
            )
        text = text.replace(quoted(others[0].path), quoted(str(here)))
        stores = (stores[0], replaced(others[0], path=str(here)))
    for each in stores:  # what a store names is not run
        if each.credentials.startswith("exec:"):
            told = plan.survivor.credentials if each.url == plan.survivor.url else UNCONFIRMED
            text = text.replace(quoted(each.credentials), quoted(told))
            stores = tuple(
                replaced(store, credentials=told)
                if store.credentials == each.credentials
                else store
                for store in stores
            )
    wanted = replaced(
        config,
        stores=stores,
        keys=replaced(config.keys, source=source),
        state=StateSettings(),
        attestation=AttestationSettings(),
    )
    if plan.port is not None:
        text = re.sub(r"(?m)^(\s*port\s*=\s*)[0-9_]+", rf"\g<1>{plan.port}", text)
        if parsed_config(text.encode(), what="the new port").serve.port != plan.port:
            raise UsageError(
                "recover.port",
                "the stored modelkeep.toml sets no port that could be replaced",
                hint="recover without --port, then edit [serve] in modelkeep.toml",
            )
        wanted = replaced(wanted, serve=replaced(wanted.serve, port=plan.port))
    _demand_config(text, wanted)
    return text.encode()


def _is_known(plan: Plan, stores: tuple[StoreSettings, ...]) -> bool:
    """Whether the surviving store is one of these, where they say it lies."""
    if plan.source_folder is None:
        return plan.survivor.url in [store.url for store in stores]
    folders = [(plan.target / store.path).resolve() for store in stores if store.path]
    return plan.source_folder in folders


def _demand_config(text: str, wanted: Config) -> None:
    """Check that the changed text says what was meant, and nothing else.

    Raises:
        UsageError: `recover.config`.
    """
    try:
        found = parsed_config(text.encode(), what="the recovered configuration")
    except ConfigError:
        found = None
    if found != wanted:
        raise UsageError(
            "recover.config",
            "the stored modelkeep.toml is written in a way that is not changed safely",
            hint="mount the store where it was, and recover without --port",
        )


def _expected(raw: bytes | None, opened: Unlocked, public: bytes) -> Checkpoint | None:
    if raw is None:
        return None
    for epoch in opened.epochs:
        try:
            return verified_checkpoint(raw, origin=epoch.origin, public=public)
        except IntegrityError:
            continue
    raise IntegrityError(
        "recover.expected", "the expected checkpoint is not one of this keep's, or was changed"
    )
