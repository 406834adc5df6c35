"""Passwords of registered principals: set, removed, and checked at the same cost for everybody.

What the keep remembers is HMAC-SHA-256, under a key that is derived from the keep's own, of
Argon2id of the password. So who reads State or an export of the ledger cannot test a guess, and
who also has that key (a gateway) can test as many as Argon2id lets them. Keep and gateway derive
the key from the one that commitments are made with.

Setting a password, the same one too, ends all tokens that were given for the one before.
"""

from __future__ import annotations

import hmac

from modelkeep.core.errors import UsageError
from modelkeep.core.rows import Account
from modelkeep.crypto.kdf import SALT_BYTES, Argon2Settings, derived_key, key_from_passphrase
from modelkeep.crypto.secret import Secret
from modelkeep.flows.keep import OpenKeep, record
from modelkeep.flows.principals import known_principal

PASSWORD_BYTES_MIN = 12
PASSWORD_BYTES_MAX = 1024
_PASSWORD_ID_BYTES = 8


def password_key(commitments: Secret) -> Secret:
    """The key without which what is remembered of a password is of no use."""
    return derived_key(commitments, "account-passwords")


def verifier_of(password: Secret, *, salt: bytes, cost: Argon2Settings, key: Secret) -> bytes:
    """What is remembered of a password; takes as long as `cost` says."""
    stretched = key_from_passphrase(password, salt=salt, settings=cost)
    return hmac.digest(key.reveal(), stretched.reveal(), "sha256")


def set_password(keep: OpenKeep, name: str, password: Secret, *, cost: Argon2Settings) -> Account:
    """Give a registered principal a password in place of the one it has.

    Raises:
        MissingError: `principal.unknown`.
        UsageError: `account.password`.
    """
    known_principal(keep, name)
    if not PASSWORD_BYTES_MIN <= len(password) <= PASSWORD_BYTES_MAX:
        raise UsageError(
            "account.password",
            f"a password has {PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX} bytes",
            hint="`openssl rand -base64 24` makes one that nobody guesses",
        )
    salt = keep.entropy.random_bytes(SALT_BYTES)
    key = password_key(keep.keys.commitments)
    account = Account(
        principal=name,
        password_id=keep.entropy.random_bytes(_PASSWORD_ID_BYTES).hex(),
        salt=salt.hex(),
        verifier=verifier_of(password, salt=salt, cost=cost, key=key).hex(),
        memory_kib=cost.memory_kib,
        passes=cost.passes,
        lanes=cost.lanes,
    )
    names = account.__struct_fields__
    record(keep, "account.password", {each: getattr(account, each) for each in names})
    return account


def removed_password(keep: OpenKeep, name: str) -> bool:
    """Take a principal's password away; say whether there was one.

    Raises:
        MissingError: `principal.unknown`.
    """
    known_principal(keep, name)
    if name not in (each.principal for each in keep.state.rows(Account)):
        return False
    record(keep, "account.removed", {"principal": name})
    return True
