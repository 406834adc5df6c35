"""What the operator demands of the machine that models are served from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from modelkeep.core.errors import UsageError
from modelkeep.core.record import Record
from modelkeep.core.sizes import parsed_size
from modelkeep.kernels.versions import demand_specifier

ACCELERATORS = ("cuda", "rocm")
_LIST_MAX = 100
_TEXT_CHARS_MAX = 500
_DEFAULT_PORTS = {"postgres": 5432, "postgresql": 5432, "http": 80, "https": 443, "tcp": 0}


class Demands(Record, frozen=True):
    """Table `[preflight.demand]` or `[preflight.advise]`: what a machine should have.

    Attributes:
        min_ram: memory that is free, within what a container allows: `8 GiB`; empty for none.
        min_disk: room that is free beside the keep: `20 GiB`; empty for none.
        cpu_flags: as `/proc/cpuinfo` names them: `avx2`, `avx512_bf16`, `amx_bf16`.
        accelerators: `cuda` or `rocm`; with a number (`cuda:2`) that many devices.
        os: a system (`linux`) or a distribution (`debian`, `ubuntu 24.04`); one of them suffices.
        kernel: as PEP 440 writes demands: `>=5.13`.
        libc: a C library and its versions: `glibc>=2.31`.
        python: `>=3.11`.
        packages: installed Python packages: `numpy>=2`; the name alone for any version.
        reachable: `host:port`, `postgresql://host/database`, `https://host`, or a file's path.
        ports_free: TCP ports that nobody listens on.
    """

    min_ram: str = ""
    min_disk: str = ""
    cpu_flags: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()
    os: tuple[str, ...] = ()
    kernel: str = ""
    libc: str = ""
    python: str = ""
    packages: tuple[str, ...] = ()
    reachable: tuple[str, ...] = ()
    ports_free: tuple[int, ...] = ()


NOTHING = Demands()


class PreflightSettings(Record, frozen=True):
    """Table `[preflight]` of modelkeep.toml.

    Attributes:
        demand: without this `serve` does not start.
        advise: where this is missing, `serve` warns and starts.
        reach_timeout_s: for each place that is to be reached; all are tried at once.
    """

    demand: Demands = NOTHING
    advise: Demands = NOTHING
    reach_timeout_s: float = 2.0


def preflight_problems(settings: PreflightSettings) -> list[tuple[bool, str]]:
    """What is wrong with `[preflight]`, as `config` lists it."""
    problems = [
        (
            not 0 < settings.reach_timeout_s <= 60,
            "preflight.reach_timeout_s is not between 0 and 60",
        )
    ]
    for name in ("demand", "advise"):
        try:
            demand_sound(getattr(settings, name))
        except UsageError as error:
            problems.append((True, f"preflight.{name}: {error.message}"))
    return problems


def demand_sound(demands: Demands) -> None:
    """Accept demands that can be checked.

    Raises:
        UsageError: `require.value`, `size.text` or `version.specifier`.
    """
    for size in (demands.min_ram, demands.min_disk):
        if size:
            parsed_size(size)
    named = [named_versions(each)[1] for each in (demands.libc, *demands.packages)]
    for specifier in (demands.kernel, demands.python, *named):
        demand_specifier(specifier)
    for each in demands.accelerators:
        accelerator(each)
    for each in demands.reachable:
        place(each)
    for port in demands.ports_free:
        if not 1 <= port <= 65535:
            raise UsageError("require.value", f"{port} is no TCP port", hint="1 to 65535")
    for texts in (demands.cpu_flags, demands.os, demands.packages):
        _demand_words(texts)


def accelerator(text: str) -> tuple[str, int]:
    """A kind of device and how many of them: `cuda`, `cuda:2`.

    Raises:
        UsageError: `require.value`.
    """
    kind, _, many = text.partition(":")
    if kind not in ACCELERATORS or (many and not (many.isdigit() and 0 < int(many) < 1000)):
        raise UsageError(
            "require.value",
            f"{text[:40]!r} is no accelerator that is known here",
            hint=f"{', '.join(ACCELERATORS)}; `cuda:2` for two devices",
        )
    return kind, int(many or 1)


def place(text: str) -> tuple[str, str, int]:
    """A place to be reached: its kind (`file`, `tcp`, `postgres`), host or path, and port.

    Raises:
        UsageError: `require.value`; it does not quote an address, which may hold a password.
    """
    if text.startswith(("file:", "/", "./", "../")):
        return "file", text.removeprefix("file:").removeprefix("//"), 0
    try:
        parts: Any = urlsplit(text if "://" in text else f"tcp://{text}")
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
        host = parts.hostname or ""
    except ValueError:
        host, port = "", 0
    if not host or not port or len(text) > _TEXT_CHARS_MAX:
        raise UsageError(
            "require.value",
            "a place to be reached names no host and port, nor a path",
            hint="host:port, postgresql://host/database, https://host, or /path",
        )
    return ("postgres" if parts.scheme.startswith("postgres") else "tcp"), host, port


def shown_place(text: str) -> str:
    """A place without what may be secret in it: user, password, options."""
    kind, host, port = place(text)
    if kind == "file":
        return host
    name = f"[{host}]" if ":" in host else host
    return f"{kind}://{name}:{port}" if kind == "postgres" else f"{name}:{port}"


def named_versions(text: str) -> tuple[str, str]:
    """`glibc>=2.31` as a name and what is demanded of its version."""
    at = next((index for index, char in enumerate(text) if char in "<>=!~ "), len(text))
    return text[:at].strip(), text[at:].strip()


def _demand_words(texts: Iterable[str]) -> None:
    words = list(texts)
    if len(words) > _LIST_MAX or any(not 0 < len(each) <= _TEXT_CHARS_MAX for each in words):
        raise UsageError("require.value", f"a list has over {_LIST_MAX} names, or an empty one")
