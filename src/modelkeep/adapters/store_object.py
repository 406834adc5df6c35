"""A Store in a bucket: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.

`put` is one request with the condition that the name is free (`If-None-Match: *`, or what the
provider has instead). A server that ignores the condition would overwrite: the first small object
is therefore put twice, and a server that takes it twice is refused (`store.conditional`).

Reads are bounded by what was asked for, whatever the server sends; a listing has to come in the
order of its names. Credentials are read when they are needed and again every quarter of an hour.
They, the endpoint and whatever else could lead astray are given to the library outright, so that
no environment variable has a say; `ambient` is the machine's own role and takes no keys from the
environment either. The library's messages are not repeated: they quote addresses (which hold the
signature on Azure) and what the server said.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore import exceptions
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from modelkeep.adapters.store_guard import demand_bounded
from modelkeep.adapters.store_settings import AMBIENT, GCS, S3, StorePlace, StoreSettings
from modelkeep.core.errors import (
    ConfigError,
    IntegrityError,
    KeepError,
    MissingError,
    RefusedError,
    UnavailableError,
)
from modelkeep.core.names import checked_object_name, is_object_name
from modelkeep.core.record import parsed_json
from modelkeep.crypto.secret import Secret
from modelkeep.ports.store import ObjectStat

CONNECT_TIMEOUT_S = 10
PAGE_OBJECTS = 1000  # what S3 gives at once
PROBE_BYTES_MAX = 64 * 1024
CREDENTIALS_LAST = timedelta(minutes=15)
_STATUS = re.compile(r"status code: ([0-9]{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
_LOCKED = re.compile(
    r"object lock|\bWORM\b|retention|immutab|legal hold|ObjectLocked", re.IGNORECASE
)
_DENIED = ("401", "403")
_NO_SUCH_RANGE = re.compile(r"status code: 416|^Generic \w+ error: Wanted range starting at")
T = TypeVar("T")


class BucketStore:
    """Objects in a bucket, below a prefix.

    Args:
        credentials: reads what says who we are; None for the machine's own role.
    """

    def __init__(
        self,
        settings: StoreSettings,
        place: StorePlace,
        *,
        credentials: Callable[[], Secret] | None,
    ) -> None:
        self.label = settings.label
        self._prefix = f"{place.prefix}/" if place.prefix else ""
        self._settings = settings
        self._place = place
        self._credentials = credentials
        self._handles: dict[int, ObjectStore] = {}
        self._is_conditional = False

    def put(self, name: str, raw: bytes | memoryview) -> None:
        key = self._key(name)
        if self._created(key, raw):
            if not self._is_conditional and len(raw) <= PROBE_BYTES_MAX:
                self._demand_conditional(key, raw)
            return
        self._is_conditional = True
        if self.get(name, length=len(raw) + 1) != raw:
            raise IntegrityError(
                "store.exists",
                f"{self.label}: {name} exists with other bytes",
                hint="run `modelkeep check --repair`",
                store=self.label,
                object=name,
            )

    def get(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        return b"".join(self._parts(name, start, length))

    def get_into(self, name: str, start: int, target: memoryview) -> int:
        at = 0
        for part in self._parts(name, start, len(target)):
            target[at : at + len(part)] = part
            at += len(part)
        return at

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        folder = self._prefix + prefix.rpartition("/")[0]
        last = ""
        pages = iter(
            self._asked(
                prefix,
                lambda: obstore.list(
                    self._handle(self._settings.retries),
                    folder.rstrip("/") or None,
                    chunk_size=PAGE_OBJECTS,
                ),
            )
        )
        while True:
            page = self._asked(prefix, lambda: next(pages, None))
            if page is None:
                return
            for each in page:
                path, size_bytes = each["path"], each["size"]
                if path <= last:
                    raise UnavailableError(
                        "store.listing",
                        f"{self.label}: the listing of {prefix!r} is not in order",
                        hint="this server cannot hold a store",
                    )
                last = path
                name = path.removeprefix(self._prefix)
                if name.startswith(prefix) and is_object_name(name):  # others put things here too
                    yield ObjectStat(name=name, size_bytes=size_bytes)

    def stat(self, name: str) -> ObjectStat | None:
        key = self._key(name)
        try:
            found = self._asked(name, lambda: obstore.head(self._handle(), key))
        except MissingError:
            return None
        return ObjectStat(name=name, size_bytes=found["size"])

    def delete(self, name: str) -> None:
        key = self._key(name)
        try:
            self._asked(name, lambda: obstore.delete(self._handle(), key), is_write=True)
        except MissingError:
            return

    def _key(self, name: str) -> str:
        return self._prefix + checked_object_name(name)

    def _created(self, key: str, raw: bytes | memoryview) -> bool:
        """Write an object unless the name is taken; whether it was free."""

        def put() -> bool:
            try:
                obstore.put(self._handle(), key, bytes(raw), mode="create", use_multipart=False)
            except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
                return False
            return True

        return self._asked(key, put, is_write=True)

    def _demand_conditional(self, key: str, raw: bytes | memoryview) -> None:
        """Check that the server keeps what it has.

        Raises:
            RefusedError: `store.conditional`.
        """
        if self._created(key, raw):
            raise RefusedError(
                "store.conditional",
                f"{self.label}: the server puts an object in the place of another",
                hint="it ignores `If-None-Match: *`; use a server that has conditional writes",
                store=self.label,
            )
        self._is_conditional = True

    def _parts(self, name: str, start: int, length: int | None) -> Iterator[memoryview]:
        """The bytes of a range as they arrive, no more than were asked for.

        Raises:
            IntegrityError: `store.size`.
            UnavailableError: `store.read`, also when fewer arrive than the server announced.
        """
        key = self._key(name)
        options: Any = {"range": {"offset": start}} if start else None
        if length is not None:
            options = {"range": (start, start + max(length, 1))}
        try:
            found = self._asked(name, lambda: obstore.get(self._handle(), key, options=options))
        except _NoSuchRangeError:
            return
        size_bytes = found.meta["size"]
        if length is None:
            demand_bounded(self.label, name, size_bytes)
        left = max(size_bytes - start, 0)
        if length is not None:
            left = min(length, left)
        if not length and length is not None:
            return
        parts = iter(found.stream())
        while part := self._asked(name, lambda: next(parts, None)):
            if len(part) > left:
                raise self._unavailable(name, "it sent more than was asked for")
            left -= len(part)
            yield memoryview(part)
        if left:
            raise self._unavailable(name, "it sent less than it announced")

    def _handle(self, retries: int = 0) -> ObjectStore:
        """The library's store; it retries inside only where a page of a listing is fetched."""
        handle = self._handles.get(retries)
        if handle is None:
            handle = self._handles[retries] = _opened(
                self._settings, self._place, self._credentials, retries=retries
            )
        return handle

    def _asked(self, name: str, call: Callable[[], T], *, is_write: bool = False) -> T:
        try:
            return call()
        except KeepError:
            raise
        except FileNotFoundError:
            raise MissingError(
                "store.missing", f"{self.label}: no object {name}", store=self.label, object=name
            ) from None
        except (exceptions.BaseError, OSError, RuntimeError, ValueError) as error:
            # Its text may quote a signature.
            raise self._translated(error, name, is_write=is_write) from None

    def _translated(self, error: Exception, name: str, *, is_write: bool) -> Exception:
        text = str(error)
        status, reason = _first(_STATUS, text), _first(_CODE, text)
        if _NO_SUCH_RANGE.search(text):
            return _NoSuchRangeError()
        told = " ".join(filter(None, (status, reason))) or type(error).__name__
        is_denied = status in _DENIED or isinstance(
            error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError
        )
        if is_write and _LOCKED.search(text) and (is_denied or status == "409"):
            return RefusedError(
                "store.locked",
                f"{self.label}: {name} is locked against deletion ({told})",
                hint="its retention has to end first",
                store=self.label,
            )
        if is_denied:
            return RefusedError(
                "store.denied",
                f"{self.label}: {name}: not permitted ({told})",
                hint="check the store's credentials and what they are allowed to do there",
                store=self.label,
            )
        return self._unavailable(name, told, is_write=is_write)

    def _unavailable(self, name: str, told: str, *, is_write: bool = False) -> UnavailableError:
        return UnavailableError(
            "store.write" if is_write else "store.read",
            f"{self.label}: {name}: {told}",
            hint=f"check that {self._settings.url} can be reached, then run it again",
            store=self.label,
        )


