"""One table `[[stores]]`: where a store lies, who we are there, and what wraps it.

An address never holds a secret: whatever might be one is not of the form, and no message repeats
it. What a store is asked for (`put` if absent, durable) is the same wherever it lies.
"""

from __future__ import annotations

import math
import re
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote, urlsplit

from modelkeep.core.errors import ConfigError
from modelkeep.core.record import Record, converted, field_facts
from modelkeep.core.reference import parsed_secret_reference

FAST, SMALL = "fast", "small"
AMBIENT = "ambient"
S3, GCS, AZURE, SFTP = "s3", "gs", "az", "sftp"
RETRIES_MAX = 20  # with waits of up to 10 s: minutes, after which a person should look
TIMEOUT_S_MAX = 3600.0
CACHE_MB_MAX = 1024 * 1024
SFTP_PORT = 22

_LABEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PREFIX = r"(?:/(?P<prefix>[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*){0,15}))?/?"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])"
_PART = r"[A-Za-z0-9_~][A-Za-z0-9._~-]*"
_FORMS = {
    S3: re.compile(rf"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{{1,61}}[a-z0-9]){_PREFIX}"),
    GCS: re.compile(rf"gs://(?P<bucket>[a-z0-9][a-z0-9._-]{{1,220}}[a-z0-9]){_PREFIX}"),
    AZURE: re.compile(
        rf"az://(?P<host>[a-z0-9]{{3,24}})/(?P<bucket>[a-z0-9][a-z0-9-]{{1,62}}){_PREFIX}"
    ),
    SFTP: re.compile(
        rf"sftp://(?P<user>[A-Za-z_][A-Za-z0-9._-]{{0,63}})@(?P<host>{_HOST})"
        rf"(?::(?P<port>[0-9]{{1,5}}))?(?P<folder>(?:/{_PART}){{1,32}})/?"
    ),
}
_ENDPOINT = re.compile(rf"https?://{_HOST}(?::[0-9]{{1,5}})?(?:/[A-Za-z0-9_-]{{1,63}})?")
_REGION = re.compile(r"[a-z0-9-]{0,64}")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_EXAMPLES = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://ACCOUNT/CONTAINER, sftp://USER@HOST/PATH"


class StoreSettings(Record, frozen=True):
    """One table `[[stores]]` of modelkeep.toml; the first one is authoritative.

    Attributes:
        label: the store's name in messages and in the ledger.
        path: its folder; a relative path starts at the keep's folder. Either this or `url`.
        url: its address elsewhere: `s3://`, `gs://`, `az://` or `sftp://`; it holds no secret.
        encoding: `fast` (served from, decrypts in place) or `small` (best codec, deltas); empty:
            the first store is fast, all others are small.
        credentials: who we are there: `file:…` or `exec:…`, or `ambient` for the machine's own
            role (object stores only).
        region: of an S3 bucket.
        endpoint: address of an object store that is not the provider's own.
        ca: file with the certificate, in PEM, that such an endpoint's certificate descends from.
        allow_http: permit an endpoint without TLS that is not on this machine.
        known_hosts: whom to trust over SFTP: a known_hosts file, or the host key's fingerprint
            (`SHA256:…`); an unknown key is never accepted.
        retries: how often a call that the world failed is repeated, with growing waits.
        timeout_s: how long one call to a store elsewhere may take.
        cache_mb: room on this machine for small objects of the store (indexes, recipes, envelopes,
            never packs); 0 for none.
        bytes_per_s: most bytes a second, each way; 0 for no limit.
    """

    label: str
    path: str = ""
    url: str = ""
    encoding: str = ""
    credentials: str = ""
    region: str = ""
    endpoint: str = ""
    ca: str = ""
    allow_http: bool = False
    known_hosts: str = ""
    retries: int = 4
    timeout_s: float = 60.0
    cache_mb: int = 0
    bytes_per_s: int = 0


class StorePlace(Record, frozen=True):
    """What the address of a store elsewhere says.

    Attributes:
        kind: `s3`, `gs`, `az` or `sftp`.
        host: of SFTP, or the account of Azure.
        bucket: or container.
        prefix: what every name of an object starts with, without slashes around it.
        folder: of SFTP: an absolute path, or one from the user's home that starts with `~/`.
    """

    kind: str
    host: str = ""
    port: int = 0
    user: str = ""
    bucket: str = ""
    prefix: str = ""
    folder: str = ""


def parsed_place(url: str) -> StorePlace:
    """The parts of a store's address.

    Raises:
        ConfigError: `store.url`; the address is not repeated, it might hold a secret.
    """
    kind = url.partition("://")[0]
    found = _FORMS[kind].fullmatch(url) if kind in _FORMS else None
    if found is None:
        raise ConfigError("store.url", "a store's url is not one of ours", hint=_EXAMPLES)
    parts = {name: value or "" for name, value in found.groupdict().items()}
    port = int(parts.pop("port", "") or (SFTP_PORT if kind == SFTP else 0))
    if port > 65_535:
        raise ConfigError("store.url", "a port is at most 65535")
    if "folder" in parts:
        parts["folder"] = parts["folder"].removeprefix("/") if "/~/" in url else parts["folder"]
    return StorePlace(kind=kind, port=port, **parts)


