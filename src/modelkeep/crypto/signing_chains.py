"""The key of a signing certificate, if its chain leads to an authority that is trusted.

1. Every certificate is in DER, and there are few.
2. The chain leads to one of the roots; authorities say that they are (BasicConstraints, and
   keyCertSign where they have a KeyUsage), paths are as short as they demand.
3. The first certificate may sign: digitalSignature, or code signing.

There is no proof of when something was signed, so the chain is looked at as of the beginning of the
signing certificate, as the public OMS tool does: what a certificate signed outlives it, and a
certificate that was revoked is not noticed.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from modelkeep.core.errors import IntegrityError, RefusedError
from modelkeep.crypto.ec_signatures import EcPublic, taken

CHAIN_MAX = 16
# A certificate has one to four kilobytes; one with a thousand names is no signer's.
CERTIFICATE_BYTES_MAX = 32 * 1024
# What the library raises of a certificate that cannot be read; not all of it is a ValueError.
_UNREADABLE = (
    ValueError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
)


def chained_key(chain: Sequence[bytes], *, roots: Sequence[x509.Certificate]) -> EcPublic:
    """The key of the first certificate; the numbers are those of the module.

    Raises:
        IntegrityError: `chain.certificate`.
        RefusedError: `chain.untrusted` or `chain.usage`.
        UsageError: `ec.key`.
    """
    if not 1 <= len(chain) <= CHAIN_MAX or max(map(len, chain)) > CERTIFICATE_BYTES_MAX:  # 1
        raise IntegrityError("chain.certificate", "the chain is empty or too long")
    try:
        leaf, *between = map(x509.load_der_x509_certificate, chain)
        _verify(leaf, between, roots)  # 2
        may_sign = _may_sign(leaf)  # 3
        key = leaf.public_key()
    except VerificationError as error:
        raise RefusedError(
            "chain.untrusted",
            f"the signing certificate does not lead to a root that is trusted: {error!s:.200}",
        ) from None
    except _UNREADABLE as error:
        raise IntegrityError(
            "chain.certificate", f"a certificate of the chain cannot be read: {error!s:.200}"
        ) from None
    if not may_sign:
        raise RefusedError("chain.usage", "the certificate is for other uses than signing")
    return taken(key)


def _verify(
    leaf: x509.Certificate, between: list[x509.Certificate], roots: Sequence[x509.Certificate]
) -> None:
    authorities = (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _demand_authority)
    )
    policy = PolicyBuilder().store(Store(list(roots))).time(leaf.not_valid_before_utc)
    policy = policy.extension_policies(
        ca_policy=authorities, ee_policy=ExtensionPolicy.permit_all()
    )
    policy.build_client_verifier().verify(leaf, between)


def _demand_authority(
    policy: Policy, certificate: x509.Certificate, usage: x509.KeyUsage | None
) -> None:
    del policy, certificate
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("an authority's certificate may not sign certificates")


def _may_sign(leaf: x509.Certificate) -> bool:
    for extension in leaf.extensions:
        value = extension.value
        if isinstance(value, x509.KeyUsage) and value.digital_signature:
            return True
        if isinstance(value, x509.ExtendedKeyUsage) and ExtendedKeyUsageOID.CODE_SIGNING in value:
            return True
    return False
