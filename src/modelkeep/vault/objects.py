r"""Small signed objects: sealed ones named by their own digest, and numbered series.

    sealed object   "mkobjv0\n" || salt(32) || AES-256-GCM(body) || Ed25519(64)
                    named <kind>/<key id>/<2 hex>/<64 hex>, the BLAKE3 digest of all of its bytes
    series member   one line of JSON with its number inside, then one line
                    "ed25519 <public key hex> <signature hex>"
                    named <kind>/<12 digits>; the highest valid number counts

The signature covers exact stored bytes and is bound to the kind, so an object cannot be taken for
one of another kind; the number inside keeps a member from being replayed under a higher name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from modelkeep.core.errors import IntegrityError, MissingError, UnavailableError
from modelkeep.core.names import content_name, series_name, series_number
from modelkeep.core.record import Record, from_json, to_json
from modelkeep.crypto.aead import opened_blob, sealed_blob
from modelkeep.crypto.hierarchy import DomainKeys
from modelkeep.crypto.signatures import SIGNATURE_BYTES, Signer, verify
from modelkeep.kernels.digest import hex_of
from modelkeep.ports.note_signer import NoteSigner
from modelkeep.ports.store import Store

_MAGIC = b"mkobjv0\n"
# The longest is a copy of modelkeep.toml, which has at most 1 MiB before it is sealed.
MEMBER_BYTES_MAX = 4 * 1024 * 1024
_SIGNATURE_LINE_BYTES = len("ed25519 ") + 64 + 1 + 128 + 1


class Numbered(Record, frozen=True):
    """A member of a numbered series."""

    number: int


N = TypeVar("N", bound=Numbered)


@dataclass(frozen=True, slots=True)
class Latest(Generic[N]):
    """The member of a series that counts, and the higher ones that were skipped as invalid."""

    member: N
    skipped: tuple[str, ...]


def sealed_object(
    kind: str, body: bytes, *, domain: DomainKeys, signer: Signer, salt: bytes
) -> tuple[str, bytes]:
    """Encrypt and sign a small object; return its name and its bytes."""
    blob = sealed_blob(domain.blobs, body, purpose=f"{kind}:{domain.name}", salt=salt)
    raw = _MAGIC + blob + signer.sign(blob, context=f"object/{kind}")
    return content_name(kind, domain.key_id, hex_of(raw)), raw


def opened_object(name: str, raw: bytes, *, kind: str, domain: DomainKeys, public: bytes) -> bytes:
    """Check and decrypt what `sealed_object` made.

    1. The bytes hash to the name. 2. The signature verifies for this kind. 3. The tag verifies.

    Raises:
        IntegrityError: `vault.digest`, `vault.object`, `signature.bad` or `aead.*`.
    """
    demand_digest(name, raw)  # 1
    if not raw.startswith(_MAGIC) or len(raw) < len(_MAGIC) + SIGNATURE_BYTES:
        raise IntegrityError("vault.object", f"{name} is not a sealed object", object=name)
    blob = raw[len(_MAGIC) : -SIGNATURE_BYTES]
    verify(raw[-SIGNATURE_BYTES:], blob, context=f"object/{kind}", public=public)  # 2
    return opened_blob(domain.blobs, blob, purpose=f"{kind}:{domain.name}")  # 3


def demand_digest(name: str, raw: bytes | memoryview) -> None:
    """Check that an object's bytes hash to its name.

    Raises:
        IntegrityError: `vault.digest`.
    """
    wanted = name.rpartition("/")[2]
    got = hex_of(raw)
    if got != wanted:
        raise IntegrityError(
            "vault.digest",
            f"{name} is damaged: its bytes do not hash to its name",
            hint="run `modelkeep check --repair`",
            object=name,
            wanted=wanted,
            got=got,
        )


def series_member(kind: str, record: Numbered, *, signer: NoteSigner) -> tuple[str, bytes]:
    """Sign a member of a series; return its name and its bytes."""
    payload = to_json(record) + b"\n"
    signature = signer.sign(payload, context=f"series/{kind}")
    line = f"ed25519 {signer.public.hex()} {signature.hex()}\n".encode()
    return series_name(kind, record.number), payload + line


def opened_member(type_: type[N], name: str, raw: bytes, *, kind: str, public: bytes) -> N:
    """Check a member of a series: signature first, then the record, then its number.

    Raises:
        IntegrityError: `series.form`, `signature.bad`, `record.json` or `series.number`.
    """
    payload, line = raw[:-_SIGNATURE_LINE_BYTES], raw[-_SIGNATURE_LINE_BYTES:]
    fields = line.split(b" ")
    form = len(fields) == 3 and fields[0] == b"ed25519" and line.endswith(b"\n")
    if not form or fields[1] != public.hex().encode():
        raise IntegrityError("series.form", f"{name} is not signed by this keep", object=name)
    verify(_signature(fields[2]), payload, context=f"series/{kind}", public=public)
    record = from_json(type_, payload, what=name)
    if record.number != series_number(name):
        raise IntegrityError(
            "series.number", f"{name} holds number {record.number}: it was moved", object=name
        )
    return record


def unverified_member(type_: type[N], name: str, raw: bytes) -> N:
    """Decode a member before any key is known; its caller must verify it once there is one.

    Raises:
        IntegrityError: `record.json`.
    """
    return from_json(type_, raw[:-_SIGNATURE_LINE_BYTES], what=name)


def member_names(store: Store, kind: str) -> list[str]:
    """Names of a series' members, highest number first."""
    names = [stat.name for stat in store.list(kind + "/") if series_number(stat.name) >= 0]
    return sorted(names, reverse=True)


def latest(type_: type[N], store: Store, kind: str, *, public: bytes) -> Latest[N]:
    """The highest valid member of a series; invalid ones are skipped and named.

    Raises:
        MissingError: `series.none`, when no member is valid.
    """
    skipped: list[str] = []
    for name in member_names(store, kind):
        try:
            raw = store.get(name, length=MEMBER_BYTES_MAX + 1)  # a longer one fails its signature
            member = opened_member(type_, name, raw, kind=kind, public=public)
        except (IntegrityError, UnavailableError):
            skipped.append(name)
            continue
        return Latest(member=member, skipped=tuple(skipped))
    raise MissingError(
        "series.none", f"{store.label} holds no valid {kind}", store=store.label, skipped=skipped
    )


def _signature(field: bytes) -> bytes:
    """Decode a signature in its one form: `bytes.fromhex` alone would take upper case too."""
    try:
        signature = bytes.fromhex(field.decode("ascii"))
    except ValueError:
        signature = b""
    if signature.hex().encode() + b"\n" != field:
        raise IntegrityError("series.form", "a signature line is malformed")
    return signature
