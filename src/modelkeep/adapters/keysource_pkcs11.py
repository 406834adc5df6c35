"""A KeySource from an HSM over PKCS#11: the key is made inside it and stays there.

The root goes in and comes out encrypted with CKM_AES_GCM under a 256-bit AES key of the token; the
box is `iv(12) || ciphertext || tag(16)`, with a fresh random IV and the label of
`crypto.wrapped_key` as associated data.

There is no fallback for a token without CKM_AES_GCM: the other mechanisms that tokens offer either
do not authenticate (CBC) or bind no purpose and need the root as an object in the token (key
wrap). Such a token is refused with `keysource.mechanism`. A key that is not sensitive, can be
extracted or is not of 256 bits is refused too: it is not what an HSM is for.

A PKCS#11 library is one per process, and so is its login. So each operation takes the process's
lock, initialises the library, logs in, works, and finalises: no session outlives its use, a
process that was forked in between is none the worse, and a wrong PIN is tried once, never again
(tokens lock themselves).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass

from modelkeep.adapters.keysource_errors import forbidden, missing, unavailable, wrong_key
from modelkeep.core.errors import IntegrityError, KeepError, RefusedError, UsageError
from modelkeep.core.reference import Pkcs11Reference
from modelkeep.crypto.aead import NONCE_BYTES, TAG_BYTES
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.wrapped_key import (
    box_of,
    key_of_labelled,
    label_of,
    labelled_key,
    wrapped_bytes,
)
from modelkeep.ports.entropy import Entropy

_KIND = "pkcs11"
_BITS = 256
# The library's state belongs to the process, so its lock does too.
_ONE_AT_A_TIME = threading.Lock()

_NO_SUCH = (pkcs11.NoSuchKey, pkcs11.NoSuchToken)
_AMBIGUOUS = (pkcs11.MultipleObjectsReturned, pkcs11.MultipleTokensReturned)
_REFUSED = (
    pkcs11.PinExpired,
    pkcs11.PinIncorrect,
    pkcs11.PinInvalid,
    pkcs11.PinLenRange,
    pkcs11.PinLocked,
    pkcs11.UserNotLoggedIn,
    pkcs11.UserPinNotInitialized,
)
_NO_MECHANISM = (pkcs11.MechanismInvalid, pkcs11.MechanismParamInvalid, pkcs11.KeySizeRange)


class Pkcs11Source:
    """One AES key of one token."""

    kind = _KIND

    def __init__(
        self, reference: Pkcs11Reference, *, pin: Callable[[], Secret], entropy: Entropy
    ) -> None:
        self._reference = reference
        self._pin = pin
        self._entropy = entropy

    def wrap(self, key: Secret) -> bytes:
        iv = self._entropy.random_bytes(NONCE_BYTES)
        with self._opened() as session:
            sealed = self._key(session).encrypt(
                labelled_key(_KIND, key), mechanism=Mechanism.AES_GCM, mechanism_param=_bound(iv)
            )
        return wrapped_bytes(_KIND, iv + sealed)

    def unwrap(self, wrapped: bytes) -> Secret:
        box = box_of(_KIND, wrapped)
        if len(box) < NONCE_BYTES + TAG_BYTES:
            raise IntegrityError("aead.short", "a sealed object is cut short", got_bytes=len(box))
        with self._opened() as session:
            held = self._key(session)
            try:
                plain = held.decrypt(
                    box[NONCE_BYTES:],
                    mechanism=Mechanism.AES_GCM,
                    mechanism_param=_bound(box[:NONCE_BYTES]),
                )
            except pkcs11.PKCS11Error:
                # Tokens say a wrong tag in many ways, SoftHSM as CKR_GENERAL_ERROR. If the key
                # still encrypts, the token is well, and it was the bytes or the key.
                held.encrypt(
                    b"", mechanism=Mechanism.AES_GCM, mechanism_param=_bound(box[:NONCE_BYTES])
                )
                raise wrong_key(self._where) from None
        return key_of_labelled(_KIND, plain)

    def generate_key(self) -> None:
        """Make the key inside the token: it can never leave it, nor be changed to be able to.

        Raises:
            UsageError: `keysource.exists`, when the token has a key of this label.
            KeepError: as `unwrap`.
        """
        with self._opened(rw=True) as session:
            named = {Attribute.LABEL: self._reference.label}
            if any(True for _ in session.get_objects(named)):
                raise UsageError("keysource.exists", f"{self._where}: there is such a key already")
            session.generate_key(
                KeyType.AES,
                _BITS,
                label=self._reference.label,
                store=True,
                capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
                template={
                    Attribute.PRIVATE: True,
                    Attribute.SENSITIVE: True,
                    Attribute.EXTRACTABLE: False,
                    Attribute.WRAP: False,
                    Attribute.UNWRAP: False,
                    Attribute.MODIFIABLE: False,
                },
            )

    @property
    def _where(self) -> str:
        return f"token {self._reference.token!r}, key {self._reference.label!r}"

    @contextmanager
    def _opened(self, *, rw: bool = False) -> Iterator[pkcs11.Session]:
        """A session of the user; whatever the token says becomes an error of ours."""
        pin = self._pin()
        with _ONE_AT_A_TIME:
            try:
                library = pkcs11.lib(self._reference.library)
            except pkcs11.PKCS11Error:
                raise unavailable(f"the PKCS#11 library {self._reference.library}") from None
            try:
                token = library.get_token(token_label=self._reference.token)
                with token.open(rw=rw, user_pin=pin.reveal().decode()) as session:
                    yield session
            except pkcs11.PKCS11Error as error:
                raise self._translated(error) from None
            finally:
                library.finalize()

    def _key(self, session: pkcs11.Session) -> Any:
        key: Any = session.get_key(
            object_class=ObjectClass.SECRET_KEY,
            key_type=KeyType.AES,
            label=self._reference.label,
        )
        if key[Attribute.EXTRACTABLE] or not key[Attribute.SENSITIVE]:
            raise RefusedError(
                "keysource.extractable",
                f"{self._where}: the key can be taken out of the token",
                hint="make one inside the token that cannot, and rotate to it",
            )
        if key.key_length != _BITS:
            raise RefusedError("keysource.weak", f"{self._where}: the key has not {_BITS} bits")
        return key

    def _translated(self, error: pkcs11.PKCS11Error) -> KeepError:
        if isinstance(error, _NO_SUCH):
            return missing(self._where)
        if isinstance(error, _REFUSED):
            return forbidden(self._where, type(error).__name__)
        if isinstance(error, _AMBIGUOUS):
            return RefusedError(
                "keysource.ambiguous", f"{self._where}: several have these names: use unique ones"
            )
        if isinstance(error, _NO_MECHANISM):
            return RefusedError(
                "keysource.mechanism",
                f"{self._where}: the token does not do AES-256-GCM (CKM_AES_GCM)",
                hint="docs/guide/key-sources.md says which HSMs do",
            )
        return unavailable(self._where, type(error).__name__)


def _bound(iv: bytes) -> pkcs11.GCMParams:
    return pkcs11.GCMParams(iv, label_of(_KIND), TAG_BYTES * 8)
