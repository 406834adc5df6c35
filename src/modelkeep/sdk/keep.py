"""The owner's side: one keep, opened with its passphrase."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from modelkeep.core.artifact import (
    Canary,
    Manifest,
    checked_model_name,
    parsed_reference,
)
from modelkeep.core.entry import Entry, Fact
from modelkeep.core.errors import IntegrityError, KeepError, MissingError, UsageError
from modelkeep.core.verdict import Finding, Severity, Verdict
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.secret import Secret
from modelkeep.flows.admit import Admitted, Candidate, admitted, scanned
from modelkeep.flows.backup import BackupReport, backed_up
from modelkeep.flows.canary import parsed_canary
from modelkeep.flows.check import CheckReport, checked
from modelkeep.flows.history import log_access
from modelkeep.flows.keep import LogEpoch, OpenKeep, record
from modelkeep.flows.ledger_read import LogAccess, healed_log, latest_checkpoint
from modelkeep.flows.prove import proven_call
from modelkeep.flows.registry import (
    ModelSummary,
    loaded,
    manifest_of,
    model_summaries,
    set_alias,
)
from modelkeep.flows.tokens import created_token, revoked_token
from modelkeep.ledger.checkpoint import Checkpoint, verified_checkpoint, verifier_key
from modelkeep.ledger.log import LogReader
from modelkeep.ledger.verify import LogReport, verified_log
from modelkeep.ports.state import Token
from modelkeep.ports.store import Store
from modelkeep.scan.settings import ScanSettings
from modelkeep.sdk.creation import create_keep
from modelkeep.sdk.files import mapped, private_copy
from modelkeep.sdk.service import Service
from modelkeep.wiring import (
    KeepFolder,
    Warn,
    World,
    folder_store,
    is_served,
    open_journal,
    open_keep,
    passphrase_source,
    removed_state,
    write_file,
)

DEFAULT_ACTOR = "sdk"


class Keep:
    """A keep that is open for reading and writing, by one process at a time.

    Args:
        path: the keep's folder.
        passphrase: opens the root key.
        actor: who acts, for the ledger.
        warn: told what went wrong without stopping anything, such as a store that is away.
        world: what the keep stands on; the machine itself unless a test says otherwise.

    Raises:
        MissingError: `keep.missing`.
        RefusedError: `keys.passphrase`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        passphrase: str | Secret,
        actor: str = DEFAULT_ACTOR,
        warn: Warn = lambda _: None,
        world: World | None = None,
    ) -> None:
        self.folder = _folder(path, world)
        self._passphrase = _as_secret(passphrase)
        self._stack = ExitStack()
        source = passphrase_source(self._passphrase)
        self._open, self.config = self._stack.enter_context(
            open_keep(self.folder, source, actor=actor, warn=warn)
        )

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        passphrase: str | Secret,
        stores: Mapping[str, str | Path] | None = None,
        host: str = "127.0.0.1",
        port: int = 8443,
        argon2: Argon2Settings | None = None,
        actor: str = DEFAULT_ACTOR,
        world: World | None = None,
    ) -> Self:
        """Make a keep and open it.

        Args:
            stores: further stores by label; backups go to them.

        Raises:
            UsageError: `keep.exists` or `keep.store_taken`.
        """
        secret = _as_secret(passphrase)
        folder = _folder(path, world)
        create_keep(folder, secret, stores or {}, host=host, port=port, argon2=argon2)
        return cls(path, passphrase=secret, actor=actor, world=world)

    @property
    def keep_id(self) -> str:
        """16 hex digits that name this keep."""
        return self._open.keep_id

    @property
    def opened(self) -> OpenKeep:
        """What the flows work on."""
        return self._open

    @classmethod
    def rebuild_state(
        cls, path: str | Path, *, passphrase: str | Secret, actor: str = DEFAULT_ACTOR
    ) -> Self:
        """Make State anew from the ledger, and open the keep.

        Raises:
            UnavailableError: `state.served`, while a gateway reads it.
        """
        secret = _as_secret(passphrase)
        removed_state(KeepFolder(Path(path)), passphrase_source(secret))
        return cls(path, passphrase=secret, actor=actor)

    def admit(
        self,
        file: str | Path,
        *,
        name: str,
        canary: Canary | str | Path | None = None,
        base: str = "",
        note: str = "",
        progress: Callable[[int], None] = lambda _: None,
    ) -> Admitted:
        """Let a model in: scan, sign, seal, store, register as the next version.

        Raises:
            RefusedError: `verdict.hold` or `verdict.deny`.
            UsageError: when the file or the name is no good.
        """
        if base:
            parsed_reference(base)
        with private_copy(Path(file)) as raw:
            return admitted(
                self._open,
                Candidate(
                    name=name,
                    file_name=Path(file).name,
                    raw=raw,
                    canary=_canary(canary),
                    base=base,
                    note=note,
                ),
                vault=self.config.vault,
                scan=self.config.scan,
                progress=progress,
            )

    def models(self) -> tuple[ModelSummary, ...]:
        """Every model version with its aliases."""
        return model_summaries(self._open)

    def manifest(self, reference: str) -> Manifest:
        """The verified manifest of one model version."""
        return manifest_of(self._open, parsed_reference(reference))

    def set_alias(self, alias: str, version: str | int) -> int:
        """Point `name:alias` at a version (or at another alias of the same model)."""
        named = parsed_reference(alias)
        if not named.selector:
            raise UsageError("model.alias", f"{alias!r} is no alias", hint="write NAME:ALIAS")
        if named.selector.isdecimal():
            raise UsageError("model.alias", "an alias is not a number", hint="fraud:prod")
        return set_alias(self._open, parsed_reference(f"{named.name}:{version}"), named.selector)

    def restore(self, reference: str, to: str | Path, *, force: bool = False) -> int:
        """Write a model's plaintext to a file, atomically; return its size in bytes.

        Raises:
            UsageError: `restore.exists`.
            IntegrityError: `model.damaged`; the file is then not there.
        """
        target = Path(to)
        if target.exists() and not force:
            raise UsageError(
                "restore.exists", f"{target} exists", hint="name another file, or give --force"
            )
        buffers: list[bytearray] = []

        def allocate(size_bytes: int) -> memoryview:
            buffers.append(bytearray(size_bytes))
            return memoryview(buffers[-1])

        file = loaded(self._open, parsed_reference(reference), allocate=allocate)
        write_file(self.folder.world.disk, target, file.raw)
        manifest = file.proof.manifest
        record(
            self._open,
            "model.restored",
            {"model": manifest.name, "version": manifest.version, "manifest": file.proof.digest},
        )
        return len(file.raw)

    def new_token(
        self, principal: str, *, scopes: Sequence[str] = ("infer:*",), expires_ns: int = 0
    ) -> tuple[str, Secret]:
        """Make an API key: its id, and its text, which exists nowhere else.

        A running gateway knows the key when this returns.
        """
        made = created_token(self._open, principal=principal, scopes=scopes, expires_ns=expires_ns)
        self._await_gateway()
        return made

    def tokens(self) -> tuple[Token, ...]:
        """All API keys: ids, holders, scopes; never the keys."""
        return self._open.state.tokens()

    def revoke_token(self, token_id: str) -> None:
        """Revoke an API key; a running gateway refuses it when this returns."""
        revoked_token(self._open, token_id)
        self._await_gateway()

    def backup(
        self, *, fresh: Collection[str] = (), progress: Callable[[int], None] = lambda _: None
    ) -> tuple[BackupReport, ...]:
        """Bring every other store up to the first one, and check that it holds all it needs.

        Args:
            fresh: labels of stores that may be empty: replacements, filled from nothing.
        """
        return backed_up(self._open, fresh=fresh, progress=progress)

    def check(
        self,
        *,
        read_data: bool = False,
        repair: bool = False,
        progress: Callable[[int], None] = lambda _: None,
    ) -> CheckReport:
        """Check that every store holds what it must, the ledger included."""
        return checked(
            self._open,
            read_data=read_data,
            repair=repair,
            logs=self.verify_ledger(repair=repair),
            progress=progress,
        )

    def entries(self, start: int = 0) -> Iterator[tuple[int, Entry]]:
        """The ledger's entries from an index on."""
        return self._open.history(start)

    def verify_ledger(
        self, *, store: str = "", expected: bytes | None = None, repair: bool = False
    ) -> tuple[tuple[str, LogReport], ...]:
        """Verify every object of every log in every store (or in one).

        Args:
            expected: a signed checkpoint that must be in the history.
            repair: replace what another store has whole.

        Returns:
            (store label, report) per store and log.
        """
        if expected is not None:
            self._demand_expected(expected)
        stores = self._named_stores(store)
        found = []
        for each in stores:
            for epoch in self._published():
                report = self._verified(each, epoch, expected)
                if repair and not report.is_whole:
                    self._heal_log(each, epoch)
                    report = self._verified(each, epoch, expected)
                found.append((each.label, report))
        return tuple(found)

    def checkpoint(self) -> Checkpoint:
        """The latest signed checkpoint."""
        return latest_checkpoint(self._access(self._open.store, self._open.epochs[-1]))

    def verifier_key(self) -> str:
        """The log's public key in C2SP form, for any public verifier of signed notes."""
        access = self._access(self._open.store, self._open.epochs[-1])
        return verifier_key(access.origin, access.public)

    def prove(self, receipt: str) -> dict[str, Any]:
        """Prove that one call was recorded, from its receipt; see `flows.prove`."""
        name, colon, position = receipt.rpartition(":")
        if not colon or not position.isdecimal() or not checked_model_name(name):
            raise UsageError(
                "receipt.form", f"{receipt[:80]!r} is no receipt", hint="gateway-0-0:17"
            )
        journal = open_journal(self.folder.journals_folder / name, writable=False)
        access = self._access(self._open.store, self._open.epochs[-1])
        return proven_call(access, journal, name=name, position=int(position))

    def record_drill(self, facts: Mapping[str, Fact]) -> int:
        """Record what a recovery or its rehearsal came to."""
        return record(self._open, "drill.measured", dict(facts))

    @property
    def passphrase(self) -> Secret:
        """What opened this keep, for a service that is started from it."""
        return self._passphrase

    def serve(self) -> Service:
        """Start the service as a child of this process; the keep is closed first."""
        self.close()
        return Service(self.folder.path, self._passphrase)

    def close(self) -> None:
        """Publish what was recorded, release the keep; idempotent."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _await_gateway(self) -> None:
        """Give a running gateway the time in which it reads State again."""
        if is_served(self.folder):
            time.sleep(2 * self.config.gate.tokens_reload_s)

    def _access(self, store: Store, epoch: LogEpoch) -> LogAccess:
        return log_access(self._open, epoch, store)

    def _named_stores(self, name: str) -> tuple[Store, ...]:
        """All stores, the one with a label, or a copy of a store in some folder."""
        stores = tuple(each for each in self._open.stores if name in ("", each.label))
        if stores:
            return stores
        if Path(name).is_dir():
            return (folder_store(Path(name), name),)
        raise MissingError(
            "store.unknown",
            f"there is no store {name[:80]!r}",
            hint=f"stores: {', '.join(each.label for each in self._open.stores)}; or a folder",
        )

    def _published(self) -> tuple[LogEpoch, ...]:
        """The logs of which some store holds a checkpoint; a new one is published at the end."""
        return tuple(
            epoch
            for epoch in self._open.epochs
            if any(LogReader(store, epoch.origin).checkpoint_sizes() for store in self._open.stores)
        )

    def _verified(self, store: Store, epoch: LogEpoch, expected: bytes | None) -> LogReport:
        access = self._access(store, epoch)
        at_least = None
        if expected and _origin_of(expected) == epoch.origin:
            at_least = verified_checkpoint(expected, origin=epoch.origin, public=access.public)
        try:
            return verified_log(
                store,
                origin=epoch.origin,
                public=access.public,
                body_key=access.body_key,
                at_least=at_least,
            )
        except (IntegrityError, MissingError) as error:
            nothing = Finding(
                rule=error.code,
                severity=Severity.HIGH,
                subject=epoch.origin,
                evidence=error.message,
            )
            return LogReport(
                origin=epoch.origin,
                size=0,
                root=b"",
                objects=0,
                bodies_checked=False,
                findings=(nothing,),
                findings_total=1,
            )

    def _demand_expected(self, expected: bytes) -> None:
        origins = [epoch.origin for epoch in self._open.epochs]
        if _origin_of(expected) not in origins:
            raise UsageError(
                "ledger.origin", "this checkpoint is of another log", hint=f"logs: {origins}"
            )

    def _heal_log(self, store: Store, epoch: LogEpoch) -> None:
        for other in self._open.stores:
            if other is store:
                continue
            try:
                names = healed_log(store, self._access(other, epoch))
            except KeepError:
                continue
            for name in names:
                record(
                    self._open,
                    "vault.healed",
                    {"store": store.label, "object": name, "code": "ledger"},
                )


def scan(path: str | Path, settings: ScanSettings | None = None) -> Verdict:
    """Scan one file; nothing in it is executed, imported or unpickled."""
    with mapped(Path(path)) as raw:
        return scanned(Path(path).name, raw, settings or ScanSettings())


def _folder(path: str | Path, world: World | None) -> KeepFolder:
    return KeepFolder(Path(path)) if world is None else KeepFolder(Path(path), world)


def _canary(canary: Canary | str | Path | None) -> Canary | None:
    if canary is None or isinstance(canary, Canary):
        return canary
    with mapped(Path(canary)) as raw:
        return parsed_canary(bytes(raw), what=str(canary))


def _as_secret(passphrase: str | Secret) -> Secret:
    return passphrase if isinstance(passphrase, Secret) else Secret(passphrase.encode())


def _origin_of(checkpoint: bytes) -> str:
    return checkpoint.partition(b"\n")[0].decode(errors="replace")