class _NoSuchRangeError(Exception):
    """The range begins at the end of the object or behind it."""


def _opened(
    settings: StoreSettings,
    place: StorePlace,
    credentials: Callable[[], Secret] | None,
    *,
    retries: int,
) -> ObjectStore:
    client: dict[str, Any] = {
        "allow_http": settings.endpoint.startswith("http://"),
        "allow_invalid_certificates": False,
        "connect_timeout": timedelta(seconds=min(CONNECT_TIMEOUT_S, settings.timeout_s)),
        "timeout": timedelta(seconds=settings.timeout_s),
    }
    if settings.ca:
        client["root_certificate"] = _pem(settings)
    common: dict[str, Any] = {
        "client_options": client,
        "retry_config": {
            "max_retries": retries,
            "retry_timeout": timedelta(seconds=settings.timeout_s),
        },
    }
    if credentials is None:
        _demand_role(settings)
    if place.kind == S3:
        return _s3(settings, place, credentials, common)
    if place.kind == GCS:
        return _gcs(settings, place, credentials, common)
    return _azure(settings, place, credentials, common)


def _s3(
    settings: StoreSettings,
    place: StorePlace,
    credentials: Callable[[], Secret] | None,
    common: dict[str, Any],
) -> ObjectStore:
    region = settings.region or "us-east-1"
    endpoint = settings.endpoint or f"https://s3.{region}.amazonaws.com"
    return S3Store(
        place.bucket,
        config={
            "endpoint": endpoint,
            "aws_endpoint_url_s3": endpoint,
            "region": region,
            "conditional_put": "etag",
            "checksum_algorithm": "SHA256",  # a bucket with object lock demands one
            "virtual_hosted_style_request": False,
            "skip_signature": False,
            "unsigned_payload": False,
            "s3_express": False,
            "disable_bulk_delete": True,  # one request, one answer; and not all servers have it
        },
        credential_provider=None if credentials is None else _aws_identity(credentials),
        **common,
    )


