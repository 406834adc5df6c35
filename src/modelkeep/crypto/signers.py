"""Who may have signed: keys, roots of certificates and verifiers, each with a name for policies.

mkv1…          an Ed25519 key of modelkeep, spelled out
key:<64 hex>   an elliptic-curve key, by the SHA-256 of its PEM text
root:<64 hex>  a root certificate, by the SHA-256 of its DER form
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from modelkeep.crypto.ec_signatures import EcPublic, ec_public
from modelkeep.crypto.key_files import public_keys
from modelkeep.crypto.keytext import verifier_text
from modelkeep.crypto.signing_chains import chained_key
from modelkeep.crypto.trusted import trusted_certificates

KEY, ROOT = "key:", "root:"


@dataclass(frozen=True, slots=True)
class Root:
    """A certificate that is trusted to say who signs."""

    certificate: x509.Certificate

    @property
    def name(self) -> str:
        """As a policy names it."""
        return ROOT + self.certificate.fingerprint(SHA256()).hex()

    def key_of(self, chain: Sequence[bytes]) -> EcPublic:
        """The key at the end of a chain that begins here.

        Raises:
            KeepError: as `chained_key`.
        """
        return chained_key(chain, roots=[self.certificate])


@dataclass(frozen=True, slots=True)
class Signers:
    """Those whose signatures are looked for."""

    keys: tuple[EcPublic, ...] = ()
    roots: tuple[Root, ...] = ()
    verifiers: tuple[bytes, ...] = ()

    def __add__(self, other: Signers) -> Signers:
        return Signers(
            self.keys + other.keys, self.roots + other.roots, self.verifiers + other.verifiers
        )

    def names(self) -> Iterator[str]:
        """Of all of them, as a policy names them."""
        yield from (key_name(each) for each in self.keys)
        yield from (each.name for each in self.roots)
        yield from map(verifier_text, self.verifiers)


def key_name(key: EcPublic) -> str:
    """A key as a policy names it."""
    return KEY + key.fingerprint


def signers_of(raw: bytes, *, what: str) -> Signers:
    """Read who is in a file: certificates or a public key (PEM), or verifiers (`mkv1…`).

    Raises:
        UsageError: `ec.key`, `key.*`.
        ConfigError: `config.certificates`.
    """
    if b"-----BEGIN CERTIFICATE-----" in raw:
        return Signers(roots=tuple(map(Root, trusted_certificates(raw, what=what))))
    if raw.lstrip().startswith(b"-----BEGIN "):
        return Signers(keys=(ec_public(raw),))
    return Signers(verifiers=public_keys(raw).verifiers)
