"""Settings of models that other servers answer for: `[[upstreams]]` of modelkeep.toml."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from urllib.parse import urlsplit

from modelkeep.core.artifact import checked_model_name
from modelkeep.core.errors import KeepError
from modelkeep.core.record import Record
from modelkeep.core.reference import parsed_secret_reference
from modelkeep.core.text import TextKind

UPSTREAMS_MAX = 64
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class UpstreamSettings(Record, frozen=True):
    """A table `[[upstreams]]` of modelkeep.toml: a model of another OpenAI-compatible server.

    Attributes:
        name: the model's name here.
        url: where the server's `/v1` is, such as `https://vllm.internal:8000/v1`.
        model: the model's name there; empty for the same.
        key: where the server's API key lies: `file:/path` or `exec:/program`; empty for none.
        ca: PEM file with the authorities that the server's certificate may come from; empty for
            the system's.
        networks: private addresses that the server's name may stand for, such as `10.1.0.0/16`;
            others are refused, unless the address itself stands in `url`.
        kinds: what it is asked for: `chat`, `completion` and `embedding`.
        domain: whose principals may call it.
        calls_max: calls under way there at once; further calls wait.
        timeout_s: from a call's start to its end, and 10 s at most for connecting.
        silence_s_max: between two parts of an answer, and before the first.
        answer_bytes_max: of one answer.
        retries: how often a call is sent again of which nothing came back, or which the server was
            too busy for.
    """

    name: str
    url: str
    model: str = ""
    key: str = ""
    ca: str = ""
    networks: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ("chat", "completion")
    domain: str = "default"
    calls_max: int = 256
    timeout_s: float = 300.0
    silence_s_max: float = 60.0
    answer_bytes_max: int = 64 * 1024 * 1024
    retries: int = 2


def upstream_problems(upstreams: Sequence[UpstreamSettings]) -> list[tuple[bool, str]]:
    """What is wrong with the tables; an address is never repeated, it may hold a password."""
    names = [each.name for each in upstreams]
    problems = [
        (len(set(names)) != len(names), "upstreams: two have one name"),
        (len(names) > UPSTREAMS_MAX, f"upstreams: more than {UPSTREAMS_MAX}"),
    ]
    for each in upstreams:
        if each.key:
            parsed_secret_reference(each.key)
        where = f"upstreams.{each.name[:80]!r}"
        problems += [
            (not _is_name(each.name), f"{where}.name is no name of a model"),
            (
                not _is_address(each.url),
                f"{where}.url is no https:// address without a password (http:// for loopback)",
            ),
            (not 1 <= each.calls_max <= 65_536, f"{where}.calls_max: 1 to 65536"),
            (not 0 < each.timeout_s <= 86_400, f"{where}.timeout_s: up to a day"),
            (not 0 < each.silence_s_max <= 86_400, f"{where}.silence_s_max: up to a day"),
            (not 1 <= each.answer_bytes_max <= 2**30, f"{where}.answer_bytes_max: up to 1 GiB"),
            (not 0 <= each.retries <= 10, f"{where}.retries: 0 to 10"),
            (not _are_kinds(each.kinds), f"{where}.kinds: chat, completion, embedding"),
            (not all(map(_is_network, each.networks)), f"{where}.networks: such as 10.1.0.0/16"),
        ]
    return problems


def _is_name(name: str) -> bool:
    try:
        checked_model_name(name)
    except KeepError:
        return False
    return True


def _are_kinds(kinds: Sequence[str]) -> bool:
    return bool(kinds) and len(set(kinds)) == len(kinds) and set(kinds) <= set(TextKind)


def _is_network(text: str) -> bool:
    try:
        return ip_network(text).prefixlen > 0
    except ValueError:
        return False


def _is_address(url: str) -> bool:
    """Over a network only with TLS: the key and every prompt go there."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
    has_more = "@" in parts.netloc or bool(parts.query) or bool(parts.fragment)
    return is_safe and bool(host) and not has_more and url.isprintable() and len(url) <= 2000
