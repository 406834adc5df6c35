"""Archives: what unpacking them writes and reads, what two readers see in them, bombs."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from collections.abc import Iterator

from modelkeep.core.verdict import Decision
from tests.corpus import zips
from tests.corpus.cases import Case, Family, Harm, Trap, Traps
from tests.corpus.packed import acting, calm
from tests.corpus.zips import Member, changed

TAR = Family("tar", "tar_extract", "model.tar")
ZIP = Family("zip", "zip_then_pickle", "model.zip")
_BLOCK = 512


def cases(traps: Traps) -> Iterator[Case]:
    """All of them."""
    yield from _leaving(traps)
    yield from _linked(traps)
    yield from _tars(traps)
    yield from _zips(traps)
    yield from _bombs(traps)


def _tar(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for entry, content in entries:
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def _file(name: str, content: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    return entry, content


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry, b""


def _leaving(traps: Traps) -> Iterator[Case]:
    trap = traps("tar-climbs")
    yield TAR.case("climbs", _tar(_file(trap.up(trap.new))), _tar(_file("a/b/x")), harm=Harm.WRITE)
    trap = traps("tar-absolute")
    yield TAR.case("absolute", _tar(_file(trap.new)), _tar(_file("a/x")), harm=Harm.WRITE)
    trap = traps("tar-climbs-from-inside")
    evil = _tar(_file("weights/a"), _file("weights/" + trap.up(trap.new)))
    yield TAR.case(
        "climbs-from-inside", evil, _tar(_file("weights/a"), _file("weights/x")), harm=Harm.WRITE
    )
    trap = traps("tar-name-in-a-gnu-record")
    long = "./" * 80 + trap.up(trap.new)
    evil, twin = (_tar(_file(each), form=tarfile.GNU_FORMAT) for each in (long, "./" * 80 + "x"))
    yield TAR.case("name-in-a-gnu-record", evil, twin, harm=Harm.WRITE)
    trap = traps("tar-name-in-a-pax-record")
    plain = tarfile.TarInfo("weights.bin")
    plain.pax_headers = {"path": trap.up(trap.new)}
    calm_entry = tarfile.TarInfo("weights.bin")
    calm_entry.pax_headers = {"path": "folder/weights.bin"}
    evil, twin = (_pax(each) for each in (plain, calm_entry))
    yield TAR.case("name-in-a-pax-record", evil, twin, harm=Harm.WRITE)
    trap = traps("tar-gz-climbs")
    evil, twin = (gzip.compress(_tar(_file(each))) for each in (trap.up(trap.new), "x"))
    yield TAR.case("gz-climbs", evil, twin, harm=Harm.WRITE, main="model.tar.gz")
    trap = traps("tar-shutil-climbs")
    evil, twin = (_tar(_file(each)) for each in (trap.up(trap.new), "x"))
    yield TAR.case("shutil-climbs", evil, twin, harm=Harm.WRITE, loader="unpacked")


def _pax(entry: tarfile.TarInfo) -> bytes:
    """A tar whose pax record names another file than the header."""
    record = b"path=" + entry.pax_headers["path"].encode() + b"\n"
    size = len(record) + 1
    while len(str(size)) + 1 + len(record) != size:
        size += 1
    body = f"{size} ".encode() + record
    head = tarfile.TarInfo("PaxHeader")
    head.type, head.size = tarfile.XHDTYPE, len(body)
    return (
        head.tobuf(tarfile.USTAR_FORMAT)
        + body + bytes(-len(body) % _BLOCK)
        + tarfile.TarInfo(entry.name).tobuf(tarfile.USTAR_FORMAT)
        + bytes(2 * _BLOCK)
    )  # fmt: skip


def _linked(traps: Traps) -> Iterator[Case]:
    trap = traps("tar-file-through-a-link")
    evil = _tar(_link("d", str(trap.folder)), _file("d/touched"))
    yield TAR.case(
        "file-through-a-link", evil, _tar(_file("d/touched"), _link("e", "d")), harm=Harm.WRITE
    )
    trap = traps("tar-link-through-a-link")
    evil = _tar(_link("d", "a/.."), _link("e", trap.up(str(trap.folder))), _file("e/touched"))
    twin = _tar(_file("a/b"), _link("d", "a"), _file("e/touched"))
    yield TAR.case("link-through-a-link", evil, twin, harm=Harm.WRITE)
    trap = traps("tar-hard-link-outside")
    evil = _tar(_link("w", trap.secret, tarfile.LNKTYPE))
    twin = _tar(_file("v"), _link("w", "v", tarfile.LNKTYPE))
    yield TAR.case("hard-link-outside", evil, twin, harm=Harm.READ, loader="tar_hard")
    trap = traps("tar-model-is-a-link")
    evil = _tar(_link("model.pkl", trap.secret))
    twin = _tar(_file("w.pkl", b"N."), _link("model.pkl", "w.pkl"))
    yield TAR.case("model-is-a-link", evil, twin, harm=Harm.READ, loader="tar_then_pickle")
    trap = traps("tar-written-through-its-link")
    evil = _tar(_link("w", trap.new), _file("w"))
    yield TAR.case(
        "written-through-its-link", evil, _tar(_file("w")), harm=Harm.WRITE, loader="tar_rewritten"
    )


def _tars(traps: Traps) -> Iterator[Case]:
    trap = traps("tar-last-of-two-counts")
    evil = _tar(_file("model.pkl", calm(trap)), _file("model.pkl", acting(trap)))
    yield TAR.case(
        "last-of-two-counts", evil, _tar(_file("model.pkl", calm(trap))), loader="tar_then_pickle"
    )
    trap = traps("tar-same-by-a-dot")
    evil = _tar(_file("model.pkl", calm(trap)), _file("./model.pkl", acting(trap)))
    twin = _tar(_file("model.pkl", calm(trap)), _file("./other.pkl", calm(trap)))
    yield TAR.case("same-by-a-dot", evil, twin, loader="tar_then_pickle")
    trap = traps("tar-size-in-a-pax-record")
    hidden = _file("model.pkl", acting(trap))
    cover = bytes(hidden[0].tobuf(tarfile.USTAR_FORMAT)) + hidden[1]
    cover += bytes(-len(cover) % _BLOCK)
    evil = _sized(cover, 0)
    twin = _tar(_file("cover", b"x" * 20), _file("model.pkl", calm(trap)))
    yield TAR.case("size-in-a-pax-record", evil, twin, loader="tar_then_pickle")


def _sized(content: bytes, size: int) -> bytes:
    """A member whose pax record says that it is shorter than its header does."""
    body = f"size={size}\n"
    body = f"{len(body) + 3} {body}" if len(body) + 3 < 100 else body
    body = body.replace(body.split(" ")[0], str(len(body)), 1)
    raw = body.encode()
    head = tarfile.TarInfo("PaxHeader")
    head.type, head.size = tarfile.XHDTYPE, len(raw)
    entry = tarfile.TarInfo("cover")
    entry.size = len(content)
    return (
        head.tobuf(tarfile.USTAR_FORMAT) + raw + bytes(-len(raw) % _BLOCK)
        + entry.tobuf(tarfile.USTAR_FORMAT) + content + bytes(2 * _BLOCK)
    )  # fmt: skip


def _zips(traps: Traps) -> Iterator[Case]:
    def bundle(trap: Trap, **fields: object) -> tuple[Member, Member]:
        return tuple(  # type: ignore[return-value]
            changed(Member("model.pkl", each), **fields) for each in (acting(trap), calm(trap))
        )

    trap = traps("zip-stored")
    evil, twin = bundle(trap)
    yield ZIP.case("stored", zips.zipped(evil), zips.zipped(twin))
    trap = traps("zip-deflated")
    evil, twin = bundle(trap, method=8)
    yield ZIP.case("deflated", zips.zipped(evil), zips.zipped(twin))
    trap = traps("zip-last-of-two-counts")
    evil, twin = bundle(trap)
    yield ZIP.case("last-of-two-counts", zips.zipped(twin, evil), zips.zipped(twin))
    trap = traps("zip-two-in-one")
    evil, twin = bundle(trap)
    one, two = zips.zipped(twin), zips.zipped(evil)
    yield ZIP.case("two-in-one", one + two, one)
    trap = traps("zip-behind-a-script")
    evil, twin = bundle(trap)
    head = b"#!/bin/sh\nexit 0\n"
    yield ZIP.case(
        "behind-a-script", zips.zipped(evil, before=head), zips.zipped(twin), main="model.bin"
    )
    trap = traps("zip-name-ends-at-a-zero")
    evil, twin = bundle(trap)
    evil = changed(evil, name="model.pkl\0.txt")
    yield ZIP.case("name-ends-at-a-zero", zips.zipped(evil), zips.zipped(twin))
    trap = traps("zip-end-in-the-comment")
    evil, twin = bundle(trap)
    calm_zip, evil_zip = zips.zipped(twin), zips.zipped(evil)
    end = calm_zip.index(b"PK\5\6")
    outer = calm_zip[:end] + calm_zip[end:-2] + struct.pack("<H", len(evil_zip)) + evil_zip
    yield ZIP.case("end-in-the-comment", outer, calm_zip)
    trap = traps("zip-pickle-in-front")
    evil, twin = bundle(trap)
    yield ZIP.case(
        "pickle-in-front", acting(trap) + zips.zipped(twin), calm(trap), loader="pickle",
        main="m.pkl",
    )  # fmt: skip


def _bombs(_traps: Traps) -> Iterator[Case]:
    bomb, small = (zips.zipped(zips.zeros("weights.bin", b"", each)) for each in (40, 1))
    yield ZIP.case("bomb", bomb, small, harm=Harm.DISK, loader="zip_extract")
    large = tarfile.TarInfo("weights.bin")
    large.size = 40 << 23
    body = large.tobuf(tarfile.USTAR_FORMAT)
    evil = gzip.compress(body) + gzip.compress(bytes(1 << 23)) * 40 + gzip.compress(bytes(1024))
    large.size = 1 << 23
    twin = gzip.compress(large.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 23) + bytes(1024))
    yield TAR.case("gz-bomb", evil, twin, harm=Harm.DISK, main="m.tar.gz")
    yield TAR.case(
        "sparse-bomb", _sparse(1 << 40), _tar(_file("weights.bin", b"x" * _BLOCK)),
        harm=Harm.DISK, wanted=Decision.HOLD,
    )  # fmt: skip
    nested = zips.zipped(zips.zeros("model.pkl", b"\x80\x04B" + struct.pack("<I", 80 << 23), 80))
    calm_zip = zips.zipped(Member("model.pkl", b"\x80\x04B\x04\0\0\0abcd."))
    yield ZIP.case("pickle-bomb", nested, calm_zip, harm=Harm.MEMORY)


def _sparse(size: int) -> bytes:
    """A sparse member of GNU's old form: one block of data, and a claimed size."""
    head = bytearray(tarfile.TarInfo("weights.bin").tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"%011o\0" % _BLOCK
    head[156:157] = b"S"
    head[386:398], head[398:410] = b"%011o\0" % 0, b"%011o\0" % _BLOCK
    head[482] = 0
    head[483:495] = b"%011o\0" % size if size < 1 << 33 else b"\x80" + size.to_bytes(11, "big")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + b"x" * _BLOCK + bytes(2 * _BLOCK)
