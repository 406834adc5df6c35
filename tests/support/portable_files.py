"""Exported models made without a keep, good ones and hostile ones, from fixed numbers."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modelkeep.core.artifact import FileEntry, Manifest, TensorEntry
from modelkeep.core.record import replaced
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.locks import Lock, Passphrase
from modelkeep.crypto.recipients import Identity
from modelkeep.crypto.sealed_file import sealed_file
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.kernels.digest import digest_of
from modelkeep.kernels.encoding import Encoding, encoded
from modelkeep.seal.envelope import sealed as enveloped
from modelkeep.seal.portable import FIRST_LINE, Draft, Part, Table

ME, YOU = (Identity(Secret(hashlib.sha256(name).digest())) for name in (b"me", b"you"))
SENDER, STRANGER = ME.signer, YOU.signer
CHEAP = Argon2Settings(memory_kib=8, passes=1, lanes=1)
WORDS = Passphrase(Secret(b"correct horse battery staple"), CHEAP)
# Four segments, one of them compressed, then two files more, one of them empty.
TENSORS = {"first": bytes(range(96)), "zeros": bytes(2048), "last": bytes(range(100, 164))}
LAYOUT = b"layout.." * 2
FILES = {
    "model.bin": LAYOUT + b"".join(TENSORS.values()),
    "sub/empty": b"",
    "sub/words.txt": b"these are the words",
}
FOLDERS = ((".", 0o755), ("sub", 0o750))
LINKS = (("again", "sub/words.txt"), ("sub/up", "../model.bin"))


def numbers(seed: bytes = b"") -> Callable[[int], bytes]:
    """Entropy of a test: bytes that are the same in every run."""
    count = 0

    def random_bytes(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(b"portable %d %s" % (count, seed)).digest(size)

    return random_bytes


def cuts_of(path: str, raw: bytes) -> list[bytes]:
    """A file as it is cut: at its tensors, if it has some."""
    if path != "model.bin":
        return [raw] if raw else []
    parts, at = [LAYOUT], len(LAYOUT)
    for each in TENSORS.values():
        parts.append(raw[at : at + len(each)])
        at += len(each)
    return parts


def entry_of(path: str, raw: bytes) -> FileEntry:
    """A file as a manifest lists it."""
    tensors, at = [], len(LAYOUT)
    for name, each in TENSORS.items() if path == "model.bin" else ():
        plain = raw[at : at + len(each)]
        tensors.append(
            TensorEntry(
                name=name,
                dtype="UINT8",
                shape=(len(each),),
                offset=at,
                length=len(each),
                digest=digest_of(plain),
            )
        )
        at += len(each)
    return FileEntry(path=path, size_bytes=len(raw), digest=digest_of(raw), tensors=tuple(tensors))


def manifest_of(files: Mapping[str, bytes] = FILES, **facts: Any) -> Manifest:
    """The manifest of some files."""
    wanted = Manifest(
        name="digits",
        version=3,
        kind="unknown",
        domain="default",
        admitted_ns=1_800_000_000_000_000_000,
        files=tuple(entry_of(path, raw) for path, raw in files.items()),
    )
    return replaced(wanted, **facts)


def table_of(manifest: Manifest, files: Mapping[str, bytes] = FILES, **facts: Any) -> Table:
    """What a sender says of these files, but for the segments."""
    table = Table(
        envelope=enveloped(manifest, signer=SENDER),
        parts=tuple(Part(segments=len(cuts_of(*each)), mode=0o640) for each in files.items()),
        folders=FOLDERS,
        links=LINKS,
    )
    return replaced(table, **facts)


def same(rows: list[bytes]) -> list[bytes]:
    return rows


def portable(
    files: Mapping[str, bytes] = FILES,
    *,
    table: Table | None = None,
    locks: Sequence[Lock] = (WORDS,),
    signer: Signer | None = SENDER,
    seed: bytes = b"",
    rows: Callable[[list[bytes]], list[bytes]] = same,
    raws: Callable[[list[bytes]], list[bytes]] = same,
    payloads: Mapping[int, tuple[int, bytes]] | None = None,
) -> bytes:
    """The bytes of an exported model.

    Args:
        rows: changes the rows of the segments before they are signed.
        raws: changes the segments after.
        payloads: number of a segment -> encoding and payload that stand there instead.
    """
    cuts = [part for each in files.items() for part in cuts_of(*each)]
    draft = Draft(
        table or table_of(manifest_of(files), files),
        count=len(cuts),
        locks=locks,
        signer=signer,  # type: ignore[arg-type] # None is a vector of its own
        random_bytes=numbers(seed),
    )
    if signer is None:
        draft._front_bytes -= 64
    sealed = []
    for number, part in enumerate(cuts):
        encoding, payload = encoded(memoryview(part), dtype="UINT8")
        if payloads and number in payloads:
            encoding, payload = Encoding(payloads[number][0]), payloads[number][1]
        sealed.append(draft.sealed(number, encoding, payload, length=len(part)))
    front = draft.front(rows([each.row for each in sealed]))
    return front + b"".join(raws([each.raw for each in sealed]))


def front_of(plain: bytes, *, signer: Signer = SENDER) -> bytes:
    """A front whose sealed table holds these bytes."""
    read = io.BytesIO(plain).read
    parts = sealed_file(read, locks=[WORDS], signer=signer, random_bytes=numbers())
    front = b"".join(parts)
    return FIRST_LINE + len(front).to_bytes(4, "big") + front


def front_bytes(raw: bytes) -> int:
    """Where the first segment lies."""
    start = len(FIRST_LINE) + 4
    return start + int.from_bytes(raw[len(FIRST_LINE) : start], "big")
