"""Evidence by software: a key in a file, and what a program can see of its own host.

It proves that whoever made it could read the key file, and no more. Everything else in it is what
this process saw: whoever is root on the host, or may write to the installed package, can make it
say anything. Evidence of hardware (a TPM's quote, the report of SEV-SNP or TDX) comes through
`exec:` in the same form.

What is measured, and allowed or not by who verifies it:
- `modelkeep`: SHA-256 over the paths and digests of the installed package's files.
- `python`, `kernel`: their versions.
- `secure_boot`: on, off, or unknown where the firmware does not say.
- `lockdown`: of the kernel: none, integrity, confidentiality, or unknown.

`dbgstat` says that nothing traced this very process at that moment.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import uuid
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from modelkeep.adapters.evidence_eat import (
    DEBUG_OFF,
    anchor_of,
    new_key,
    signed_evidence,
)
from modelkeep.adapters.keysource_file import create_protected, secret_from_file
from modelkeep.core.errors import KeepError, RefusedError, UnavailableError, UsageError
from modelkeep.core.instant import NS_PER_S
from modelkeep.crypto.secret import Secret
from modelkeep.ports.clock import Clock

_PACKAGE = Path(__file__).resolve().parents[1]
_SECURE_BOOT = Path("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c")
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STATUS = Path("/proc/self/status")
_UNKNOWN = "unknown"


class SoftwareAttester:
    """Signs with the key of a file, which it reads each time.

    Args:
        measure: what is measured; the host itself unless a test says otherwise.
    """

    def __init__(
        self, path: str, *, clock: Clock, measure: Callable[[], dict[str, str]] | None = None
    ) -> None:
        self._path = path
        self._clock = clock
        self._measure = measure or measured_host

    def evidence(self, nonce: bytes) -> bytes:
        private = self._private()
        try:
            return signed_evidence(
                private,
                nonce=nonce,
                issued_s=self._clock.now_ns() // NS_PER_S,
                debug="enabled" if is_traced() else DEBUG_OFF[0],
                measured=self._measure(),
                claims=_told(),
                boot=_boot(),
            )
        except UsageError as error:
            raise UnavailableError(
                "attest.unavailable", f"{self._path}: {error.message}"
            ) from error

    def _private(self) -> Secret:
        try:
            return secret_from_file(self._path)
        except RefusedError as error:
            raise RefusedError("attest.key", error.message, hint=error.hint) from error
        except KeepError as error:
            raise UnavailableError(
                "attest.unavailable",
                f"there is no attestation key in {self._path}",
                hint="`modelkeep attest new FILE` makes one",
            ) from error


def new_key_file(path: Path, *, algorithm: str) -> tuple[str, bytes]:
    """Make an attestation key in a file, mode 0600, durable; never over another file.

    Returns:
        The UEID of a host with this key, and the public half in PEM form.

    Raises:
        UsageError: `keysource.exists`.
        UnavailableError: `keysource.unavailable`.
    """
    private, public = new_key(algorithm)
    create_protected(path, private.reveal(), hint="a host whose key is overwritten is another host")
    return anchor_of(public).ueid, public


def measured_host() -> dict[str, str]:
    """What a program can see of the host; the list is in the module's docstring."""
    return {
        "modelkeep": package_digest(_PACKAGE),
        "python": platform.python_version(),
        "kernel": os.uname().release.replace("=", "_"),
        "secure_boot": _secure_boot(),
        "lockdown": _lockdown(),
    }


def package_digest(folder: Path) -> str:
    """SHA-256 over the paths and digests of a folder's files; compiled Python does not count."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            whole.update(f"{digest}  {path.relative_to(folder).as_posix()}\n".encode())
    return f"sha-256:{whole.hexdigest()}"


def is_traced() -> bool:
    """Whether a debugger is attached to this process, or nothing says that none is."""
    for line in _read(_STATUS).decode(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name == "TracerPid":
            return value.strip() != "0"
    return True


def _told() -> dict[str, object]:
    """Claims that nobody compares: what made the evidence."""
    claims: dict[str, object] = {"swname": "modelkeep"}
    with contextlib.suppress(PackageNotFoundError):  # it runs from its source
        claims["swversion"] = [version("modelkeep"), "semver"]
    return claims


def _boot() -> bytes:
    """Another one after each start of the host; empty where the kernel does not say."""
    try:
        return uuid.UUID(_read(_BOOT_ID).decode().strip()).bytes
    except ValueError:
        return b""


def _secure_boot() -> str:
    raw = _read(_SECURE_BOOT)  # four bytes of attributes, then the value
    return {b"\x00": "off", b"\x01": "on"}.get(raw[4:], _UNKNOWN)


def _lockdown() -> str:
    text = _read(_LOCKDOWN).decode(errors="replace")  # none [integrity] confidentiality
    chosen = text.partition("[")[2].partition("]")[0]
    return chosen if chosen in ("none", "integrity", "confidentiality") else _UNKNOWN


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
