"""The owner's side: one keep, opened with its passphrase."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

from modelkeep.adapters.memory_file import OwnMemory
from modelkeep.adapters.upload_mark import uploading
from modelkeep.core.artifact import Canary, Manifest, parsed_reference
from modelkeep.core.card import Card
from modelkeep.core.entry import Fact
from modelkeep.core.errors import KeepError, UsageError
from modelkeep.core.policy import Policy
from modelkeep.core.verdict import Verdict
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.secret import Secret
from modelkeep.flows.admit import Admitted, admitted
from modelkeep.flows.backup import BackupReport, backed_up
from modelkeep.flows.check import CheckReport, checked
from modelkeep.flows.keep import OpenKeep, record
from modelkeep.flows.marking import marked_files
from modelkeep.flows.registry import ModelSummary, manifest_of, model_summaries
from modelkeep.flows.restore import FileFacts, listed, streamed_file
from modelkeep.flows.save import Saved, saved
from modelkeep.flows.versions import aliased, warnings_for
from modelkeep.opening import open_keep
from modelkeep.ports.keyholder import PASSPHRASE, Keyholder, Means
from modelkeep.scan.settings import ScanSettings
from modelkeep.sdk.access import Access
from modelkeep.sdk.contents import Warm, candidate_of, restored_to, tree_of
from modelkeep.sdk.creation import create_keep
from modelkeep.sdk.dependencies import assessor
from modelkeep.sdk.keys import Keys
from modelkeep.sdk.ledger import Ledger
from modelkeep.sdk.loading import Loaded, load
from modelkeep.sdk.papers import card_of, policy_of
from modelkeep.sdk.proofs import NO_PAPERS, Papers, canary_of, declared_of
from modelkeep.sdk.scanning import scanned_file
from modelkeep.sdk.service import Service
from modelkeep.sdk.upkeep import upload_mark_of
from modelkeep.wiring import (
    KeepFolder,
    Warn,
    World,
    canary_trial,
    is_served,
    keyholder_of,
    removed_state,
    scanner,
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
        keyholder: one that was started already; it is not ended with the keep.

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
        keyholder: Keyholder | None = None,
    ) -> None:
        self.folder = _folder(path, world)
        self.means = means or means_of(passphrase)
        self._actor = actor
        self._warn = warn
        self._warm = Warm()
        self._stack = ExitStack()
        self._reopen(keyholder)

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
        encoding: str = "",
        argon2: Argon2Settings | None = None,
        actor: str = DEFAULT_ACTOR,
        world: World | None = None,
    ) -> Self:
        """Make a keep and open it.

        Args:
            means: what will hold the root, where it is not the passphrase.
            stores: further stores by label, folders or addresses; backups go to them.
            encoding: `fast` or `small`, of the first store; empty: fast.

        Raises:
            UsageError: `keep.exists` or `keep.store_taken`.
        """
        means = means or means_of(passphrase)
        means = replace(means, source=means.source or PASSPHRASE, argon2=argon2 or Argon2Settings())
        folder = _folder(path, world)
        create_keep(folder, means, stores or {}, host=host, port=port, encoding=encoding)
        return cls(path, means=means, actor=actor, world=world)

    def _reopen(self, keyholder: Keyholder | None = None) -> None:
        self._open, self.config = self._stack.enter_context(
            open_keep(
                self.folder,
                self.means,
                actor=self._actor,
                warn=self._warn,
                keyholder=keyholder,
            )
        )

    @property
    def keep_id(self) -> str:
        """16 hex digits that name this keep."""
        return self._open.keep_id

    @property
    def access(self) -> Access:
        """Who may do what: API keys, principals, roles, tenants, approvals."""
        return Access(self._open, self.config.approvals, self.await_gateway, self.config.identity)

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

    @contextmanager
    def released(self) -> Iterator[None]:
        """Let other commands change the keep meanwhile; afterwards it is open again.

        A prune then spares what nothing names yet. An error leaves the keep open too; Ctrl-C leaves
        it closed.

        Raises:
            KeepError: when it cannot be opened again, such as `lock.held` or `keys.passphrase`.
        """
        with uploading(upload_mark_of(self.folder)), ExitStack() as ahead:
            self.close()
            keyholder = keyholder_of(self.folder, self.means, self.config)  # it loads meanwhile
            ahead.callback(keyholder.close)
            try:
                yield
            except KeepError:
                self._stack.enter_context(ahead.pop_all())
                self._reopen(keyholder)
                raise
            self._stack.enter_context(ahead.pop_all())
            self._reopen(keyholder)

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
        path: str | Path,
        *,
        name: str,
        domain: str = "",
        canary: Canary | str | Path | None = None,
        base: str = "",
        note: str = "",
        policy: Policy | str | Path | None = None,
        card: Card | str | Path | None = None,
        marks: Sequence[str] = (),
        papers: Papers = NO_PAPERS,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Admitted:
        """Let a model in: scan, sign, seal, store, register as the next version.

        Args:
            path: its file, or a folder of which every file is scanned: sharded weights, external
                data. While much is written, other commands may change the keep.
            domain: whose key it is kept under; by default that of the version before, or `default`.
            policy: what may be done with it, or a TOML file that says so; by default what the
                version before permits.
            card: what is to be said of it, or a TOML file with that.
            marks: registered watermarks; one in weights is embedded, the others are named.
            papers: what proves where it is from: signature, digests, bills of materials.

        Raises:
            RefusedError: `verdict.hold` or `verdict.deny`; what is held waits in `held`.
            MissingError: `keys.domain`; `mark.unknown`.
            UsageError: when a file or the name is no good; `file.changed`, when somebody wrote
                into one meanwhile.
            IntegrityError: `advisories.*`, `bom.form`.
        """
        if base:
            parsed_reference(base)
        judges = scanner()
        judges.start()  # it loads meanwhile
        asked = candidate_of(
            Path(path),
            self.folder,
            self._warn,
            name=name,
            domain=domain,
            canary=canary_of(canary),
            base=base,
            note=note,
            policy=None if policy is None else policy_of(policy),
            card=card_of(card),
            marks=tuple(marks),
            claims=papers.claims(Path(path), self.config.admission),
        )
        with asked as candidate:
            has_canary = candidate.canary is not None
            files = marked_files(self.opened, marks, candidate.files, has_canary=has_canary)
            return admitted(
                self,
                replace(candidate, files=files, declared=declared_of(papers.schema)),
                vault=self.config.vault,
                scan=self.config.scan,
                scanner=judges,
                admission=self.config.admission,
                assess=assessor(self.folder, self.config.advisories),
                trial=canary_trial(),
                progress=progress,
            )

    def save(
        self,
        path: str | Path,
        *,
        name: str,
        domain: str = "",
        base: str = "",
        note: str = "",
        progress: Callable[[int], None] = lambda _: None,
    ) -> Saved:
        """Keep files that are no model as the next version of a name: a file, or a folder.

        Nothing is scanned. Files with the times that they had in the version before are not read.
        While much is written, other commands may change the keep.

        Raises:
            MissingError: `file.missing`, `keys.domain`.
            UsageError: `save.*`, `tree.*`; `file.changed`, when somebody wrote into a file
                meanwhile.
        """
        return saved(
            self,
            tree_of(Path(path), self.folder, self._warn),
            name=name,
            domain=domain,
            base=base,
            note=note,
            vault=self.config.vault,
            progress=progress,
        )

    def models(self) -> tuple[ModelSummary, ...]:
        """Every model version with its aliases."""
        return model_summaries(self._open)

    def manifest(self, reference: str) -> Manifest:
        """The verified manifest of one model version."""
        return manifest_of(self._open, parsed_reference(reference))

    def set_alias(self, alias: str, version: str | int) -> int:
        """Point `name:alias` at a version (or at another alias of the same model).

        Raises:
            RefusedError: `approval.needed`, where promotions need approval.
        """
        named = parsed_reference(alias)
        if not named.selector:
            raise UsageError("model.alias", f"{alias!r} is no alias", hint="write NAME:ALIAS")
        target = parsed_reference(f"{named.name}:{version}")
        approvals = self.config.approvals
        return aliased(self._open, target, named.selector, approvals=approvals).version

    def files(self, reference: str) -> tuple[FileFacts, ...]:
        """What a version is made of: files with their tensors, folders, links."""
        with self._warm.reading(self._open, reference) as (_, found):
            return listed(found)

    def tensor(self, reference: str, path: str, name: str) -> memoryview:
        """The bytes of one tensor, proven against the signed manifest; as for `read`, recorded.

        Args:
            path: of its file; may be empty where only one file has such a tensor.

        Raises:
            MissingError: `model.unknown`, `restore.path` or `tensor.unknown`.
            UsageError: `tensor.ambiguous`.
            IntegrityError: `model.damaged` or `tensor.digest`.
        """
        return self._warm.tensor(self._open, reference, path, name)

    def read(self, reference: str, path: str, start: int, length: int) -> memoryview:
        """Some bytes of one file, each chunk proven; a version's first read is in the ledger.

        Args:
            path: may be empty where there is only one.

        Raises:
            MissingError: `model.unknown` or `restore.path`.
            UsageError: `restore.range`.
            IntegrityError: `vault.chunk`.
        """
        return self._warm.read(self._open, reference, path, start=start, length=length)

    def load(
        self,
        reference: str,
        *,
        memory: Callable[[int], OwnMemory] = OwnMemory,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Loaded:
        """Load a version into memory of this process, proven; close what comes back.

        Args:
            memory: gives at least so many bytes; by default new memory.

        Raises:
            MissingError: `model.unknown`.
            RefusedError: `policy.*`.
            UnavailableError: `memory.full`.
            IntegrityError: `model.damaged`, `seal.digest`.
        """
        return load(self._open, reference, memory=memory, progress=progress)

    def stream(
        self,
        reference: str,
        path: str,
        write: Callable[[memoryview], object],
        *,
        progress: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Give one file to a function, block by block; return its size in bytes.

        Each block is proven before it is given out; that all of them are the signed file is known
        at the end only.

        Raises:
            MissingError: `model.unknown` or `restore.path`.
            IntegrityError: `model.damaged` or `seal.digest`.
        """
        wanted = parsed_reference(reference)
        return streamed_file(self._open, wanted, path, write, progress=progress)

    def restore(
        self,
        reference: str,
        to: str | Path,
        *,
        path: str = "",
        tensor: str = "",
        force: bool = False,
        progress: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Write a version's plaintext to a file or a folder, whole or not at all; its bytes.

        Args:
            path: of a file or a folder in it: that part only.
            tensor: this tensor only: its raw bytes, or as a file of NumPy or safetensors if the
                name of the target ends in .npy or .safetensors.
            force: replace a file of that name.

        Raises:
            MissingError: `model.unknown`, `restore.path` or `tensor.unknown`.
            UsageError: `restore.exists`, `tensor.ambiguous` or `tensor.dtype`.
            IntegrityError: `model.damaged`; the target is then not there.
        """
        for each in warnings_for(self._open, reference):
            self._warn(each)
        return restored_to(
            self._open,
            self.folder,
            reference,
            Path(to),
            path=path,
            tensor=tensor,
            force=force,
            progress=progress,
        )

    def backup(
        self, *, fresh: Collection[str] = (), progress: Callable[[int], None] = lambda _: None
    ) -> tuple[BackupReport, ...]:
        """Bring every other store up to the first one, and check that it holds all it needs.

        Args:
            fresh: labels of stores that may be empty: replacements, filled from nothing.
        """
        return backed_up(self._open, fresh=fresh, vault=self.config.vault, progress=progress)

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
    return scanned_file(Path(path), settings or ScanSettings())


def _folder(path: str | Path, world: World | None) -> KeepFolder:
    return KeepFolder(Path(path)) if world is None else KeepFolder(Path(path), world)


def means_of(passphrase: str | Secret | None, source: str = "") -> Means:
    """What a keep is opened with; the source that modelkeep.toml names unless one is given."""
    if isinstance(passphrase, str):
        passphrase = Secret(passphrase.encode())
    return Means(source=source, passphrase=passphrase)
