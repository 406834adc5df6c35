"""Writes the golden exported models that are not there yet.

    PYTHONPATH=tests/support python tests/vectors/portable/make.py

A file that is there is never written again: what one version exported, every later one opens. Each
is a textual header, an empty line, and an exported model. The header says how it ends at each way
in: `expect` at those that are not named, else `stream`, `load`, `tensor`, `range`, `inspect`,
`outside`, `decrypt`; and what keys open it. Those in `random_names()` come out otherwise each time,
because what is sealed to a public key does; `tests/vectors/test_portable.py` compares the others.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from portable_files import (
    FILES,
    ME,
    SENDER,
    STRANGER,
    WORDS,
    YOU,
    front_bytes,
    front_of,
    manifest_of,
    portable,
    table_of,
)

from modelkeep.core.digest import Digest
from modelkeep.core.policy import Policy, Use
from modelkeep.core.record import replaced
from modelkeep.crypto.keytext import secret_key_text, verifier_text
from modelkeep.crypto.sealed_file import opened_file
from modelkeep.seal.envelope import sealed as enveloped
from modelkeep.seal.portable import FIRST_LINE, Part

HERE = Path(__file__).parent
Build = Callable[[], bytes]
Case = tuple[str, dict[str, str], Build]
OPEN = {"passphrase": WORDS.secret.reveal().decode()}
# Ways in that read no segment, and what they find where only a segment is bad.
FRONT_ONLY = {"inspect": "success", "outside": "success"}
LEAD = len(FIRST_LINE) + 4


def ends(expect: str, keys: dict[str, str] = OPEN, **ways: str) -> dict[str, str]:
    signer = {} if "signer" in ways else {"signer": verifier_text(SENDER.public)}
    return {"expect": expect, **keys, **signer, **ways}


def changed(*edits: Callable[[bytearray], object]) -> Build:
    def build() -> bytes:
        raw = bytearray(portable())
        for edit in edits:
            edit(raw)
        return bytes(raw)

    return build


def flip(at: int | Callable[[bytes], int], bit: int = 1) -> Callable[[bytearray], object]:
    def edit(raw: bytearray) -> None:
        place = at if isinstance(at, int) else at(raw)
        raw[place] ^= bit

    return edit


def cut(at: int | Callable[[bytes], int]) -> Callable[[bytearray], object]:
    def edit(raw: bytearray) -> None:
        del raw[at if isinstance(at, int) else at(raw) :]

    return edit


def front_length(change: int) -> Callable[[bytearray], object]:
    def edit(raw: bytearray) -> None:
        size_bytes = int.from_bytes(raw[LEAD - 4 : LEAD], "big") + change
        raw[LEAD - 4 : LEAD] = size_bytes.to_bytes(4, "big")

    return edit


def header_end(raw: bytes) -> int:
    """Where the header of the sealed table ends, and its MAC begins."""
    return LEAD + 29 + int.from_bytes(raw[LEAD + 25 : LEAD + 29], "big")


def bad_front(expect: str, outside: str, *edits: Callable[[bytearray], object]) -> list[object]:
    return [ends(expect, outside=outside), changed(*edits)]


def swapped(left: int, right: int) -> Callable[[list[bytes]], list[bytes]]:
    def edit(parts: list[bytes]) -> list[bytes]:
        parts[left], parts[right] = parts[right], parts[left]
        return parts

    return edit


def row(number: int, **fields: int) -> Callable[[list[bytes]], list[bytes]]:
    """Rewrite a row of the table before it is signed."""
    places = {"encoding": (0, 1), "length": (1, 5), "stored": (5, 9)}

    def edit(rows: list[bytes]) -> list[bytes]:
        raw = bytearray(rows[number])
        for name, value in fields.items():
            start, end = places[name]
            raw[start:end] = value.to_bytes(end - start, "big")
        rows[number] = bytes(raw)
        return rows

    return edit


def other() -> bytes:
    """The next version, for the same people: its last tensor is another."""
    files = {**FILES, "model.bin": FILES["model.bin"][:-1] + b"!"}
    manifest = manifest_of(files, version=4)
    return portable(files, table=table_of(manifest, files), seed=b"other")


def spliced(number: int) -> bytes:
    """One segment of another file under the same recipients."""
    mine, theirs = portable(), other()
    start, end = segment_places(mine)[number]
    return mine[:start] + theirs[start:end] + mine[end:]


def segment_places(raw: bytes) -> list[tuple[int, int]]:
    places, at = [], front_bytes(raw)
    for size_bytes in (32, 112, 19, 80, 35):
        places.append((at, at + size_bytes))
        at += size_bytes
    return places


def by_a_recipient() -> bytes:
    """A segment sealed anew by who has the file's key: its tag is good, its digest is not."""
    payloads = {3: (0, b"\xff" * 64)}
    good, bad = portable(), portable(payloads=payloads)
    start, end = segment_places(good)[3]
    return good[:start] + bad[start:end] + good[end:]


