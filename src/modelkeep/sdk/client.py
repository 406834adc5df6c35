"""The caller's side: one server, one API key, models that predict and evaluate.

Speaks the Open Inference Protocol V2 with the binary tensor extension over TLS.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import urllib3

from modelkeep.core.artifact import parsed_reference
from modelkeep.core.errors import (
    IntegrityError,
    KeepError,
    LimitError,
    MissingError,
    RefusedError,
    UnavailableError,
    UsageError,
)
from modelkeep.crypto.recipients import Identity
from modelkeep.crypto.secret import Secret
from modelkeep.kernels.arrays import NUMPY_BY_DTYPE
from modelkeep.sdk import sealing

Array = npt.NDArray[Any]

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 60.0
ATTEMPTS = 3
EVALUATE_ROWS = 256

_CLASS_BY_STATUS: dict[int, type[KeepError]] = {
    400: UsageError,
    401: RefusedError,
    403: RefusedError,
    404: MissingError,
    413: LimitError,
    429: LimitError,
    502: IntegrityError,
    503: UnavailableError,
    504: UnavailableError,
}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a model did on labelled rows.

    Attributes:
        accuracy: share of rows whose predicted label is the given one, 0 to 1.
        seconds: for all calls together.
    """

    accuracy: float
    rows: int
    seconds: float


class Client:
    """A caller of one gateway. Safe to use from several threads.

    Args:
        server: `https://host:port`.
        api_key: as `modelkeep tokens new` printed it.
        ca: the keep's `ca.pem`: a path or the PEM text itself. Without it the system's
            authorities are trusted.
        fingerprint: SHA-256 of the server's certificate in hex: this one alone is trusted then,
            whoever issued it and whatever names it has.

    Raises:
        UsageError: `client.server` or `client.ca`.
    """

    def __init__(
        self,
        *,
        server: str,
        api_key: str,
        ca: str | Path | None = None,
        fingerprint: str = "",
    ) -> None:
        if not server.startswith("https://"):
            raise UsageError(
                "client.server", f"{server!r} is not an https:// address", hint="gateways speak TLS"
            )
        self._server = server.rstrip("/")
        self._headers = {"authorization": f"Bearer {api_key}"}
        self._pool = _pool(ca, fingerprint)

    def load_model(self, reference: str) -> RemoteModel:
        """A model that the server serves: `name` or `name:version`.

        Raises:
            MissingError: when the server does not serve it.
            RefusedError: when the key is not accepted.
        """
        named = parsed_reference(reference)
        path = f"/v2/models/{named.name}"
        if named.selector:
            path += f"/versions/{named.selector}"
        metadata = json.loads(self._call("GET", path)[0])
        return RemoteModel(client=self, path=path, metadata=metadata)

    def encrypt(
        self,
        data: bytes,
        *,
        to: str | Path | Iterable[str | Path] = (),
        passphrase: str | Secret | None = None,
    ) -> bytes:
        """Encrypt bytes to recipients or under a passphrase, here: nothing goes to the server.

        For files, streams and signatures see `modelkeep.sdk.sealing`.

        Raises:
            UsageError: see `sealing.encrypt`.
        """
        return sealing.encrypt(data, to=to, passphrase=passphrase)

    def decrypt(
        self,
        data: bytes,
        *,
        identity: Path | Identity | Iterable[Path | Identity] = (),
        passphrase: str | Secret | None = None,
    ) -> bytes:
        """Decrypt bytes, here: nothing goes to the server.

        Raises:
            KeepError: see `sealing.decrypt`.
        """
        return sealing.decrypt(data, identity=identity, passphrase=passphrase)

    def is_ready(self) -> bool:
        """Whether the server is up and can answer for every model that it serves."""
        try:
            self._call("GET", "/v2/health/ready")
        except KeepError:
            return False
        return True

    def close(self) -> None:
        """Close all connections; idempotent."""
        self._pool.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[bytes, Mapping[str, str]]:
        try:
            answer = self._pool.request(
                method,
                self._server + path,
                body=body or None,
                headers={**self._headers, **(headers or {})},
            )
        except urllib3.exceptions.HTTPError as error:
            raise UnavailableError(
                "client.connection",
                f"{self._server} does not answer: {_reason(error)}",
                hint="check the address and that `modelkeep serve` is running",
            ) from error
        if answer.status != 200:
            raise _refusal(answer.status, answer.data)
        return answer.data, answer.headers


