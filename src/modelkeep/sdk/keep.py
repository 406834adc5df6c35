"""The owner's side: one keep, opened with its passphrase."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

from modelkeep.core.artifact import (
    Canary,
    Manifest,
    parsed_reference,
)
from modelkeep.core.entry import Fact
from modelkeep.core.errors import UsageError
from modelkeep.core.verdict import Verdict
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.secret import Secret
from modelkeep.flows.admit import Admitted, Candidate, admitted, scanned
from modelkeep.flows.backup import BackupReport, backed_up
from modelkeep.flows.canary import parsed_canary
from modelkeep.flows.check import CheckReport, checked
from modelkeep.flows.keep import OpenKeep, record
from modelkeep.flows.registry import (
    ModelSummary,
    loaded,
    manifest_of,
    model_summaries,
    set_alias,
)
from modelkeep.opening import open_keep
from modelkeep.ports.keyholder import PASSPHRASE, Means
from modelkeep.scan.settings import ScanSettings
from modelkeep.sdk.access import Access
from modelkeep.sdk.creation import create_keep
from modelkeep.sdk.files import mapped, private_copy
from modelkeep.sdk.keys import Keys
from modelkeep.sdk.ledger import Ledger
from modelkeep.sdk.service import Service
from modelkeep.wiring import (
    KeepFolder,
    Warn,
    World,
    is_served,
    removed_state,
    write_file,
)

DEFAULT_ACTOR = "sdk"


class Keep:
    """A keep that is open for reading and writing, by one process at a time.

    Args:
        path: the keep's folder.
        passphrase: opens the root, where `[keys] source` is `passphrase`.
        means: opens the root in another way: another key source, shares, an escrow key.
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
        passphrase: str | Secret | None = None,
        means: Means | None = None,
        actor: str = DEFAULT_ACTOR,
        warn: Warn = lambda _: None,
        world: World | None = None,
    ) -> None:
        self.folder = _folder(path, world)
        self.means = means or means_of(passphrase)
        self._stack = ExitStack()
        self._open, self.config = self._stack.enter_context(
            open_keep(self.folder, self.means, actor=actor, warn=warn)
        )

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        passphrase: str | Secret | None = None,
        means: Means | None = None,
        stores: Mapping[str, str | Path] | None = None,
        host: str = "127.0.0.1",
        port: int = 8443,
        argon2: Argon2Settings | None = None,
        actor: str = DEFAULT_ACTOR,
        world: World | None = None,
    ) -> Self:
        """Make a keep and open it.

        Args:
            means: what will hold the root, where it is not the passphrase.
            stores: further stores by label; backups go to them.

        Raises:
            UsageError: `keep.exists` or `keep.store_taken`.
        """
        means = means or means_of(passphrase)
        means = replace(means, source=means.source or PASSPHRASE, argon2=argon2 or Argon2Settings())
        folder = _folder(path, world)
        create_keep(folder, means, stores or {}, host=host, port=port)
        return cls(path, means=means, actor=actor, world=world)

    @property
    def keep_id(self) -> str:
        """16 hex digits that name this keep."""
        return self._open.keep_id

    @property
    def access(self) -> Access:
        """Who may do what: API keys, principals, roles, tenants, approvals."""
        return Access(self._open, self.config.approvals, self.await_gateway)

    @property
    def keys(self) -> Keys:
        """Who holds the root, and the keys of domains."""
        return Keys(self)

    @property
    def ledger(self) -> Ledger:
        """What happened."""
        return Ledger(self._open, self.folder, self.config.approvals)

    @property
    def opened(self) -> OpenKeep:
        """What the flows work on."""
        return self._open

    def adopt(self, changed: OpenKeep) -> None:
        """Go on with what a flow made of this keep."""
        self._open = changed

    @classmethod
    def rebuild_state(
        cls,
        path: str | Path,
        *,
        passphrase: str | Secret | None = None,
        means: Means | None = None,
        actor: str = DEFAULT_ACTOR,
    ) -> Self:
        """Make State anew from the ledger, and open the keep.

        Raises:
            UnavailableError: `state.served`, while a gateway reads it.
        """
        chosen = means or means_of(passphrase)
        removed_state(KeepFolder(Path(path)), chosen)
        return cls(path, means=chosen, actor=actor)

    def admit(
        self,
        file: str | Path,
        *,
        name: str,
        domain: str = "",
        canary: Canary | str | Path | None = None,
        base: str = "",
        note: str = "",
        progress: Callable[[int], None] = lambda _: None,
    ) -> Admitted:
        """Let a model in: scan, sign, seal, store, register as the next version.

        Args:
            domain: whose key it is kept under; by default that of the version before, or `default`.

        Raises:
            RefusedError: `verdict.hold` or `verdict.deny`.
            MissingError: `keys.domain`.
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
                    domain=domain,
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
            logs=self.ledger.verify(repair=repair),
            progress=progress,
        )

    def record_drill(self, facts: Mapping[str, Fact]) -> int:
        """Record what a recovery or its rehearsal came to."""
        return record(self._open, "drill.measured", dict(facts))

    def serve(self) -> Service:
        """Start the service as a child of this process; the keep is closed first."""
        self.close()
        return Service(self.folder.path, self.means)

    def close(self) -> None:
        """Publish what was recorded, release the keep; idempotent."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def await_gateway(self) -> None:
        """Give a running gateway the time in which it reads State again."""
        if is_served(self.folder):
            time.sleep(2 * self.config.gate.tokens_reload_s)


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


def means_of(passphrase: str | Secret | None, source: str = "") -> Means:
    """What a keep is opened with; the source that modelkeep.toml names unless one is given."""
    if isinstance(passphrase, str):
        passphrase = Secret(passphrase.encode())
    return Means(source=source, passphrase=passphrase)
