"""Writes the golden sealed files that are not there yet; run it from the repository's root.

A file that is there is never written again: what one version sealed, every later one opens. Each
is a textual header (`expect`, keys, SHA-256 of all plaintext that may come out), an empty line,
and a sealed file. Those in `REPEATABLE` come out the same each time, which
`tests/vectors/test_sealed_file.py` checks; in the others the encapsulation is random.
"""

from __future__ import annotations

import hashlib
import hmac
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from modelkeep.core.record import to_msgpack
from modelkeep.crypto.kdf import Argon2Settings, derived_key
from modelkeep.crypto.keytext import secret_key_text, verifier_text
from modelkeep.crypto.locks import Lock, Passphrase, stanza_of
from modelkeep.crypto.recipients import Identity
from modelkeep.crypto.rsa_keys import rsa_recipient
from modelkeep.crypto.sealed_file import FIRST_LINE, Header, sealed_file
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.crypto.stream import CHUNK_BYTES

HERE = Path(__file__).parent
RSA_PEM = HERE / "rsa-of-these-tests.pem"  # it opens nothing but these files
ME, YOU = (Identity(Secret(hashlib.sha256(name).digest())) for name in (b"me", b"you"))
CHEAP = Argon2Settings(memory_kib=8, passes=1, lanes=1)
WORDS = Passphrase(Secret(b"correct horse battery staple"), CHEAP)
SHORT, LONG = b"weights", b"weights " * (CHUNK_BYTES // 8) + b"end"

Case = tuple[str, dict[str, str], Callable[[], bytes]]


def numbers() -> Callable[[int], bytes]:
    """Entropy of a test: bytes that are the same in every run."""
    count = 0

    def random_bytes(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(b"modelkeep vectors %d" % count).digest(size)

    return random_bytes


def sealed(plain: bytes, locks: Sequence[Lock], signer: Signer | None = None) -> bytes:
    read = io.BytesIO(plain).read
    return b"".join(sealed_file(read, locks=locks, signer=signer, random_bytes=numbers()))


def rsa_lock() -> Lock:
    key = load_pem_private_key(RSA_PEM.read_bytes(), password=None).public_key()
    return rsa_recipient(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def for_two_keys() -> bytes:
    """A file that would be one thing to `me` and another to `you`."""
    mine, yours, salt = Secret(b"m" * 32), Secret(b"y" * 32), b"s" * 32
    header = Header(
        salt=salt,
        commitment=derived_key(mine, "sealed-file/commitment", salt=salt).reveal(),
        stanzas=(
            stanza_of(ME.recipient, mine, random_bytes=numbers()),
            stanza_of(YOU.recipient, yours, random_bytes=numbers()),
        ),
        signer=b"",
    )
    raw = to_msgpack(header)
    start = FIRST_LINE + len(raw).to_bytes(4, "big") + raw
    key = derived_key(yours, "sealed-file/header", salt=salt)
    return start + hmac.digest(key.reveal(), start, "sha256") + bytes(100)


def damaged(change: Callable[[bytearray], object]) -> bytes:
    raw = bytearray(sealed(LONG, [WORDS], ME.signer))
    change(raw)
    return bytes(raw)


def fields(expect: str, plain: bytes, keys: dict[str, str]) -> dict[str, str]:
    return {"expect": expect, "plain": hashlib.sha256(plain).hexdigest(), **keys}


def cut(count: int) -> Callable[[bytearray], object]:
    return lambda raw: raw.__delitem__(slice(len(raw) - count, None))


def flip(at: int) -> Callable[[bytearray], object]:
    return lambda raw: raw.__setitem__(at, raw[at] ^ 1)


def cases() -> list[Case]:
    """Name, header fields, bytes."""
    words = {"passphrase": WORDS.secret.reveal().decode()}
    me = {"identity": secret_key_text(ME.seed).reveal().decode()}
    you = {"identity": secret_key_text(YOU.seed).reveal().decode()}
    rsa = {"rsa": RSA_PEM.name}
    signed = {"signer": verifier_text(ME.signer.public)}
    first = LONG[:CHUNK_BYTES]
    everybody = [YOU.recipient, rsa_lock(), WORDS, ME.recipient]
    return [
        ("passphrase", fields("success", SHORT, words), lambda: sealed(SHORT, [WORDS])),
        ("empty", fields("success", b"", words), lambda: sealed(b"", [WORDS])),
        ("full_chunk", fields("success", first, words), lambda: sealed(first, [WORDS])),
        (
            "signed",
            fields("success", LONG, words | signed),
            lambda: sealed(LONG, [WORDS], ME.signer),
        ),
        (
            "cut_signature",
            fields("sealed.chunk", first, words),
            lambda: damaged(cut(1)),
        ),
        ("cut_chunk", fields("sealed.chunk", b"", words), lambda: damaged(cut(64 + 19))),
        ("flipped_signature", fields("sealed.signature", LONG, words), lambda: damaged(flip(-1))),
        ("flipped_chunk", fields("sealed.chunk", first, words), lambda: damaged(flip(-70))),
        ("flipped_commitment", fields("sealed.commitment", b"", words), lambda: damaged(flip(100))),
        ("more", fields("sealed.chunk", first, words), lambda: damaged(lambda raw: raw.append(0))),
        ("recipient", fields("success", SHORT, me), lambda: sealed(SHORT, [ME.recipient])),
        ("another", fields("sealed.key", b"", you), lambda: sealed(SHORT, [ME.recipient])),
        ("rsa", fields("success", SHORT, rsa), lambda: sealed(SHORT, [rsa_lock()])),
        ("everybody", fields("success", SHORT, me), lambda: sealed(SHORT, everybody)),
        ("two_keys", fields("sealed.commitment", b"", you), for_two_keys),
        ("two_keys_mac", fields("sealed.mac", b"", me), for_two_keys),
    ]


REPEATABLE = frozenset(
    {
        "passphrase",
        "empty",
        "full_chunk",
        "signed",
        "cut_signature",
        "cut_chunk",
        "flipped_signature",
        "flipped_chunk",
        "flipped_commitment",
        "more",
    }
)


def vector(case: Case) -> bytes:
    """The bytes of one golden file."""
    _, header, body = case
    lines = "".join(f"{key}: {value}\n" for key, value in header.items())
    return lines.encode() + b"\n" + body()


def main() -> None:
    """Write what is missing."""
    for case in cases():
        path = HERE / f"v0_{case[0]}"
        if not path.exists():
            path.write_bytes(vector(case))


if __name__ == "__main__":
    main()
