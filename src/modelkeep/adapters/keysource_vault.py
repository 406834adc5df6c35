"""A KeySource from the transit engine of HashiCorp Vault or OpenBao: the key stays in the server.

The root is sent over TLS to be encrypted or decrypted (`transit/encrypt/NAME`, `…/decrypt/NAME`);
Vault returns `vault:vN:base64`, where N is the version of the key, so a key that was rotated in
Vault still unwraps what older versions wrapped (until its `min_decryption_version` is raised).
The label of `crypto.wrapped_key` goes along as `associated_data`, and inside the plaintext too,
because servers before Vault 1.13 ignore the field.

One server is spoken to: redirects are not followed, and nothing is taken from the environment (no
proxy, no `VAULT_*`, no token file of a home folder). The token is read anew for each use, so an
agent may renew it.
"""

from __future__ import annotations

import base64
import binascii
import re
import weakref
from collections.abc import Callable
from typing import Any

import hvac
from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest, Unauthorized

from modelkeep.adapters.keysource_errors import forbidden, missing, wrong_key
from modelkeep.core.errors import IntegrityError, UnavailableError
from modelkeep.core.reference import VaultReference
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.wrapped_key import (
    box_of,
    key_of_labelled,
    label_of,
    labelled_key,
    wrapped_bytes,
)

_KIND = "vault"
# To connect and between two bytes; an operation takes Vault under a millisecond.
TIMEOUT_S = 10.0
_CIPHERTEXT = re.compile(r"vault:v([1-9][0-9]{0,8}):([A-Za-z0-9+/]{4,2000}={0,2})")
_NO_SUCH_KEY = "encryption key not found"


class VaultSource:
    """One key of one transit engine."""

    kind = _KIND

    def __init__(
        self,
        reference: VaultReference,
        *,
        token: Callable[[], Secret],
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._reference = reference
        self._token = token
        self._where = f"Vault at {reference.address}, key {reference.mount}/{reference.key}"
        self._client = hvac.Client(
            url=reference.address,
            token="",
            verify=reference.ca or True,
            timeout=timeout_s,
            allow_redirects=False,
            namespace=reference.namespace or None,
        )
        self._client.adapter.session.trust_env = False
        weakref.finalize(self, self._client.adapter.close)

    def wrap(self, key: Secret) -> bytes:
        answer = self._asked(
            "encrypt_data", plaintext=base64.b64encode(labelled_key(_KIND, key)).decode()
        )
        ciphertext = answer.get("ciphertext")
        if not isinstance(ciphertext, str) or not _is_canonical(ciphertext):
            raise UnavailableError("keysource.answer", f"{self._where} answered something else")
        return wrapped_bytes(_KIND, ciphertext.encode())

    def unwrap(self, wrapped: bytes) -> Secret:
        ciphertext = box_of(_KIND, wrapped).decode("latin-1")
        if not _is_canonical(ciphertext):
            raise IntegrityError("keysource.form", "the wrapped root key was changed")
        answer = self._asked("decrypt_data", ciphertext=ciphertext)
        try:
            plain = base64.b64decode(answer.get("plaintext", ""), validate=True)
        except (TypeError, ValueError):
            raise UnavailableError(
                "keysource.answer", f"{self._where} answered something else"
            ) from None
        return key_of_labelled(_KIND, plain)

    def _asked(self, verb: str, **fields: str) -> dict[str, Any]:
        """One request; `data` of the answer."""
        self._client.token = self._token().reveal().decode()
        try:
            answer = getattr(self._client.secrets.transit, verb)(
                self._reference.key,
                mount_point=self._reference.mount,
                associated_data=base64.b64encode(label_of(_KIND)).decode(),
                **fields,
            )
            return dict(answer["data"])
        except (Forbidden, Unauthorized):
            raise forbidden(self._where) from None
        except InvalidPath:
            raise missing(self._where) from None
        except InvalidRequest as error:
            if _NO_SUCH_KEY in " ".join(error.errors or ()):
                raise missing(self._where) from None
            if verb == "decrypt_data":
                raise wrong_key(self._where) from None
            raise forbidden(self._where, "400") from None
        except Exception as error:  # noqa: BLE001 - its text may quote the request
            raise UnavailableError(
                "keysource.unavailable",
                f"{self._where} cannot be used now ({type(error).__name__})",
                hint="try again; check its address, its CA and that it is not sealed",
            ) from None
        finally:
            self._client.token = ""


def _is_canonical(ciphertext: str) -> bool:
    """Whether it has the one form of its bytes: Vault's own decoder allows several."""
    found = _CIPHERTEXT.fullmatch(ciphertext)
    try:
        return (
            found is not None
            and base64.b64encode(base64.b64decode(found[2], validate=True)).decode() == found[2]
        )
    except binascii.Error:
        return False
