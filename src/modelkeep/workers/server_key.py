"""The server's certificate with its key: where it comes from, and when it is looked for again.

Either the keep's own authority makes one, with a key that never touches a disk, again before it
ends; or `[serve]` names a file with a chain and where its key lies, which are read again when they
change. Whoever writes them may write one after the other: what does not fit together is not served,
and looked at again until it does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from modelkeep.adapters.keysource_exec import program_output
from modelkeep.adapters.keysource_file import protected_bytes
from modelkeep.adapters.tls import server_context
from modelkeep.config import Config
from modelkeep.core.errors import PATH_HINT, MissingError, UsageError
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.reference import FileReference, parsed_secret_reference
from modelkeep.crypto.certificates import SERVER_DAYS, server_certificate
from modelkeep.crypto.served_certificate import served_certificate
from modelkeep.flows.keep import OpenKeep
from modelkeep.flows.settings import ServeSettings
from modelkeep.wiring import Warn

PEM_BYTES_MAX = 1024 * 1024
LOOK_S = 1.0
# An own certificate is made anew after two thirds of its time; a failure leaves a month to notice.
RENEW_S = SERVER_DAYS * 86_400 * 2 / 3

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(slots=True)
class ServerKey:
    """When the certificate is due again.

    Attributes:
        folder: of the keep: what a relative path begins at.
        warn: told what of a given certificate will keep clients away.
        fingerprint: SHA-256 of the given certificate that was read last and can be served; empty
            for an own one.
    """

    folder: Path
    serve: ServeSettings
    warn: Warn = lambda _: None
    fingerprint: str = ""
    _stamp: _Stamp = ()
    _made_ns: int = 0
    _not_before_s: float = 0.0

    @property
    def is_own(self) -> bool:
        """Whether the keep's own authority makes it."""
        return not self.serve.certificate

    def made(self, keep: OpenKeep, config: Config) -> bytes:
        """A certificate of the keep's own authority, PEM with its key.

        Raises:
            UsageError: `serve.hostname`.
        """
        own = (config.serve.host, "localhost", "127.0.0.1", "::1")
        self._made_ns = keep.clock.now_ns()
        self.fingerprint = ""
        return server_certificate(
            keep.authority,
            keep_id=keep.keep_id,
            hosts=tuple(dict.fromkeys((*own, *config.serve.hostnames))),
            now_ns=self._made_ns,
        ).reveal()

    def given(self, now_ns: int) -> bytes:
        """The certificate and key that `[serve]` names, as they are now.

        Raises:
            MissingError: `file.missing` or `keysource.missing`.
            UsageError: `tls.certificate`, when they do not fit together, or the certificate is
                expired or not valid yet.
            RefusedError: `keysource.exposed`, when others may read the key.
            UnavailableError: `keysource.unavailable`.
        """
        self._stamp = self._stamped()
        chain = pem_file(self.folder / self.serve.certificate, what="serve.certificate")
        reference = parsed_secret_reference(self.serve.key)
        if isinstance(reference, FileReference):
            key = protected_bytes(reference.path, bytes_max=PEM_BYTES_MAX)
        else:
            key = program_output(reference.words)
        whole = chain.rstrip() + b"\n" + key
        server_context(whole)
        certificate = served_certificate(chain)
        certificate.demand_current(now_ns)
        for doubt in certificate.doubts((self.serve.host, *self.serve.hostnames), now_ns):
            self.warn(doubt)
        self.fingerprint = certificate.fingerprint
        return whole

    def is_changed(self) -> bool:
        """Whether the named files are other ones than when they were read; looks once a second."""
        if self.is_own or time.monotonic() < self._not_before_s:
            return False
        self._not_before_s = time.monotonic() + LOOK_S
        return self._stamped() != self._stamp

    def is_due(self, now_ns: int) -> bool:
        """Whether an own certificate is to be made anew."""
        return self.is_own and now_ns - self._made_ns > RENEW_S * NS_PER_S

    def _stamped(self) -> _Stamp:
        reference = parsed_secret_reference(self.serve.key)
        paths = [self.folder / self.serve.certificate]
        if isinstance(reference, FileReference):
            paths.append(Path(reference.path))
        found = []
        for path in paths:
            try:
                facts = path.stat()
                found.append((facts.st_mtime_ns, facts.st_size, facts.st_ino))
            except OSError:
                found.append((0, 0, 0))
        return tuple(found)


def pem_file(path: Path, *, what: str) -> bytes:
    """Read a file of certificates.

    Raises:
        MissingError: `file.missing`.
        UsageError: `tls.certificate`.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(PEM_BYTES_MAX + 1)
    except OSError as error:
        raise MissingError(
            "file.missing", f"{what}: {path}: {error.strerror}", hint=PATH_HINT
        ) from error
    if len(raw) > PEM_BYTES_MAX or b"-----BEGIN CERTIFICATE-----" not in raw:
        raise UsageError("tls.certificate", f"{what}: {path} holds no certificate in PEM")
    return raw