def swapped_stanza() -> bytes:
    """A stanza that the same passphrase opens, of another file."""
    mine, theirs = portable(), other()
    start, end = mine.index(b"\xa7stanzas"), mine.index(b"\xa6signer")
    return mine[:start] + theirs[start:end] + mine[end:]


def with_table(**facts: object) -> Build:
    return lambda: portable(table=table_of(manifest_of(), **facts))


def with_files(paths: Sequence[str], **facts: object) -> Build:
    def build() -> bytes:
        manifest = manifest_of()
        entries = [
            replaced(entry, path=path) for entry, path in zip(manifest.files, paths, strict=True)
        ]
        table = table_of(replaced(manifest, files=tuple(entries)), **facts)
        return portable(table=table)

    return build


def lying(**facts: object) -> Build:
    """A sender whose manifest says something else of `model.bin` than its segments hold."""
    manifest = manifest_of()
    entry = replaced(manifest.files[0], **facts)
    files = (entry, *manifest.files[1:])
    return lambda: portable(table=table_of(replaced(manifest, files=files)))


def lying_tensor() -> bytes:
    entry = manifest_of().files[0]
    *first, last = entry.tensors
    wrong = replaced(last, digest=Digest("blake3:" + "00" * 32))
    return lying(tensors=(*first, wrong))()


def far_tensor() -> bytes:
    entry = manifest_of().files[0]
    *first, last = entry.tensors
    return lying(tensors=(*first, replaced(last, length=1 << 40)))()


def with_plain(change: Callable[[bytes], bytes]) -> Build:
    """A good file whose sealed table the sender wrote otherwise, byte by byte."""

    def build() -> bytes:
        raw = portable()
        start = front_bytes(raw)
        chunks = opened_file(io.BytesIO(raw[LEAD:start]).read, keys=[WORDS]).chunks
        return front_of(change(b"".join(chunks))) + raw[start:]

    return build


def with_field(plain: bytes) -> bytes:
    """One field more, where there is padding enough for it."""
    at = plain.index(b"\x85\xa8envelope")
    end = at + int.from_bytes(plain[at - 4 : at], "big")
    record = b"\x86" + plain[at + 1 : end] + b"\xa1x\x01"
    assert len(plain) >= at + len(record)
    head = plain[: at - 4] + len(record).to_bytes(4, "big") + record
    return head.ljust(len(plain), b"\0")


def policy(**facts: object) -> Build:
    return lambda: portable(table=table_of(manifest_of(policy=Policy(**facts))))  # type: ignore[arg-type]


def dear() -> bytes:
    """A passphrase that would cost 2 GiB to try; nobody stretched it."""
    raw = bytearray(portable())
    at = raw.index(b"\xaamemory_kib") + 11
    raw[at : at + 1] = b"\xce" + (2 * 1024 * 1024).to_bytes(4, "big")
    for place, size in ((LEAD - 4, 4), (LEAD + 25, 4)):
        grown = int.from_bytes(raw[place : place + size], "big") + 4
        raw[place : place + size] = grown.to_bytes(size, "big")
    return bytes(raw)


def good() -> list[Case]:
    me = {"identity": secret_key_text(ME.seed).reveal().decode()}
    you = {"identity": secret_key_text(YOU.seed).reveal().decode()}
    single = {"model.bin": FILES["model.bin"]}
    alone = {"folders": (), "links": ()}
    return [
        ("passphrase", ends("success"), portable),
        ("recipient", ends("success", me), lambda: portable(locks=[ME.recipient])),
        (
            "everybody",
            ends("success", you),
            lambda: portable(locks=[ME.recipient, WORDS, YOU.recipient]),
        ),
        (
            "single_file",
            ends("success"),
            lambda: portable(single, table=table_of(manifest_of(single), single, **alone)),
        ),
        (
            "nobody_demanded",
            ends("success", signer="", stream="sealed.signer"),
            portable,
        ),
        (
            "policy_serve_only",
            ends("policy.use", stream="success", load="success", range="success")
            | {"tensor": "success", **FRONT_ONLY},
            policy(uses=(Use.SERVE,)),
        ),
    ]