def _gcs(
    settings: StoreSettings,
    place: StorePlace,
    credentials: Callable[[], Secret] | None,
    common: dict[str, Any],
) -> ObjectStore:
    config: dict[str, Any] = {"skip_signature": False}
    if settings.endpoint:
        config["base_url"] = settings.endpoint
    if credentials is not None:
        config["service_account_key"] = credentials().reveal().decode()
    return GCSStore(place.bucket, **common, **config)


def _azure(
    settings: StoreSettings,
    place: StorePlace,
    credentials: Callable[[], Secret] | None,
    common: dict[str, Any],
) -> ObjectStore:
    config: dict[str, Any] = {
        "account_name": place.host,
        "endpoint": settings.endpoint or f"https://{place.host}.blob.core.windows.net",
        "credential_type": "managed_identity",
        "skip_signature": False,
        "use_emulator": False,
        "use_fabric_endpoint": False,
    }
    if credentials is not None:
        told = credentials().reveal().decode().strip()
        if "sig=" in told:
            config |= {"sas_key": told.removeprefix("?"), "credential_type": "sas_token"}
        else:
            config |= {"account_key": told, "credential_type": "access_key"}
    return AzureStore(place.bucket, **common, **config)


def _aws_identity(credentials: Callable[[], Secret]) -> Callable[[], Any]:
    """What the library calls for keys: the JSON that `credential_process` programs print."""

    def identity() -> dict[str, Any]:
        raw = credentials().reveal()
        try:
            facts = dict(parsed_json(raw, what="the AWS credentials"))
            return {
                "access_key_id": str(facts["AccessKeyId"]),
                "secret_access_key": str(facts["SecretAccessKey"]),
                "token": str(facts["SessionToken"]) if "SessionToken" in facts else None,
                "expires_at": datetime.now(UTC) + CREDENTIALS_LAST,
            }
        except (KeepError, KeyError, TypeError, ValueError):
            raise IntegrityError(
                "store.credentials",
                "the AWS credentials are not JSON with AccessKeyId and SecretAccessKey",
            ) from None

    return identity


def _demand_role(settings: StoreSettings) -> None:
    """Check that `ambient` would not take a key from the environment.

    Raises:
        ConfigError: `store.environment`.
    """
    for name in ("AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "GOOGLE_BEARER_TOKEN"):
        if name in os.environ:
            raise ConfigError(
                "store.environment",
                f'{settings.label}: credentials = "{AMBIENT}" is the machine\'s own role, '
                f"and {name} is set",
                hint="unset it, or write the key into a file and name that",
            )


def _pem(settings: StoreSettings) -> bytes:
    try:
        return Path(settings.ca).read_bytes()
    except OSError as error:
        raise ConfigError(
            "store.ca", f"{settings.label}: cannot read {settings.ca}: {error.strerror}"
        ) from error


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""
