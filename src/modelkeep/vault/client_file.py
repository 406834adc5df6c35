"""What a machine gets that may only hand things in: its key, and the keep's word for it.

    certificate   JSON of `Certificate`, signed by the keep in the context `client`
    client file   JSON of `ClientFile`: where to, for whom, the certificate, the client's seed
    client id     the first 8 bytes of SHA-256 over "modelkeep/v0/client/" and the public key

A client file holds no key that opens anything: the seed only signs, the recipient only seals. So
its thief reads nothing, not even what the client itself handed in.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.record import Record, from_json, to_json
from modelkeep.crypto.kdf import KEY_BYTES, derived_key
from modelkeep.crypto.keytext import verifier_bytes, verifier_text
from modelkeep.crypto.recipients import Recipient, parsed_recipient
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import PUBLIC_KEY_BYTES, Signer, verify

FORMAT = "modelkeep-client-v0"
CLIENT_FILE_BYTES_MAX = 64 * 1024  # ours have about 3 kB; a path may be long
CERTIFICATE_BYTES_MAX = 4096
CLIENT_ID_BYTES = 8
MAY_SUBMIT = "submit"
_CONTEXT = "client"
_PURPOSE = "client/sign"


class Certificate(Record, frozen=True):
    """What the keep says of a client.

    Attributes:
        public: the client's Ed25519 key.
        may: what it may do; so far there is `submit`.
        expires_ns: from when on nothing of it is accepted; 0 for never.
        size_bytes_max: of one submission's files.
    """

    keep_id: str
    client_id: str
    name: str
    public: bytes
    may: tuple[str, ...]
    expires_ns: int
    size_bytes_max: int


class Signed(Record, frozen=True):
    """The exact bytes of a certificate, and the keep's signature over them."""

    body: bytes
    signature: bytes


class ClientFile(Record, frozen=True):
    """All that a client needs.

    Attributes:
        keep: verifier of the keep, `mkv1…`.
        store: folder or address of the store whose inbox takes what is handed in; an address says
            nothing of who the client is there.
        recipient: the inbox's public key, `mkr1…`.
        seed: 32 bytes that the client's signing key follows from; secret.
    """

    format: str
    keep_id: str
    keep: str
    store: str
    recipient: str
    certificate: Signed
    seed: bytes

    def __repr__(self) -> str:
        """Secrets never print."""
        return f"ClientFile({self.keep_id})"


@dataclass(frozen=True, slots=True)
class Client:
    """A client file that was read and found sound."""

    certificate: Certificate
    signed: Signed
    signer: Signer
    recipient: Recipient
    store: str


def client_id_of(public: bytes) -> str:
    """The id that follows from a client's public key."""
    return hashlib.sha256(b"modelkeep/v0/client/" + public).digest()[:CLIENT_ID_BYTES].hex()


def client_signer(seed: Secret) -> Signer:
    """The signing key that follows from a client's seed."""
    return Signer(derived_key(seed, _PURPOSE))


def certified(certificate: Certificate, signer: Signer) -> Signed:
    """Sign a certificate as the keep."""
    body = to_json(certificate)
    return Signed(body=body, signature=signer.sign(body, context=_CONTEXT))


def opened_certificate(signed: Signed, *, public: bytes) -> Certificate:
    """Check a certificate: size, the keep's signature, the record, that its id fits its key.

    Args:
        public: the keep's own key.

    Raises:
        IntegrityError: `inbox.certificate`.
    """
    try:
        if len(signed.body) > CERTIFICATE_BYTES_MAX:
            raise IntegrityError("inbox.certificate", "a client's certificate is too long")
        verify(signed.signature, signed.body, context=_CONTEXT, public=public)
        found = from_json(Certificate, signed.body, what="a client's certificate")
    except IntegrityError as error:
        raise IntegrityError(
            "inbox.certificate", f"a client's certificate is not this keep's: {error.message}"
        ) from error
    is_sound = (
        len(found.public) == PUBLIC_KEY_BYTES
        and found.client_id == client_id_of(found.public)
        and MAY_SUBMIT in found.may
    )
    if not is_sound:
        raise IntegrityError("inbox.certificate", "a client's certificate does not let it submit")
    return found


def client_file(
    signed: Signed, *, keep_id: str, keep: bytes, store: str, recipient: Recipient, seed: Secret
) -> Secret:
    """The bytes of a client file."""
    file = ClientFile(
        format=FORMAT,
        keep_id=keep_id,
        keep=verifier_text(keep),
        store=store,
        recipient=str(recipient),
        certificate=signed,
        seed=seed.reveal(),
    )
    return Secret(to_json(file) + b"\n")


def parsed_client_file(raw: Secret) -> Client:
    """Read a client file and check it against itself.

    Raises:
        UsageError: `client.file`: it is none, or a part of it was changed.
    """
    try:
        file = from_json(ClientFile, raw.reveal(), what="a client file")
        if file.format != FORMAT or len(file.seed) != KEY_BYTES:
            raise IntegrityError("inbox.certificate", "its form is another one")
        certificate = opened_certificate(file.certificate, public=verifier_bytes(file.keep))
        signer = client_signer(Secret(file.seed))
        recipient = parsed_recipient(file.recipient)
        if (certificate.public, certificate.keep_id) != (signer.public, file.keep_id):
            raise IntegrityError("inbox.certificate", "its key is not the one in its certificate")
    except (IntegrityError, UsageError) as error:
        # The decoder's message names places in the file, never values: the seed is not in it.
        raise UsageError(
            "client.file",
            f"this is no client file, or a part of it was changed: {error.message}",
            hint="the keep's owner makes one: `modelkeep clients add NAME --out FILE`",
        ) from None
    return Client(
        certificate=certificate,
        signed=file.certificate,
        signer=signer,
        recipient=recipient,
        store=file.store,
    )