def bad_fronts() -> list[Case]:
    you = {"identity": secret_key_text(YOU.seed).reveal().decode()}
    wrong = {"passphrase": "battery"}
    stranger = verifier_text(STRANGER.public)
    signer_at = lambda raw: header_end(raw) - 5  # noqa: E731
    return [
        ("empty", ends("portable.format"), lambda: b""),
        ("version", *bad_front("portable.format", "portable.format", flip(len(FIRST_LINE) - 2, 3))),
        ("cut_first_line", *bad_front("portable.format", "portable.format", cut(20))),
        ("cut_length", *bad_front("sealed.format", "portable.cut", cut(LEAD - 2))),
        ("cut_header", *bad_front("sealed.header", "portable.cut", cut(LEAD + 200))),
        ("cut_mac", *bad_front("sealed.header", "portable.cut", cut(lambda r: header_end(r) + 9))),
        (
            "cut_table",
            *bad_front("sealed.chunk", "portable.cut", cut(lambda r: front_bytes(r) - 400)),
        ),
        (
            "cut_signature",
            *bad_front("sealed.chunk", "portable.cut", cut(lambda r: front_bytes(r) - 1)),
        ),
        ("long_front", *bad_front("sealed.chunk", "sealed.signature", front_length(1))),
        ("short_front", *bad_front("sealed.chunk", "sealed.signature", front_length(-1))),
        (
            "huge_front",
            *bad_front("portable.bounds", "portable.bounds", front_length((1 << 32) - 4096)),
        ),
        ("salt_bit", *bad_front("sealed.commitment", "sealed.signature", flip(LEAD + 29 + 10))),
        ("signer_bit", *bad_front("sealed.mac", "sealed.signature", flip(signer_at))),
        (
            "table_bit",
            *bad_front("sealed.chunk", "sealed.signature", flip(lambda r: header_end(r) + 90)),
        ),
        (
            "signature_bit",
            *bad_front("sealed.signature", "sealed.signature", flip(lambda r: front_bytes(r) - 9)),
        ),
        ("dear_passphrase", ends("sealed.header"), dear),
        (
            "swapped_stanza",
            ends("sealed.commitment", outside="sealed.signature"),
            swapped_stanza,
        ),
        ("wrong_passphrase", ends("sealed.key", wrong, outside="success"), portable),
        (
            "not_ours",
            ends("sealed.key", you, outside="success"),
            lambda: portable(locks=[ME.recipient]),
        ),
        (
            "stranger_sent",
            ends("sealed.signer", outside="success"),
            lambda: portable(
                table=table_of(manifest_of(), envelope=enveloped(manifest_of(), signer=STRANGER)),
                signer=STRANGER,
            ),
        ),
        ("stranger_demanded", ends("sealed.signer", signer=stranger, outside="success"), portable),
        (
            "unsigned",
            ends("sealed.signer", outside="sealed.signature"),
            lambda: portable(signer=None),
        ),
        (
            "unsigned_undemanded",
            ends("seal.signer", signer="", stream="sealed.signer", outside="sealed.signature"),
            lambda: portable(signer=None),
        ),
    ]


def bad_tables() -> list[Case]:
    def table(expect: str) -> dict[str, str]:
        return ends(expect, outside="success")

    parts = table_of(manifest_of()).parts
    envelope = table_of(manifest_of()).envelope
    unfit = replaced(envelope, signature=bytes(64))
    gone = ("portable.table", "portable.paths")
    return [
        (
            "manifest_of_a_stranger",
            table("seal.signer"),
            with_table(envelope=enveloped(manifest_of(), signer=STRANGER)),
        ),
        ("manifest_unsigned", table("signature.bad"), with_table(envelope=unfit)),
        ("no_table", table("portable.table"), lambda: front_of(b"modelkeep model v0\n" * 9)),
        ("padding", table("portable.table"), with_plain(lambda raw: raw[:-1] + b"x")),
        ("unpadded", table("portable.table"), with_plain(lambda raw: raw + b"\0")),
        (
            "table_line",
            table("portable.table"),
            with_plain(lambda raw: raw.replace(b"table v1", b"table v2")),
        ),
        ("unknown_field", table("record.msgpack"), with_plain(with_field)),
        ("length_other", table(gone[0]), lambda: portable(rows=row(2, length=2047))),
        ("encoding_delta", table(gone[0]), lambda: portable(rows=row(0, encoding=3))),
        ("length_zero", table(gone[0]), lambda: portable(rows=row(0, length=0, stored=0))),
        ("length_over", table(gone[0]), lambda: portable(rows=row(2, length=1 << 23))),
        ("stored_over", table(gone[0]), lambda: portable(rows=row(2, stored=2049))),
        ("raw_shorter", table(gone[0]), lambda: portable(rows=row(1, stored=95))),
        (
            "count_less",
            table(gone[0]),
            with_table(parts=(replaced(parts[0], segments=3), *parts[1:])),
        ),
        (
            "count_negative",
            table(gone[0]),
            with_table(parts=(replaced(parts[0], segments=5), Part(segments=-1), parts[2])),
        ),
        ("part_missing", table(gone[0]), with_table(parts=(replaced(parts[0], segments=5),))),
        ("path_up", table(gone[1]), with_files(["../x", "y", "z"])),
        ("path_in_file", table(gone[1]), with_files(["x", "x/y", "z"])),
        ("path_control", table(gone[1]), with_files(["x\x1b[2J", "y", "z"])),
        ("path_in_link", table(gone[1]), with_files(["x", "again/y", "z"])),
        ("folder_up", table(gone[1]), with_table(folders=((".", 0o755), ("a/../..", 0o755)))),
        (
            "folder_is_file",
            table(gone[1]),
            with_table(folders=((".", 0o755), ("model.bin", 0o755))),
        ),
        ("folder_twice", table(gone[1]), with_table(folders=((".", 0o755), (".", 0o700)))),
        ("mode_bits", table(gone[1]), with_table(folders=((".", 0o10755),))),
        ("link_root", table(gone[1]), with_table(links=(("again", "/etc/passwd"),))),
        ("link_up", table(gone[1]), with_table(links=(("sub/up", "../../x"),))),
        ("link_behind", table(gone[1]), with_table(links=(("sub/up", "here/../../x"),))),
    ]


