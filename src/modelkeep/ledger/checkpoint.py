r"""Signed tree heads: C2SP tlog-checkpoint inside a C2SP signed note, with Ed25519.

    <origin>\n<size>\n<base64 root>\n[extension lines]\n\n— <origin> <base64(key id || signature)>\n

- key id = first 4 bytes of SHA-256(name || 0x0A || 0x01 || public key); the key's name is the
  origin. `verifier_key` prints the line by which any public verifier knows the key.
- Verification reads strictly and in this order: 1. size and UTF-8 without control characters;
  2. the last blank line parts text from signatures, and every signature line is well-formed in
  canonical base64 (a decoder that ignores the unused bits of the last character would let one
  flipped bit pass); 3. lines of unknown keys are ignored, lines of the known key must verify and
  at least one must be there; 4. only then is the text read, and its origin must be ours.
- Ed25519 is deterministic: the same tree always becomes the same bytes, so that publishing again
  after a crash is harmless.
- A checkpoint's number in its series is its size. It says nothing about time; entries do.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.crypto.signatures import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, verify_bare
from modelkeep.ledger.tree import HASH_BYTES
from modelkeep.ports.note_signer import NoteSigner

# A checkpoint is about 250 bytes; 16 post-quantum cosignatures of 5 kB each still fit.
CHECKPOINT_BYTES_MAX = 128 * 1024
ORIGIN_CHARS_MAX = 200

# What a key signs, told by the first byte of its encoding (C2SP signed-note, "Signature types").
LOG_KEY = b"\x01"
WITNESS_KEY = b"\x04"
KEY_ID_BYTES = 4
_ORIGIN = re.compile(r"[!-*,-~]+")  # printable ASCII without space and '+'
_SIZE = re.compile(r"0|[1-9][0-9]{0,11}")  # 12 digits: the width of the series
_SIGNATURE_LINE = re.compile(r"\u2014 (?P<name>[^ +]+) (?P<blob>[A-Za-z0-9+/]+={0,2})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head whose signature was made or verified by this file.

    Attributes:
        raw: the exact signed note.
    """

    origin: str
    size: int
    root: bytes
    raw: bytes
    extensions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One signature of a note, not verified yet.

    Attributes:
        line: as it stands in the note, without its newline.
    """

    name: str
    key_id: bytes
    signature: bytes
    line: str

    def is_by(self, name: str, key: bytes) -> bool:
        """Whether the line claims to be of this key."""
        return self.name == name and self.key_id == key


def checked_origin(origin: str) -> str:
    """Accept an origin that can also be a key name: printable ASCII, no space, no '+'.

    Raises:
        UsageError: `ledger.origin`.
    """
    if len(origin) > ORIGIN_CHARS_MAX or _ORIGIN.fullmatch(origin) is None:
        raise UsageError(
            "ledger.origin",
            f"{origin[:80]!r} cannot be the origin of a log",
            hint="use something like example.org/keep/main",
        )
    return origin


def key_id(name: str, public: bytes, kind: bytes = LOG_KEY) -> bytes:
    """The 4 bytes that tell a signature's key."""
    return hashlib.sha256(name.encode() + b"\n" + kind + public).digest()[:KEY_ID_BYTES]


def verifier_key(name: str, public: bytes, kind: bytes = LOG_KEY) -> str:
    """The key as public verifiers take it (Go's sumdb/note): `name+hex key id+base64 key`."""
    encoded = base64.b64encode(kind + public).decode()
    return f"{checked_origin(name)}+{key_id(name, public, kind).hex()}+{encoded}"


def parsed_verifier_key(text: str, kind: bytes = LOG_KEY) -> tuple[str, bytes]:
    """The name and the public key in a line that `verifier_key` printed.

    Raises:
        UsageError: `ledger.verifier_key`.
    """
    name, _, rest = text.strip().partition("+")
    _, _, encoded = rest.partition("+")
    key = decoded_base64(encoded)
    is_key = key is not None and len(key) == 1 + PUBLIC_KEY_BYTES and key.startswith(kind)
    if key is not None and is_key and len(name) <= ORIGIN_CHARS_MAX and _ORIGIN.fullmatch(name):
        public = key[1:]
        if verifier_key(name, public, kind) == text.strip():
            return name, public
    of_what = "a log" if kind == LOG_KEY else "a witness"
    raise UsageError(
        "ledger.verifier_key",
        f"that is not a verifier key of {of_what}",
        hint=f"it looks like NAME+1234abcd+{'AQ' if kind == LOG_KEY else 'BA'}…",
    )


