"""The public age format, written by hand: right files, and wrong ones on purpose.

After the specification (C2SP, age): X25519 stanzas, HMAC over the header, STREAM with
ChaCha20-Poly1305. Independent of the library that reads them in modelkeep.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

CHUNK = 64 * 1024
FILE_KEY = b"YELLOW SUBMARINE"
EPHEMERAL = bytes(range(32))
NONCE = bytes(range(16))
VERSION = "age-encryption.org/v1"
_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def b64(raw: bytes) -> str:
    """Base64 without padding."""
    return base64.b64encode(raw).decode().rstrip("=")


def hkdf(secret: bytes, *, salt: bytes, info: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info.encode()).derive(secret)


def bech32(prefix: str, raw: bytes) -> str:
    """BIP 173, as age spells its keys."""
    bits = "".join(f"{byte:08b}" for byte in raw)
    bits += "0" * (-len(bits) % 5)
    values = [int(bits[at : at + 5], 2) for at in range(0, len(bits), 5)]
    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    check = _polymod([*expanded, *values, 0, 0, 0, 0, 0, 0]) ^ 1
    values += [check >> 5 * (5 - at) & 31 for at in range(6)]
    return prefix + "1" + "".join(_ALPHABET[value] for value in values)


def _polymod(values: Sequence[int]) -> int:
    found = 1
    for value in values:
        top = found >> 25
        found = (found & 0x1FFFFFF) << 5 ^ value
        for at, generator in enumerate(
            (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
        ):
            found ^= generator if top >> at & 1 else 0
    return found


def identity_text(private: bytes) -> str:
    return bech32("age-secret-key-", private).upper()


def recipient_text(private: bytes) -> str:
    return bech32(
        "age", X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    )


def body_lines(raw: bytes) -> str:
    """A stanza's body in lines of 64 characters, the last one shorter."""
    text = b64(raw)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    if not lines or len(lines[-1]) == 64:
        lines.append("")
    return "\n".join(lines)


def x25519_stanza(
    private: bytes, *, file_key: bytes = FILE_KEY, share: bytes | None = None, more: str = ""
) -> str:
    """A stanza for the owner of a private key."""
    ephemeral = X25519PrivateKey.from_private_bytes(EPHEMERAL)
    public = X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    own = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
    key = hkdf(shared, salt=own + public, info=VERSION + "/X25519")
    body = ChaCha20Poly1305(key).encrypt(bytes(12), file_key, None)
    return f"-> X25519 {b64(own if share is None else share)}{more}\n{body_lines(body)}\n"


def header(stanzas: Sequence[str], *, file_key: bytes = FILE_KEY, version: str = VERSION) -> bytes:
    """A header with a right MAC."""
    text = f"{version}\n" + "".join(stanzas) + "---"
    key = hkdf(file_key, salt=b"", info="header")
    return f"{text} {b64(hmac.digest(key, text.encode(), 'sha256'))}\n".encode()


def chunk(plain: bytes, number: int, *, is_last: bool) -> bytes:
    key = hkdf(FILE_KEY, salt=NONCE, info="payload")
    nonce = number.to_bytes(11, "big") + bytes([is_last])
    return ChaCha20Poly1305(key).encrypt(nonce, plain, None)


def payload(plain: bytes) -> bytes:
    """The nonce and all chunks."""
    parts = [plain[at : at + CHUNK] for at in range(0, len(plain), CHUNK)] or [b""]
    last = len(parts) - 1
    return NONCE + b"".join(chunk(each, n, is_last=n == last) for n, each in enumerate(parts))


def armoured(raw: bytes) -> bytes:
    text = base64.b64encode(raw).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    begin, end = (f"-----{word} AGE ENCRYPTED FILE-----" for word in ("BEGIN", "END"))
    return "\n".join((begin, *lines, end, "")).encode()
