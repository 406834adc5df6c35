"""The part of a recovery before any process: from a store to a keep's folder that can be opened.

unlock -> verify the log -> copy, each object proven -> a new log begins -> modelkeep.toml, the last
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from modelkeep.config import (
    Config,
    StoreSettings,
    new_config_text,
    parsed_config,
    with_source,
    without_state,
)
from modelkeep.core.errors import IntegrityError, UsageError
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
from modelkeep.ledger.checkpoint import Checkpoint, verified_checkpoint
from modelkeep.ledger.log import LogReader
from modelkeep.ports.keyholder import PASSPHRASE, Means
from modelkeep.ports.store import Store
from modelkeep.wiring import KeepFolder, folder_store, keyholder_of, write_file

# What the mark of a recovery that is under way says.
PENDING = b"recovery"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a recovery starts from.

    Attributes:
        target: where the keep is made again.
        source: folder of the surviving store.
        means: what opens the surviving store.
        successor: what is to hold the root from then on, where shares or an escrow key opened it.
        port: to listen on instead of the configured one; None keeps that.
        expected: a signed checkpoint that must be in the history.
        disaster_ns: when it happened; 0 for the start of the recovery.
        is_rehearsal: whether the surviving store is left as it is.
        entries: of a rehearsal: how many the keep that is rehearsed holds.
    """

    target: Path
    source: Path
    means: Means
    successor: Means | None = None
    port: int | None = None
    expected: bytes | None = None
    disaster_ns: int = 0
    is_rehearsal: bool = False
    entries: int = 0


def demand_free(folder: KeepFolder) -> None:
    """Check that the target is free; what a recovery that failed left there is begun anew.

    Raises:
        UsageError: `recover.exists`, when the target is a keep.
    """
    disk = folder.world.disk
    is_ours = disk.size(folder.pending_file) is not None and disk.read(
        folder.pending_file
    ).startswith(PENDING)
    if not is_ours:
        if disk.size(folder.config_path) is not None:
            raise UsageError(
                "recover.exists",
                f"{folder.path} is a keep already; it is not replaced",
                hint="name another folder, or remove this one",
            )
        return
    stores = folder.path / "stores"
    for path, _ in disk.walk(folder.path):  # objects stay: they are proven again
        if stores not in path.parents and path != folder.pending_file:
            disk.unlink(path)


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
    """
    disk = folder.world.disk
    survivor = folder_store(plan.source, str(plan.source), disk)
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
    disk.make_folder(folder.path)
    write_file(disk, folder.pending_file, PENDING)
    after = parsed_config(text, what="the recovered configuration")
    main = folder_store(folder.store_path(after.stores[0]), after.stores[0].label, disk)
    done = copied(survivor, main, verify=lambda name, raw: demand_object(opened, name, raw))
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
    text = without_state(with_source(raw.decode(), source_of(plan)))
    here = str(plan.source.resolve())
    others = config.stores[1:]
    if others and here not in [store.path for store in others]:
        if len(others) != 1:
            raise UsageError(
                "recover.store",
                f"none of the keep's stores lies in {here}",
                hint=f"mount it where it was: {', '.join(store.path for store in others)}",
            )
        text = text.replace(f'"{others[0].path}"', f'"{here}"')
    if plan.port is not None:
        text = re.sub(r"(?m)^(\s*port\s*=\s*)[0-9_]+", rf"\g<1>{plan.port}", text)
        if parsed_config(text.encode(), what="the new port").serve.port != plan.port:
            raise UsageError(
                "recover.port",
                "the stored modelkeep.toml sets no port that could be replaced",
                hint="recover without --port, then edit [serve] in modelkeep.toml",
            )
    return text.encode()


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