def signed_checkpoint(origin: str, *, size: int, root: bytes, signer: NoteSigner) -> Checkpoint:
    """Sign a tree head."""
    name = checked_origin(origin)
    text = f"{name}\n{size}\n{base64.b64encode(root).decode()}\n"
    line = signature_line(name, key_id(name, signer.public), signer.sign_bare(text.encode()))
    return Checkpoint(name, size, root, f"{text}\n{line}\n".encode())


def signature_line(name: str, key: bytes, signature: bytes) -> str:
    """One signature of a note, without its newline."""
    return f"\u2014 {name} {base64.b64encode(key + signature).decode()}"


def parsed_tree_head(text: bytes) -> tuple[str, int, bytes]:
    """Origin, size and root in the text of a checkpoint that is about to be signed.

    Raises:
        IntegrityError: `ledger.checkpoint`.
        UsageError: `ledger.origin`.
    """
    note = _note_text(text)
    if not note.endswith("\n"):
        raise _bad("its text is not a tree head")
    origin = checked_origin(note.partition("\n")[0])
    head = _parsed_text(note, raw=text, origin=origin)
    return origin, head.size, head.root


def verified_checkpoint(raw: bytes, *, origin: str, public: bytes) -> Checkpoint:
    """Check a signed note and read the tree head in it; the numbered steps are in the module.

    Raises:
        IntegrityError: `ledger.checkpoint`, for whatever is wrong with it.
    """
    text, signatures = note_parts(raw)  # steps 1 and 2
    key, known = key_id(origin, public), 0
    for each in signatures:
        if each.is_by(origin, key):  # step 3
            _demand_signature(each.signature, text, public=public)
            known += 1
    if known == 0:
        raise _bad("the log's key did not sign it")
    return _parsed_text(text, raw=raw, origin=origin)  # step 4


def note_parts(raw: bytes) -> tuple[str, tuple[SignatureLine, ...]]:
    """The text of a signed note, with its last newline, and its signatures, none verified yet.

    Raises:
        IntegrityError: `ledger.checkpoint`, when it is not a signed note.
    """
    note = _note_text(raw)
    text, blank, lines = note.rpartition("\n\n")
    if not blank or not lines.endswith("\n"):
        raise _bad("it is not a signed note")
    found = []
    for line in lines[:-1].split("\n"):
        match = _SIGNATURE_LINE.fullmatch(line)
        blob = decoded_base64(match["blob"]) if match is not None else None
        if match is None or blob is None or len(blob) <= KEY_ID_BYTES:
            raise _bad("a signature line is malformed")
        found.append(SignatureLine(match["name"], blob[:KEY_ID_BYTES], blob[KEY_ID_BYTES:], line))
    return text + "\n", tuple(found)


def origin_in(raw: bytes) -> str:
    """The origin that a note claims; nothing about it is verified."""
    return raw[: ORIGIN_CHARS_MAX + 1].partition(b"\n")[0].decode(errors="replace")


def _note_text(raw: bytes) -> str:
    if len(raw) > CHECKPOINT_BYTES_MAX:
        raise _bad("it is too long")
    try:
        note = raw.decode()
    except UnicodeDecodeError:
        raise _bad("it is not UTF-8") from None
    if any(character < " " and character != "\n" for character in note):
        raise _bad("it holds control characters")
    return note


def _demand_signature(signature: bytes, text: str, *, public: bytes) -> None:
    if len(signature) != SIGNATURE_BYTES:
        raise _bad("the signature has the wrong size")
    try:
        verify_bare(signature, text.encode(), public=public)
    except IntegrityError as error:
        raise _bad("the signature does not verify") from error


def _parsed_text(text: str, *, raw: bytes, origin: str) -> Checkpoint:
    lines = text[:-1].split("\n")
    if len(lines) < 3 or not all(lines):
        raise _bad("its text is not a tree head")
    root = decoded_base64(lines[2])
    if lines[0] != origin:
        raise _bad("it is of another log")
    if _SIZE.fullmatch(lines[1]) is None or root is None or len(root) != HASH_BYTES:
        raise _bad("its size or root is malformed")
    return Checkpoint(origin, int(lines[1]), root, raw, tuple(lines[3:]))


def decoded_base64(text: str) -> bytes | None:
    """Base64 in its one canonical form, or None."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if base64.b64encode(raw).decode() == text else None


def _bad(why: str) -> IntegrityError:
    return IntegrityError("ledger.checkpoint", f"a checkpoint is not valid: {why}")