class RemoteModel:
    """A served model: `predict` and `evaluate`.

    Attributes:
        metadata: what the server says of it (V2 model metadata).
    """

    def __init__(self, *, client: Client, path: str, metadata: dict[str, Any]) -> None:
        self._client = client
        self._path = path
        self.metadata = metadata
        self.name: str = metadata["name"]
        self.inputs: list[dict[str, Any]] = metadata["inputs"]
        self.outputs: list[dict[str, Any]] = metadata["outputs"]

    def predict(self, inputs: Array | Mapping[str, Array]) -> dict[str, Array]:
        """Run the model once.

        Args:
            inputs: one array per input, by name; or one array for a model with one input. Arrays
                are cast to the model's dtype when that loses nothing in kind.

        Returns:
            One array per output, by name.

        Raises:
            UsageError: when the inputs do not fit the model.
        """
        named = inputs if isinstance(inputs, Mapping) else {self.inputs[0]["name"]: inputs}
        parts: list[bytes] = []
        described = []
        for port in self.inputs:
            array = self._cast(named, port)
            parts.append(array.tobytes())
            described.append(
                {
                    "name": port["name"],
                    "datatype": port["datatype"],
                    "shape": list(array.shape),
                    "parameters": {"binary_data_size": len(parts[-1])},
                }
            )
        head = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}})
        raw, headers = self._client._call(  # noqa: SLF001 - one module, one responsibility
            "POST",
            f"{self._path}/infer",
            head.encode() + b"".join(parts),
            {
                "content-type": "application/octet-stream",
                "inference-header-content-length": str(len(head)),
            },
        )
        return _outputs(raw, headers)

    def evaluate(self, features: Array, labels: Array) -> Evaluation:
        """Compare predicted labels with given ones.

        The label is the model's integer output of one value per row where it has one, else the
        place of the largest value of its first output.

        Args:
            features: shape (rows, …), as `predict` takes it.
            labels: shape (rows,), integers.
        """
        if len(features) != len(labels) or len(labels) == 0:
            raise UsageError("client.rows", "features and labels must have the same, non-zero rows")
        started_s = time.perf_counter()
        hits = 0
        for start in range(0, len(labels), EVALUATE_ROWS):
            stop = start + EVALUATE_ROWS
            predicted = _labels(self.predict(features[start:stop]))
            hits += int(np.count_nonzero(predicted == labels[start:stop]))
        return Evaluation(
            accuracy=hits / len(labels),
            rows=len(labels),
            seconds=time.perf_counter() - started_s,
        )

    def _cast(self, named: Mapping[str, Array], port: Mapping[str, Any]) -> Array:
        if port["name"] not in named:
            raise UsageError("client.input", f"{self.name} needs the input {port['name']}")
        dtype = NUMPY_BY_DTYPE[port["datatype"]]
        array = np.asarray(named[port["name"]])
        if not np.can_cast(array.dtype, dtype, casting="same_kind"):
            raise UsageError(
                "client.dtype", f"{port['name']} wants {port['datatype']}, not {array.dtype}"
            )
        return np.ascontiguousarray(array, dtype=dtype)


def is_ready(server: str, *, ca_pem: bytes) -> bool:
    """Whether a gateway is up and can answer for every model that it serves; needs no key."""
    with Client(server=server, api_key="", ca=ca_pem.decode()) as client:
        return client.is_ready()


def _pool(ca: str | Path | None, fingerprint: str) -> urllib3.PoolManager:
    context = ssl.create_default_context()
    if ca is not None:
        text = str(ca)
        pem = text if text.startswith("-----BEGIN") else _read_pem(Path(text))
        try:
            context = ssl.create_default_context(cadata=pem or "none")
        except ssl.SSLError as error:
            raise UsageError("client.ca", f"this is no certificate: {error.reason}") from error
    if fingerprint:  # urllib3 compares it in the place of authorities and names
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    # Inference changes nothing, so a call whose connection broke is safe to repeat.
    retries = urllib3.Retry(
        total=ATTEMPTS, backoff_factor=0.1, status=0, allowed_methods=None, redirect=0
    )
    timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=ANSWER_TIMEOUT_S)
    return urllib3.PoolManager(
        ssl_context=context,
        assert_fingerprint=fingerprint or None,
        retries=retries,
        timeout=timeout,
        maxsize=16,
    )


def _read_pem(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("client.ca", f"{path} is no certificate: {error}") from error


def _refusal(status: int, raw: bytes) -> KeepError:
    try:
        body = json.loads(raw)
        message, code = str(body["error"]), str(body.get("code", "client.status"))
        hint = str(body.get("hint", ""))
    except (ValueError, KeyError, TypeError):
        message, code, hint = f"the server answered {status}", "client.status", ""
    kind = _CLASS_BY_STATUS.get(status, UnavailableError if status >= 500 else UsageError)
    return kind(code, message, hint=hint, status=status)


def _outputs(raw: bytes, headers: Mapping[str, str]) -> dict[str, Array]:
    """Decode an answer.

    Raises:
        IntegrityError: `client.answer`, for what is no V2 answer.
    """
    try:
        return _parsed_outputs(raw, headers)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(
            "client.answer", f"the server's answer cannot be read: {type(error).__name__} {error}"
        ) from error


def _parsed_outputs(raw: bytes, headers: Mapping[str, str]) -> dict[str, Array]:
    head_bytes = int(headers.get("inference-header-content-length", len(raw)))
    described = json.loads(raw[:head_bytes])
    found: dict[str, Array] = {}
    offset = head_bytes
    for output in described["outputs"]:
        dtype = NUMPY_BY_DTYPE[output["datatype"]]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            array = np.asarray(output["data"], dtype=dtype)
        else:
            array = np.frombuffer(raw, dtype, count=size // dtype.itemsize, offset=offset)
            offset += size
        found[output["name"]] = array.reshape(output["shape"])
    return found


def _labels(outputs: Mapping[str, Array]) -> Array:
    for array in outputs.values():
        if array.dtype.kind in "iu" and array.size == len(array):
            return array.reshape(-1)
    return np.asarray(next(iter(outputs.values())).argmax(axis=-1))


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    cause = getattr(error, "reason", None)
    return str(cause or error)[:200]
