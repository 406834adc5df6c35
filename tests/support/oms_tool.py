"""The public tool of the OpenSSF Model Signing project, with keys and certificates for it."""

from __future__ import annotations

import datetime
import importlib
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def tool(name: str) -> Any:
    """A module of the tool; loading it takes most of a second: tests do so when they run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"model_signing.{name}")


@dataclass(frozen=True)
class Signer:
    """Somebody with a key, who uses the public tool."""

    folder: Path
    private: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def key(self) -> Path:
        """The private key as a file."""
        raw = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return _written(self.folder / "signer.key", raw)

    @property
    def public(self) -> Path:
        """The public key as a file."""
        raw = self.private.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        return _written(self.folder / "signer.pub", raw)

    def sign(self, model: Path, signature: Path, config: Any = None) -> Path:
        """Sign as the tool does by default, but for the given hashing."""
        signing = tool("signing").Config().use_elliptic_key_signer(private_key=self.key)
        return _signed(signing, model, signature, config)

    def certify(self, model: Path, signature: Path, chain: list[x509.Certificate]) -> Path:
        """Sign with a certificate."""
        leaf, *others = [
            _written(self.folder / f"chain-{at}.pem", each.public_bytes(Encoding.PEM))
            for at, each in enumerate(chain)
        ]
        signing = (
            tool("signing")
            .Config()
            .use_certificate_signer(
                private_key=self.key, signing_certificate=leaf, certificate_chain=others
            )
        )
        return _signed(signing, model, signature, None)


def accepts(model: Path, signature: Path, public: Path) -> bool:
    """Whether the tool takes a signature, as it stands by default."""
    verifying = tool("verifying").Config().use_elliptic_key_verifier(public_key=public)
    try:
        verifying.verify(model, signature)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Authority:
    """A certificate and its key."""

    certificate: x509.Certificate
    private: Any

    @classmethod
    def root(cls, name: str = "root", **options: Any) -> Authority:
        private = ec.generate_private_key(ec.SECP384R1())
        return cls(certified(name, private.public_key(), name, private, **options), private)

    def authority(self, name: str, **options: Any) -> Authority:
        """An authority below."""
        private = ec.generate_private_key(ec.SECP256R1())
        return Authority(self.issued(name, private.public_key(), **options), private)

    def issued(self, name: str, public: Any, **options: Any) -> x509.Certificate:
        """A certificate of this authority."""
        issuer = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        return certified(name, public, str(issuer), self.private, **options)


def certified(
    name: str,
    public: Any,
    issuer: str,
    key: Any,
    *,
    is_authority: bool = True,
    depth: int | None = None,
    signs: bool = True,
    code: bool = False,
    start: datetime.datetime = START,
) -> x509.Certificate:
    """A certificate; `signs` is keyCertSign of an authority, digitalSignature of others."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=90))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=depth), critical=True)
        .add_extension(_usage(is_authority=is_authority, signs=signs), critical=True)
    )
    if code:
        use = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
        builder = builder.add_extension(use, critical=False)
    return builder.sign(key, SHA256())


def _usage(*, is_authority: bool, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs and not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs and is_authority,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(signing: Any, model: Path, signature: Path, config: Any) -> Path:
    if config is not None:
        signing.set_hashing_config(config)
    signing.sign(model, signature)
    return signature


def _written(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path