def bad_segments() -> list[Case]:
    """What the front is good for, and some segment is not; the ways in that miss it succeed."""

    def seen(expect: str, **ways: str) -> dict[str, str]:
        return ends(expect, **FRONT_ONLY) | ways

    last = {"tensor": "portable.segment", "range": "portable.segment"}
    missed = {"tensor": "success", "range": "success"}
    all_ways = {"outside": "success"}
    return [
        ("cut_segment", ends("portable.cut", **all_ways), changed(cut(-50))),
        ("cut_before_segments", ends("portable.cut", **all_ways), changed(cut(front_bytes))),
        ("cut_one_byte", ends("portable.cut", **all_ways), changed(cut(-1))),
        ("trailing", ends("portable.end", **all_ways), changed(lambda raw: raw.append(0))),
        ("doubled", ends("portable.end", **all_ways), changed(lambda raw: raw.extend(raw[-35:]))),
        (
            "segment_bit",
            seen("portable.segment", **last),
            changed(flip(lambda r: segment_places(r)[3][0])),
        ),
        (
            "segment_tag",
            seen("portable.segment", **last),
            changed(flip(lambda r: segment_places(r)[3][1] - 1)),
        ),
        (
            "segment_elsewhere",
            seen("portable.segment", **missed),
            changed(flip(lambda r: segment_places(r)[1][0])),
        ),
        ("reordered", seen("portable.segment", **last), lambda: portable(raws=swapped(0, 3))),
        ("spliced", seen("portable.segment", **last), lambda: spliced(3)),
        (
            "body_of_another",
            seen("portable.segment", **last),
            lambda: portable()[: front_bytes(portable())] + other()[front_bytes(other()) :],
        ),
        (
            "table_of_an_older_version",
            seen("portable.segment", **last),
            lambda: (
                portable(seed=b"old")[: front_bytes(portable())]
                + portable()[front_bytes(portable()) :]
            ),
        ),
        ("by_a_recipient", seen("portable.segment", **last), by_a_recipient),
        (
            "malformed_payload",
            seen("codec.plane", **missed),
            lambda: portable(payloads={2: (2, b"\0\xff\xff\xff")}),
        ),
        (
            "lying_digest",
            seen("seal.digest", **missed),
            lying(digest=Digest("blake3:" + "00" * 32)),
        ),
        ("lying_tensor", seen("success", tensor="tensor.digest"), lying_tensor),
        ("far_tensor", seen("success", tensor="portable.tensor"), far_tensor),
    ]


def cases() -> list[Case]:
    """Name, header fields, bytes."""
    return [*good(), *bad_fronts(), *bad_tables(), *bad_segments()]


def random_names() -> frozenset[str]:
    return frozenset({"recipient", "everybody", "not_ours"})


def vector(case: Case) -> bytes:
    """The bytes of one golden file."""
    _, header, build = case
    lines = "".join(f"{key}: {value}\n" for key, value in header.items())
    return lines.encode() + b"\n" + build()


def main() -> None:
    """Write what is missing."""
    for case in cases():
        path = HERE / f"v1_{case[0]}"
        if not path.exists():
            path.write_bytes(vector(case))


if __name__ == "__main__":
    main()
