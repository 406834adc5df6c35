"""A KeySource from Azure Key Vault: an RSA key wraps and signs there, and stays there.

RSA-OAEP (SHA-256) is public-key encryption: whoever reads the public key could wrap a root of
their own making and put a keep of theirs under our name. So the vault signs what it wrapped
(RSA-PSS, SHA-256, the same key) over the label of `crypto.wrapped_key` and the wrapped bytes, and
only what it signed is unwrapped: `box = wrapped || signature`, of equal length. OAEP takes no
associated data, so the label stands inside the plaintext too.

The reference names one version of the key. After a rotation in Key Vault the old version still
unwraps; name the new one and rotate the keep.

With `tenant`, `client` and `secret` a service principal signs in, else the machine's managed
identity. Redirects are not followed, and no proxy is used.
"""

from __future__ import annotations

import hashlib
import logging
import weakref
from collections.abc import Callable
from typing import Any

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import (
    ClientSecretCredential,
    CredentialUnavailableError,
    ManagedIdentityCredential,
)
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm, SignatureAlgorithm

from modelkeep.adapters.keysource_errors import forbidden, missing, wrong_key
from modelkeep.core.errors import IntegrityError, KeepError, UnavailableError
from modelkeep.core.reference import AzureReference
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.wrapped_key import (
    box_of,
    key_of_labelled,
    label_of,
    labelled_key,
    wrapped_bytes,
)

_KIND = "azure"
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 10.0
_WRAPS = KeyWrapAlgorithm.rsa_oaep_256
_SIGNS = SignatureAlgorithm.ps256


class AzureSource:
    """One version of one RSA key of Azure Key Vault."""

    kind = _KIND

    def __init__(
        self,
        reference: AzureReference,
        *,
        secret: Callable[[], Secret] | None,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._reference = reference
        self._secret = secret
        self._read_timeout_s = read_timeout_s
        self._client: Any = None

    def wrap(self, key: Secret) -> bytes:
        wrapped = bytes(self._asked("wrap_key", _WRAPS, labelled_key(_KIND, key)).encrypted_key)
        signature = bytes(self._asked("sign", _SIGNS, _digest(wrapped)).signature)
        return wrapped_bytes(_KIND, wrapped + signature)

    def unwrap(self, wrapped: bytes) -> Secret:
        box = box_of(_KIND, wrapped)
        half = len(box) // 2
        inner, signature = box[:half], box[half:]
        if not inner or len(inner) != len(signature):
            raise IntegrityError("keysource.form", "the wrapped root key was changed")
        if self._asked("verify", _SIGNS, _digest(inner), signature).is_valid is not True:
            raise wrong_key(self._reference.key)
        return key_of_labelled(_KIND, bytes(self._asked("unwrap_key", _WRAPS, inner).key))

    def _asked(self, verb: str, algorithm: str, *values: bytes) -> Any:
        try:
            return getattr(self._opened(), verb)(algorithm, *values)
        except KeepError:
            raise
        except Exception as error:  # noqa: BLE001 - its text may quote the request
            status = error.status_code if isinstance(error, HttpResponseError) else None
            if status == 404:
                raise missing(self._reference.key) from None
            if status in (401, 403) or (status is None and _is_sign_in(error)):
                raise forbidden(self._reference.key, status or "sign-in") from None
            if status == 400 and verb in ("verify", "unwrap_key"):
                raise wrong_key(self._reference.key) from None
            raise UnavailableError(
                "keysource.unavailable",
                f"Azure Key Vault cannot be used now ({status or type(error).__name__})",
                hint="try again; check the address, its CA and the identity",
            ) from None

    def _opened(self) -> Any:
        if self._client is None:
            # Its warnings would reach stderr, and quote what a server wrote.
            logging.getLogger("azure").setLevel(logging.CRITICAL)
            credential = self._identity()
            client = CryptographyClient(
                self._reference.key, credential, permit_redirects=False, **self._network()
            )
            weakref.finalize(self, client.close)
            weakref.finalize(self, credential.close)
            self._client = client
        return self._client

    def _identity(self) -> Any:
        reference = self._reference
        if self._secret is None:
            return ManagedIdentityCredential(client_id=reference.client or None)
        return ClientSecretCredential(
            reference.tenant,
            reference.client,
            self._secret().reveal().decode(),
            disable_instance_discovery=bool(reference.authority),
            **({"authority": reference.authority} if reference.authority else {}),
            **self._network(),
        )

    def _network(self) -> dict[str, Any]:
        """One transport for one client: bounded in time, with our CA, without the environment."""
        return {
            "transport": RequestsTransport(
                connection_timeout=CONNECT_TIMEOUT_S,
                read_timeout=self._read_timeout_s,
                connection_verify=self._reference.ca or True,
                use_env_settings=False,
            ),
            "retry_total": 1,
        }


def _is_sign_in(error: Exception) -> bool:
    """Whether the directory knows us and refuses; no answer at all is another matter."""
    unreachable = isinstance(error, CredentialUnavailableError)
    return isinstance(error, ClientAuthenticationError) and not unreachable


def _digest(inner: bytes) -> bytes:
    """What is signed: the purpose, then the wrapped bytes."""
    return hashlib.sha256(label_of(_KIND) + b"\0" + inner).digest()