def given_store(label: str, text: str) -> StoreSettings:
    """A store as it is given on a command line: a folder, or an address with options.

    `s3://BUCKET/PREFIX?region=REGION&credentials=file:/PATH`: what follows `?` are keys of
    `[[stores]]`, percent-encoded.

    Raises:
        ConfigError: `store.option`, `store.url`, `reference.*` or `config.value`.
    """
    url, _, query = text.partition("?")
    if "://" not in url:
        return StoreSettings(label=label, path=text)
    facts: dict[str, Any] = {"label": label, "url": url}
    kinds = {field.name: field.type for field in field_facts(StoreSettings)}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name in facts or name not in kinds or name == "path":
            raise ConfigError(
                "store.option",
                f"{name[:40]!r} is no option of a store elsewhere, or given twice",
                hint=f"known are {', '.join(sorted(set(kinds) - {'label', 'path', 'url'}))}",
            )
        facts[name] = _value(unquote(value), kinds[name])
    settings = converted(StoreSettings, facts, what=f"the store {label[:64]!r}")
    for is_bad, problem in problems_of(settings):
        if is_bad:
            raise ConfigError("config.value", problem)
    return settings


def encoding_of(settings: StoreSettings, *, number: int) -> str:
    """How chunks are encoded in the store that stands at this place in the list."""
    return settings.encoding or (FAST if number == 0 else SMALL)


def store_problems(stores: tuple[StoreSettings, ...]) -> list[tuple[bool, str]]:
    """What is wrong with the stores of a configuration: whether it is, and what.

    Raises:
        ConfigError: `store.url` or `reference.*`.
    """
    labels = [store.label for store in stores]
    return [
        (not labels, "stores is empty: a keep needs at least one"),
        (len(set(labels)) != len(labels), "two stores have one label"),
        (
            bool(stores) and bool(stores[0].url),
            "the first store is a folder: models are served from it",
        ),
        *(problem for store in stores for problem in problems_of(store)),
    ]


def problems_of(store: StoreSettings) -> list[tuple[bool, str]]:
    """What is wrong with one store: whether it is, and what.

    Raises:
        ConfigError: `store.url` or `reference.*`.
    """
    what = f"stores: {store.label[:64]!r}:"
    problems = [
        (
            _LABEL.fullmatch(store.label) is None,
            "a store's label is lower-case letters, digits, '.', '_' and '-'",
        ),
        (bool(store.path) == bool(store.url), f"{what} give either path or url"),
        (store.encoding not in ("", FAST, SMALL), f"{what} encoding is fast or small"),
        (not 0 <= store.retries <= RETRIES_MAX, f"{what} retries: 0 to {RETRIES_MAX}"),
        (not 0 <= store.cache_mb <= CACHE_MB_MAX, f"{what} cache_mb: 0 to {CACHE_MB_MAX}"),
        (not 0 <= store.bytes_per_s < 2**50, f"{what} bytes_per_s: 0 or more"),
        (
            not (0 < store.timeout_s <= TIMEOUT_S_MAX and math.isfinite(store.timeout_s)),
            f"{what} timeout_s: above 0, at most {TIMEOUT_S_MAX:.0f}",
        ),
    ]
    if not store.url:
        elsewhere = (store.credentials, store.region, store.endpoint, store.ca, store.known_hosts)
        problems.append((any(elsewhere) or store.allow_http, f"{what} a folder takes no such key"))
        return problems
    place = parsed_place(store.url)
    if store.credentials not in ("", AMBIENT):
        parsed_secret_reference(store.credentials)
    if place.kind == SFTP:
        return problems + _sftp_problems(store, what)
    is_plain = store.endpoint.startswith("http://")
    return [
        *problems,
        (not store.credentials, f'{what} credentials = "file:/path", "exec:/program" or "ambient"'),
        (bool(store.known_hosts), f"{what} known_hosts is for sftp"),
        (_REGION.fullmatch(store.region) is None, f"{what} region is no region"),
        (place.kind != S3 and bool(store.region), f"{what} region is for s3"),
        (
            bool(store.endpoint) and _ENDPOINT.fullmatch(store.endpoint) is None,
            f"{what} endpoint is https://HOST or https://HOST:PORT",
        ),
        (
            is_plain and not store.allow_http and not _is_loopback(store.endpoint),
            f"{what} endpoint is of another machine: https, or allow_http = true",
        ),
    ]


def _value(text: str, kind: str) -> str | int | float | bool:
    if kind == "bool":
        return text == "true"
    try:
        return int(text) if kind == "int" else float(text) if kind == "float" else text
    except ValueError:
        raise ConfigError("store.option", "an option of a store is no number") from None


def _sftp_problems(store: StoreSettings, what: str) -> list[tuple[bool, str]]:
    pin = store.known_hosts
    is_pinned = pin.startswith("/") or _FINGERPRINT.fullmatch(pin) is not None
    return [
        (
            store.credentials in ("", AMBIENT),
            f'{what} credentials = "file:/path/of/a/private/key" (or exec:)',
        ),
        (not is_pinned, f"{what} known_hosts is the path of a known_hosts file, or SHA256:…"),
        (
            bool(store.endpoint or store.region or store.ca) or store.allow_http,
            f"{what} endpoint, region, ca and allow_http are for object stores",
        ),
    ]


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
