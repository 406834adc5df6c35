"""Open a keep: one writer at a time, keys unlocked, ledger and State brought to agree.

writer lock -> keyholder opens the keyring -> the ledger's writer (this process, or the recorder of
a running service) -> compared with what witnesses hold -> State -> agreement -> … -> published
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import count

from modelkeep.adapters.load_proofs_folder import load_proofs_of
from modelkeep.config import Config
from modelkeep.core.errors import RefusedError, UnavailableError
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.alive import state_alive
from modelkeep.flows.create import Unlocked, unlocked
from modelkeep.flows.history import history
from modelkeep.flows.keep import LogEpoch, OpenKeep
from modelkeep.flows.ledger import Sequencer
from modelkeep.flows.opening import agree
from modelkeep.flows.permission import ProvenHost
from modelkeep.flows.witnessed import Poster, demand_witnessed
from modelkeep.ledger.log import LogReader
from modelkeep.ports.clock import Clock
from modelkeep.ports.journal import Journal
from modelkeep.ports.keyholder import Keyholder, Means
from modelkeep.ports.recorder import Recorder
from modelkeep.ports.store import Store
from modelkeep.vault.encode import Policy
from modelkeep.wiring import (
    LEDGER_WAIT_S,
    LOCK_WAIT_S,
    KeepFolder,
    Warn,
    host_prover,
    keyholder_of,
    open_journal,
    read_config,
    recorder_client,
    state_of,
    stores_of,
    witness_stores_of,
)

# Who opens a keep on behalf of a recovery: it, and the service that it starts.
RECOVERY = "recovery"
RECOVERY_ACTORS = (RECOVERY, "supervisor")


@contextmanager
def open_keep(
    folder: KeepFolder,
    means: Means,
    *,
    actor: str,
    warn: Warn = lambda _: None,
    keyholder: Keyholder | None = None,
) -> Iterator[tuple[OpenKeep, Config]]:
    """Open a keep for reading and writing; one writer at a time.

    While the keep is served, facts go through the service's recorder; otherwise this process is
    the sequencer, and publishes what it recorded to every store when it is done.

    Args:
        keyholder: goes on after the keep is closed; without one, a keyholder is started and ended.

    Raises:
        MissingError: `keep.missing`.
        RefusedError: `keys.passphrase`, `keys.no_holder` or `keys.superseded`.
        UnavailableError: `lock.held`.
        IntegrityError: when neither store holds what a keep needs.
    """
    from modelkeep.adapters.locks import held  # noqa: PLC0415

    config, raw = read_config(folder)
    folder.run_folder_ready()
    stores = stores_of(folder, config)
    with ExitStack() as stack:
        if keyholder is None:  # it loads while we wait for the lock
            keyholder = stack.enter_context(closing(keyholder_of(folder, means, config)))
        stack.enter_context(
            held(folder.writer_lock, wait_s=LOCK_WAIT_S, what="another command changes this keep")
        )
        opened = unlocked(stores, keyholder, keep_id=config.keep_id)
        _demand_own_log(folder, opened.epochs[-1])
        _end_recovery(folder, actor)
        recorder, journal = _recorder(folder, config, opened, stores=stores, stack=stack, warn=warn)
        state = state_of(folder, config, opened.epochs[-1].origin)
        stack.callback(state.close)
        healed: list[str] = []
        host = ProvenHost(host_prover(folder, config))
        keep = OpenKeep(
            keep_id=opened.keep_id,
            stores=stores,
            clock=folder.world.clock,
            entropy=folder.world.entropy,
            ring=opened.ring,
            keys=opened.keys,
            domains=opened.domains,
            authority=opened.authority,
            epochs=opened.epochs,
            state=state,
            recorder=recorder,
            history=lambda start: history(opened, stores, journal, start, healed),
            actor=actor,
            workers=folder.world.workers(),
            policies=_policies(config),
            host=host,
            load_proofs=load_proofs_of(folder.proofs_folder, opened.keys.load_proofs),
        )
        host.keep = keep
        yield agree(keep, journal=journal, config=raw, healed=healed), config


def _policies(config: Config) -> dict[str, Policy]:
    chosen = [getattr(each, "encoding", "") for each in config.stores]
    defaults = [Policy.FAST, *[Policy.SMALL] * len(chosen)]
    return {
        store.label: Policy(text) if text else default
        for store, text, default in zip(config.stores, chosen, defaults, strict=False)
    }


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


def _end_recovery(folder: KeepFolder, actor: str) -> None:
    """Take away the mark of a recovery that failed: from now on this is a keep that is in use."""
    from modelkeep.adapters.locks import is_held  # noqa: PLC0415

    disk = folder.world.disk
    if disk.size(folder.pending_file) is None:
        return
    if actor in RECOVERY_ACTORS and is_held(folder.recovery_lock):
        return  # it still runs, and takes its mark away itself
    disk.unlink(folder.pending_file)
    disk.sync_folder(folder.path)


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
    from modelkeep.adapters.locks import held, sole_writer  # noqa: PLC0415

    epoch, clock = opened.epochs[-1], folder.world.clock
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
    # A recorder whose supervisor was killed may still write the last entries.
    stack.enter_context(sole_writer(wal))
    journal = open_journal(wal, writable=True, disk=folder.world.disk)
    stack.callback(journal.close)
    abroad = witness_stores_of(folder, config)
    demand_witnessed(opened, stores, abroad, journal=journal, warn=warn)
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
    log, poster = LogReader(stores[0], epoch.origin), Poster(abroad, interval_s=0.0, clock=clock)
    stack.callback(_post, log, poster, signer.public, warn)
    stack.callback(_publish, sequencer, stores, signer, clock, warn)
    return sequencer, journal


def _publish(
    sequencer: Sequencer, stores: Sequence[Store], signer: Signer, clock: Clock, warn: Warn
) -> None:
    """Bring every store up to date, and state in each that it is."""
    at_ns, size = clock.now_ns(), sequencer.size
    try:
        reports = sequencer.publish()
    except UnavailableError as error:  # what was recorded is durable in the journal
        warn(f"{stores[0].label} lacks the latest ledger entries: {error}")
        return
    for store, report in zip(stores, reports, strict=True):
        for name in report.healed:
            warn(f"{report.label}: {name} was damaged and is written anew")
        if report.error is not None:
            warn(f"{report.label} lacks the latest ledger entries: {report.error}")
            continue
        try:
            state_alive(store, origin=sequencer.origin, size=size, at_ns=at_ns, signer=signer)
        except UnavailableError as error:
            warn(f"{report.label}: {error}")


def _post(log: LogReader, poster: Poster, public: bytes, warn: Warn) -> None:
    """Let the stores that witness have the newest checkpoint."""
    for label, error in poster.post(lambda: log.latest(public=public).checkpoint):
        warn(f"the witness {label} takes no checkpoint: {error}")
