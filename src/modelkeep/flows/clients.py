"""Clients of the inbox: machines that may hand things in, added with an expiry, revoked for good.

Adding and revoking are ledger entries, then State. What a client may do is read in State when
something of it is accepted; its certificate only lets it, and others, know before.
"""

from __future__ import annotations

from modelkeep.core.artifact import is_model_name
from modelkeep.core.errors import MissingError, UsageError
from modelkeep.core.rows import InboxClient
from modelkeep.crypto.kdf import KEY_BYTES, derived_key
from modelkeep.crypto.recipients import Identity
from modelkeep.crypto.secret import Secret
from modelkeep.flows.keep import OpenKeep, record
from modelkeep.vault.client_file import (
    MAY_SUBMIT,
    Certificate,
    certified,
    client_file,
    client_id_of,
    client_signer,
)

EXPIRES_NS_END = 2**63  # what others keep in 64 signed bits
# 1 TiB.
SIZE_BYTES_MAX = 2**40


def inbox_identity(keep: OpenKeep) -> Identity:
    """What opens the inbox: it follows from the keep's identity, so nothing more is stored."""
    return Identity(derived_key(Secret(keep.ring.body.identity), "keep/inbox"))


def added_client(
    keep: OpenKeep,
    name: str,
    *,
    store: str,
    expires_ns: int,
    size_bytes_max: int = SIZE_BYTES_MAX,
) -> tuple[InboxClient, Secret]:
    """Register a client; its row, and its client file, which exists nowhere else.

    Args:
        store: folder or address of the store whose inbox takes what it hands in.
        expires_ns: 0 for never.
        size_bytes_max: of one submission's files.

    Raises:
        UsageError: `client.name`, `client.exists` or `client.bounds`.
    """
    if not is_model_name(name):
        raise UsageError(
            "client.name",
            f"{name[:120]!r} cannot name a client",
            hint="lower-case letters, digits, '.', '_' and '-', at most 100 characters",
        )
    if not 0 <= expires_ns < EXPIRES_NS_END or not 0 < size_bytes_max <= SIZE_BYTES_MAX:
        raise UsageError(
            "client.bounds",
            "a client's expiry or size is nothing that can be kept",
            hint="a submission has at most 1 TiB",
        )
    if any(each.name == name and not each.revoked for each in clients_of(keep)):
        raise UsageError(
            "client.exists",
            f"there is a client {name}",
            hint="name it otherwise, or `modelkeep clients revoke` that one first",
        )
    seed = Secret(keep.entropy.random_bytes(KEY_BYTES))
    public = client_signer(seed).public
    certificate = Certificate(
        keep_id=keep.keep_id,
        client_id=client_id_of(public),
        name=name,
        public=public,
        may=(MAY_SUBMIT,),
        expires_ns=expires_ns,
        size_bytes_max=size_bytes_max,
    )
    file = client_file(
        certified(certificate, keep.keys.signer),
        keep_id=keep.keep_id,
        keep=keep.public,
        store=store,
        recipient=inbox_identity(keep).recipient,
        seed=seed,
    )
    record(
        keep,
        "client.added",
        {
            "client_id": certificate.client_id,
            "client": name,
            "public": public.hex(),
            "expires_ns": expires_ns,
            "size_bytes_max": size_bytes_max,
        },
    )
    return known_client(keep, certificate.client_id), file


def revoked_client(keep: OpenKeep, name: str) -> InboxClient:
    """Accept nothing more of a client, for good; what was accepted stays. Idempotent.

    Args:
        name: or its id.

    Raises:
        MissingError: `client.unknown`.
    """
    found = known_client(keep, name)
    if not found.revoked:
        facts = {"client_id": found.client_id, "client": found.name}
        record(keep, "client.revoked", {**facts})
    return known_client(keep, found.client_id)


def clients_of(keep: OpenKeep) -> tuple[InboxClient, ...]:
    """All clients, by name."""
    return tuple(sorted(keep.state.rows(InboxClient), key=lambda each: each.name))


def known_client(keep: OpenKeep, name: str) -> InboxClient:
    """The client of this id or name; of several of one name the one that is not revoked.

    Raises:
        MissingError: `client.unknown`.
    """
    named = [each for each in clients_of(keep) if name in (each.client_id, each.name)]
    if not named:
        raise MissingError(
            "client.unknown",
            f"there is no client {name[:120]!r}",
            hint="`modelkeep clients list` shows them, `clients add` makes one",
        )
    return min(named, key=lambda each: (each.client_id != name, each.revoked))
