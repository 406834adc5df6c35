"""The owner's view of keys: who holds the root, which domains there are, and their whole life."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from modelkeep.config import with_source
from modelkeep.core.entry import Fact
from modelkeep.core.errors import UsageError
from modelkeep.core.record import replaced
from modelkeep.core.rows import DEFAULT_TENANT, DomainStatus
from modelkeep.crypto.columns import ColumnKeys
from modelkeep.crypto.keyring import ESCROW, SHARES
from modelkeep.crypto.recipients import parsed_recipient
from modelkeep.crypto.secret import Secret
from modelkeep.flows.approvals import demand_approval
from modelkeep.flows.keys import (
    Doomed,
    KeyFacts,
    Shredded,
    destroyed,
    doomed,
    key_facts,
    rotated,
    set_domain_status,
    with_columns,
    with_new_domains,
    with_recipient,
    without_recipients,
)
from modelkeep.flows.rekey import rekeyed
from modelkeep.ports.keyholder import Means, RootRecipient
from modelkeep.wiring import read_config, write_file

if TYPE_CHECKING:
    from modelkeep.sdk.keep import Keep


class Keys:
    """The keys of an open keep; `split` gives words out and `columns` keys, nothing else does."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep

    def list(self) -> KeyFacts:
        """Who holds the root, and every domain with its models."""
        return key_facts(self._keep.opened)

    def new(self, *names: str, tenant: str = DEFAULT_TENANT) -> None:
        """Make domains; those that exist stay as they are.

        Raises:
            UsageError: `keys.domain_name`.
            RefusedError: `keys.destroyed_name`.
        """
        self._keep.adopt(with_new_domains(self._keep.opened, names, tenant=tenant))

    def rotate(self, *, source: str = "", passphrase: str | Secret | None = None) -> None:
        """Give a new root to a key source: the same one, or another; seconds for any size.

        modelkeep.toml is changed where it names another source.

        Args:
            source: its reference; empty for the one that modelkeep.toml names.
            passphrase: the new one, where the source is a passphrase.

        Raises:
            RefusedError: `approval.needed`; not where shares or an escrow key opened the keep,
                which took others already.
        """
        secret = Secret(passphrase.encode()) if isinstance(passphrase, str) else passphrase
        if secret is not None and len(secret) == 0:
            raise UsageError("passphrase.length", "the new passphrase is empty")
        chosen = source or self._keep.config.keys.source
        means = self._keep.means
        if not means.words and means.identity is None:
            self._demand_approval("keys.rotate", chosen)
        self._keep.adopt(rotated(self._keep.opened, source=chosen, passphrase=secret))
        self._keep.means = Means(
            source=chosen, passphrase=secret or means.passphrase, argon2=means.argon2
        )
        config, text = read_config(self._keep.folder)
        if config.keys.source != chosen:
            changed = with_source(text.decode(), chosen).encode()
            write_file(self._keep.folder.world.disk, self._keep.folder.config_path, changed)
            self._keep.config = replaced(config, keys=replaced(config.keys, source=chosen))

    def rekey(
        self,
        domain: str,
        *,
        keep_old: bool = False,
        progress: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Encrypt a whole domain anew under a new key; return how many artifacts that were.

        Args:
            keep_old: the old key still reads, until the next call: for encrypted columns.

        Raises:
            UnavailableError: `keys.rekey`; the same call goes on.
        """
        self._demand_approval("keys.rekey", domain, keep_old=keep_old)
        done = rekeyed(
            self._keep.opened,
            domain,
            vault=self._keep.config.vault,
            keep_old=keep_old,
            progress=progress,
        )
        self._keep.adopt(done.keep)
        return done.artifacts

    def columns(self, domain: str) -> ColumnKeys:
        """Keys for encrypted columns of a database, from a domain of their own.

        They live and die with the domain: make one for each database. After a rekey with
        `keep_old` both keys are in the ring: rotate the columns, then rekey once more.

        Raises:
            MissingError: `keys.domain`.
        """
        with_columns(self._keep.opened, domain)
        domains = self._keep.opened.domains
        return ColumnKeys(
            newest=domains.named(domain).key_id,
            secrets={each.key_id: each.columns for each in domains.all_of(domain)},
        )

    def revoke(self, domain: str) -> None:
        """Refuse every call for a domain's models, in a running gateway within a second."""
        self._demand_approval("keys.revoke", domain)
        set_domain_status(self._keep.opened, domain, DomainStatus.REVOKED)
        self._keep.await_gateway()

    def restore(self, domain: str) -> None:
        """Undo `revoke`."""
        set_domain_status(self._keep.opened, domain, DomainStatus.LIVE)
        self._keep.await_gateway()

    def doomed(self, domain: str) -> Doomed:
        """What `destroy` would destroy; nothing is changed."""
        return doomed(self._keep.opened, domain)

    def destroy(self, domain: str) -> Shredded:
        """Destroy a domain's key and everything under it, in every store that answers.

        There is no way back.
        """
        models = doomed(self._keep.opened, domain).models
        self._demand_approval("keys.destroy", domain, models=models)
        done = destroyed(self._keep.opened, domain)
        self._keep.adopt(done.keep)
        self._keep.backup()
        self._keep.await_gateway()
        return done

    def split(
        self,
        *,
        needed: int,
        shares: int,
        hand_out: Callable[[tuple[str, ...]], None] = lambda _: None,
    ) -> tuple[str, ...]:
        """Make a recovery key in shares; earlier shares open nothing any more.

        Args:
            hand_out: takes the words before anything changes: if that fails, earlier shares stay.

        Returns:
            One line of SLIP-39 words per share; they exist nowhere else.

        Raises:
            UsageError: `keys.split`.
        """
        self._demand_approval("keys.split", f"{needed} of {shares} shares")
        made = self._keep.opened.ring.keyholder.split(threshold=needed, total=shares)
        hand_out(made.words)
        added = RootRecipient(kind=SHARES, text=made.recipient, note=f"{needed} of {shares} shares")
        self._keep.adopt(with_recipient(self._keep.opened, added))
        return made.words

    def escrow(self, recipient: str, *, note: str = "") -> None:
        """Seal the root to a public key (`mkr1…`); its owner can bring the keep back.

        Raises:
            UsageError: `recipient.text`.
        """
        text = str(parsed_recipient(recipient))
        self._demand_approval("keys.escrow", text)
        added = RootRecipient(kind=ESCROW, text=text, note=note)
        self._keep.adopt(with_recipient(self._keep.opened, added))

    def drop(self, kind: str, *, recipient: str = "") -> None:
        """A new root that shares (`shares`) or escrow recipients (`escrow`) do not open.

        Raises:
            MissingError: `keys.recipient`.
        """
        self._demand_approval("keys.revoke", f"{kind} {recipient}".strip())
        self._keep.adopt(without_recipients(self._keep.opened, kind, text=recipient))

    def _demand_approval(self, verb: str, subject: str, **details: Fact) -> None:
        demand_approval(
            self._keep.opened,
            self._keep.config.approvals,
            verb=verb,
            subject=subject,
            details=details,
        )
