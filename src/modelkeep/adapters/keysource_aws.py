"""A KeySource from AWS KMS: Encrypt and Decrypt with an encryption context; the key stays there.

The label of `crypto.wrapped_key` is the encryption context, which KMS authenticates and writes into
CloudTrail. Decrypt names the key, so a box of another key is refused. Key material that KMS rotated
still unwraps what older material wrapped.

Credentials come from the reference (`credentials=`: the JSON that `credential_process` programs
print) or from the machine's role (instance, container or web identity, or a profile); never from
`AWS_ACCESS_KEY_ID` in the environment. Endpoints come from the reference and the region only, and
no proxy is used.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import boto3.session

from modelkeep.adapters.keysource_errors import forbidden, missing, wrong_key
from modelkeep.core.errors import IntegrityError, KeepError, UnavailableError
from modelkeep.core.record import parsed_json
from modelkeep.core.reference import AwsReference
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.wrapped_key import (
    box_of,
    key_of_labelled,
    label_of,
    labelled_key,
    wrapped_bytes,
)

_KIND = "aws"
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 10.0
_CONTEXT = {"modelkeep": label_of(_KIND).decode()}
_WRONG_KEY = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})
_NO_SUCH_KEY = frozenset({"NotFoundException"})
_REFUSED = frozenset(
    {
        "AccessDeniedException",
        "DisabledException",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidGrantTokenException",
        "InvalidKeyUsageException",
        "InvalidSignatureException",
        "KMSInvalidStateException",
        "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
        "ValidationException",
    }
)


class AwsSource:
    """One symmetric key of AWS KMS."""

    kind = _KIND

    def __init__(
        self,
        reference: AwsReference,
        *,
        credentials: Callable[[], Secret] | None,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._reference = reference
        self._credentials = credentials
        self._read_timeout_s = read_timeout_s
        self._client: Any = None

    def wrap(self, key: Secret) -> bytes:
        answer = self._asked("encrypt", Plaintext=labelled_key(_KIND, key))
        return wrapped_bytes(_KIND, bytes(answer["CiphertextBlob"]))

    def unwrap(self, wrapped: bytes) -> Secret:
        box = box_of(_KIND, wrapped)
        if not box:
            raise IntegrityError("keysource.form", "the wrapped root key was changed")
        answer = self._asked("decrypt", CiphertextBlob=box)
        return key_of_labelled(_KIND, bytes(answer["Plaintext"]))

    def _asked(self, verb: str, **fields: Any) -> dict[str, Any]:
        try:
            answer = getattr(self._opened(), verb)(
                KeyId=self._reference.arn,
                EncryptionContext=_CONTEXT,
                EncryptionAlgorithm="SYMMETRIC_DEFAULT",
                **fields,
            )
        except KeepError:
            raise
        except Exception as error:  # noqa: BLE001 - its text may quote the request
            code = _code(error)
            if code in _WRONG_KEY:
                raise wrong_key(self._reference.arn) from None
            if code in _NO_SUCH_KEY:
                raise missing(self._reference.arn) from None
            if code in _REFUSED:
                raise forbidden(self._reference.arn, code) from None
            raise UnavailableError(
                "keysource.unavailable",
                f"AWS KMS cannot be used now ({code})",
                hint="try again; check the region, the endpoint, its CA and the machine's role",
            ) from None
        return dict(answer)

    def _opened(self) -> Any:
        """The client, made at the first use: it takes about 100 ms."""
        if self._client is None:
            core = boto3.session.botocore.session.Session()
            core.get_component("credential_provider").remove("env")
            session = boto3.session.Session(
                botocore_session=core, region_name=self._reference.region, **self._identity()
            )
            self._client = session.client(
                "kms",
                endpoint_url=self._reference.endpoint or None,
                verify=self._reference.ca or True,
                config=boto3.session.Config(
                    connect_timeout=CONNECT_TIMEOUT_S,
                    read_timeout=self._read_timeout_s,
                    retries={"mode": "standard", "total_max_attempts": 2},
                    proxies={},
                    ignore_configured_endpoint_urls=True,
                ),
            )
            weakref.finalize(self, self._client.close)
        return self._client

    def _identity(self) -> dict[str, str]:
        if self._credentials is None:
            return {}
        raw = self._credentials().reveal()
        try:
            facts = dict(parsed_json(raw, what="the AWS credentials"))
            return {
                "aws_access_key_id": str(facts["AccessKeyId"]),
                "aws_secret_access_key": str(facts["SecretAccessKey"]),
                **(
                    {"aws_session_token": str(facts["SessionToken"])}
                    if "SessionToken" in facts
                    else {}
                ),
            }
        except (KeepError, KeyError, TypeError, ValueError):
            raise IntegrityError(
                "keysource.credentials",
                "the AWS credentials are not JSON with AccessKeyId and SecretAccessKey",
            ) from None


def _code(error: Exception) -> str:
    """The identifier of what went wrong: the service's code, else the exception's name."""
    answer = getattr(error, "response", None)
    facts = answer.get("Error") if isinstance(answer, dict) else None
    code = facts.get("Code") if isinstance(facts, dict) else None
    return code if isinstance(code, str) and code.isidentifier() else type(error).__name__
