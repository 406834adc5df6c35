"""A KeySource from Google Cloud KMS over REST: encrypt and decrypt with associated data.

The label of `crypto.wrapped_key` is the `additionalAuthenticatedData`. CRC-32C goes along in both
directions, as Google asks for: a bit that flips in their memory or ours is noticed at `wrap`, not
at a recovery. A key that was rotated still unwraps what older versions wrapped.

With `credentials=` (the JSON of a service account) each request carries a token that we sign
ourselves (RFC 7519, audience Cloud KMS), so one host is spoken to and no other. Without it the
machine's own account counts, whose tokens come from the metadata server. Redirects are not
followed, and no proxy is used.
"""

from __future__ import annotations

import base64
import weakref
from collections.abc import Callable
from typing import Any

from google.auth import compute_engine, jwt
from google.auth.transport.requests import AuthorizedSession, Request

from modelkeep.adapters.keysource_errors import forbidden, missing, unavailable, wrong_key
from modelkeep.core.errors import IntegrityError, KeepError, UnavailableError
from modelkeep.core.record import parsed_json
from modelkeep.core.reference import GcpReference
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.wrapped_key import (
    box_of,
    key_of_labelled,
    label_of,
    labelled_key,
    wrapped_bytes,
)
from modelkeep.kernels.crc32c import crc32c

_KIND = "gcp"
TIMEOUT_S = 10.0
_AUDIENCE = "https://cloudkms.googleapis.com/"
# The library says that it is typed, and types none of these.
_Session: Any = AuthorizedSession
_MachineCredentials: Any = compute_engine.Credentials
_SignedCredentials: Any = jwt.Credentials


class GcpSource:
    """One symmetric key of Google Cloud KMS."""

    kind = _KIND

    def __init__(
        self,
        reference: GcpReference,
        *,
        credentials: Callable[[], Secret] | None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._reference = reference
        self._credentials = credentials
        self._timeout_s = timeout_s
        self._session: Any = None

    def wrap(self, key: Secret) -> bytes:
        answer = self._asked("encrypt", "plaintext", labelled_key(_KIND, key))
        heard = (
            answer.get("verifiedPlaintextCrc32c"),
            answer.get("verifiedAdditionalAuthenticatedDataCrc32c"),
        )
        if heard != (True, True):
            raise self._garbled()
        return wrapped_bytes(_KIND, self._checked(answer, "ciphertext"))

    def unwrap(self, wrapped: bytes) -> Secret:
        box = box_of(_KIND, wrapped)
        if not box:
            raise IntegrityError("keysource.form", "the wrapped root key was changed")
        answer = self._asked("decrypt", "ciphertext", box)
        return key_of_labelled(_KIND, self._checked(answer, "plaintext"))

    def _asked(self, verb: str, field: str, value: bytes) -> dict[str, Any]:
        label = label_of(_KIND)
        body = {
            field: base64.b64encode(value).decode(),
            f"{field}Crc32c": str(crc32c(value)),
            "additionalAuthenticatedData": base64.b64encode(label).decode(),
            "additionalAuthenticatedDataCrc32c": str(crc32c(label)),
        }
        try:
            answer = self._opened().post(
                f"{self._reference.endpoint}/v1/{self._reference.key}:{verb}",
                json=body,
                timeout=self._timeout_s,
                allow_redirects=False,
            )
            status = int(answer.status_code)
            facts = answer.json() if status == 200 else {}
        except KeepError:
            raise
        except Exception as error:  # noqa: BLE001 - its text may quote the request
            raise UnavailableError(
                "keysource.unavailable",
                f"Google Cloud KMS cannot be used now ({type(error).__name__})",
                hint="try again; check the endpoint, its CA and the machine's account",
            ) from None
        if status == 200 and isinstance(facts, dict):
            return facts
        raise self._refusal(verb, status)

    def _refusal(self, verb: str, status: int) -> KeepError:
        where = self._reference.key
        if status == 404:
            return missing(where)
        if status in (401, 403) or (status == 400 and verb == "encrypt"):
            return forbidden(where, status)
        if status == 400:
            return wrong_key(where)
        return unavailable(f"Google Cloud KMS, {where}", status)

    def _checked(self, answer: dict[str, Any], field: str) -> bytes:
        """The bytes of a field whose checksum is right."""
        try:
            raw = base64.b64decode(answer[field], validate=True)
            right = crc32c(raw) == int(answer[f"{field}Crc32c"])
        except (KeyError, TypeError, ValueError):
            right = False
        if not right:
            raise self._garbled()
        return raw

    def _garbled(self) -> UnavailableError:
        return UnavailableError(
            "keysource.answer",
            f"{self._reference.key}: a checksum (CRC-32C) of the answer is wrong",
            hint="try again: bytes were changed on their way or in a memory",
        )

    def _opened(self) -> Any:
        if self._session is None:
            request = Request()
            session: Any = _Session(self._identity(), auth_request=request)
            for each in (session, request.session):
                each.trust_env = False
            session.verify = self._reference.ca or True
            weakref.finalize(self, session.close)
            weakref.finalize(self, request.session.close)
            self._session = session
        return self._session

    def _identity(self) -> Any:
        if self._credentials is None:
            return _MachineCredentials()
        raw = self._credentials().reveal()
        try:
            facts = parsed_json(raw, what="the Google credentials")
            return _SignedCredentials.from_service_account_info(facts, audience=_AUDIENCE)
        except Exception as error:  # noqa: BLE001 - its text may quote the request
            raise IntegrityError(
                "keysource.credentials",
                f"the Google credentials are not a service account's ({type(error).__name__})",
            ) from None
