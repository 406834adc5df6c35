"""Private facts that can be erased: ciphertext in the entry, its key in an object of its own.

    entry      facts  value = <id>   private = names   sealed = base64 of
                      blob(value key, JSON of the private facts, purpose "ledger-value/<id>")
    store      value/<2 hex>/<id>    blob(HKDF(body key, "ledger-value-keys"), value key,
                                     purpose "value/<id>")
               erased/<2 hex>/<id>   Ed25519 of the keep over "erased <id>": the key is never to
                                     come back

The value key is 32 fresh random bytes. Its id is derived from it, so an entry commits to the one
key that opens it and no other key can be put in its place. The entry, and with it the leaf, never
changes: when every copy of the key is gone the content is gone, and every proof still holds.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass

from modelkeep.core.entry import Entry, Fact
from modelkeep.core.errors import IntegrityError
from modelkeep.core.names import checked_object_name
from modelkeep.core.record import Record, from_json, to_json
from modelkeep.crypto.aead import opened_blob, sealed_blob
from modelkeep.crypto.kdf import KEY_BYTES, SALT_BYTES, derived_key
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer, verify
from modelkeep.ledger.checkpoint import decoded_base64

VALUE_KIND = "value"
ERASED_KIND = "erased"
# Facts that an entry with private facts has, and that nobody may name a fact of their own.
VALUE_FACT = "value"
SEALED_FACT = "sealed"
NAMES_FACT = "private"
RESERVED_FACTS = (VALUE_FACT, SEALED_FACT, NAMES_FACT)
RANDOM_BYTES = KEY_BYTES + 2 * SALT_BYTES

_ID = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(rf"(?P<kind>{VALUE_KIND}|{ERASED_KIND})/(?P<two>[0-9a-f]{{2}})/(?P<id>.+)")
_CONTEXT = "value/erased"


class _Private(Record, frozen=True):
    facts: dict[str, Fact]


@dataclass(frozen=True, slots=True)
class SealedValue:
    """Private facts, sealed.

    Attributes:
        facts: what the entry holds of them.
        kept_key: the bytes of the object that holds their key.
    """

    value_id: str
    facts: dict[str, Fact]
    kept_key: bytes


def sealed_value(facts: Mapping[str, Fact], *, body_key: Secret, random: bytes) -> SealedValue:
    """Seal private facts; `random` is RANDOM_BYTES fresh random bytes."""
    if len(random) != RANDOM_BYTES:
        raise AssertionError("a value takes a key and two salts")
    key = Secret(random[:KEY_BYTES])
    value_id = _id_of(key)
    sealed = sealed_blob(
        key,
        to_json(_Private(facts=dict(facts))),
        purpose=f"ledger-value/{value_id}",
        salt=random[KEY_BYTES : KEY_BYTES + SALT_BYTES],
    )
    kept = sealed_blob(
        _keys_key(body_key),
        key.reveal(),
        purpose=value_name(value_id),
        salt=random[KEY_BYTES + SALT_BYTES :],
    )
    text = base64.b64encode(sealed).decode()
    shown: dict[str, Fact] = {
        VALUE_FACT: value_id,
        NAMES_FACT: tuple(facts),
        SEALED_FACT: text,
    }
    return SealedValue(value_id, shown, kept)


def value_of(entry: Entry) -> str:
    """The id of an entry's private facts; empty when it has none."""
    value_id = entry.facts.get(VALUE_FACT)
    is_id = isinstance(value_id, str) and SEALED_FACT in entry.facts
    return value_id if is_id and isinstance(value_id, str) and _ID.fullmatch(value_id) else ""


def private_names(entry: Entry) -> tuple[str, ...]:
    """The names of an entry's private facts."""
    names = entry.facts.get(NAMES_FACT)
    return names if isinstance(names, tuple) else ()


def opened_value(entry: Entry, kept_key: bytes, *, body_key: Secret) -> dict[str, Fact]:
    """The private facts of an entry, with the object that holds their key.

    Raises:
        IntegrityError: `ledger.value`, `aead.*` or `record.json`.
    """
    value_id = value_of(entry)
    key = _opened_key(value_id, kept_key, body_key)
    sealed = decoded_base64(str(entry.facts[SEALED_FACT]))
    if sealed is None:
        raise IntegrityError("ledger.value", "the private facts of an entry are malformed")
    plain = opened_blob(key, sealed, purpose=f"ledger-value/{value_id}")
    return from_json(_Private, plain, what="private facts").facts


def value_name(value_id: str) -> str:
    """The object that holds a value's key."""
    return checked_object_name(f"{VALUE_KIND}/{value_id[:2]}/{value_id}")


def erased_name(value_id: str) -> str:
    """The object that says that a value's key is never to come back."""
    return checked_object_name(f"{ERASED_KIND}/{value_id[:2]}/{value_id}")


def parsed_value_name(name: str) -> tuple[str, str]:
    """Kind and id in such a name; empty texts when it is none."""
    match = _NAME.fullmatch(name)
    if match is None or _ID.fullmatch(match["id"]) is None or match["id"][:2] != match["two"]:
        return "", ""
    return match["kind"], match["id"]


def erasure(value_id: str, *, signer: Signer) -> bytes:
    """The bytes of the object that says that a value is erased; the same each time."""
    return signer.sign(f"erased {value_id}".encode(), context=_CONTEXT)


def demand_value(name: str, raw: bytes, *, body_key: Secret, public: bytes) -> None:
    """Check an object of either kind: it is what its name says, made by this keep.

    Raises:
        IntegrityError: `ledger.value`, `aead.*` or `signature.bad`.
    """
    kind, value_id = parsed_value_name(name)
    if kind == VALUE_KIND:
        _opened_key(value_id, raw, body_key)
    elif kind == ERASED_KIND:
        verify(raw, f"erased {value_id}".encode(), context=_CONTEXT, public=public)
    else:
        raise IntegrityError("ledger.value", f"{name[:200]} names no value", object=name)


def _opened_key(value_id: str, raw: bytes, body_key: Secret) -> Secret:
    key = Secret(opened_blob(_keys_key(body_key), raw, purpose=value_name(value_id)))
    if len(key) != KEY_BYTES or _id_of(key) != value_id:
        raise IntegrityError("ledger.value", f"the key of value {value_id} is another one")
    return key


def _id_of(key: Secret) -> str:
    return derived_key(key, "ledger-value-id").reveal().hex()


def _keys_key(body_key: Secret) -> Secret:
    return derived_key(body_key, "ledger-value-keys")
