"""Small files of binary formats, written byte by byte: UBJSON, MAT, HDF5 data sets, zip methods."""

import io
import struct
import zipfile
import zlib

from model_files import UNDEFINED, attribute, hdf5


def ubjson(value):
    """A value as XGBoost writes it: counted texts, open lists and maps, typed lists of bytes."""
    if isinstance(value, list):
        return b"[" + b"".join(map(ubjson, value)) + b"]"
    if isinstance(value, dict):
        pairs = (_counted(key.encode()) + ubjson(each) for key, each in value.items())
        return b"{" + b"".join(pairs) + b"}"
    if value is None or isinstance(value, bool):
        return {None: b"Z", True: b"T", False: b"F"}[value]
    if isinstance(value, bytes):
        return b"[$U#" + _counted(value)
    if isinstance(value, str):
        return b"S" + _counted(value.encode())
    return struct.pack(">cd", b"D", value) if isinstance(value, float) else _whole(value)


def _whole(value):
    return struct.pack(">cq", b"L", value)


def _counted(raw):
    return _whole(len(raw)) + raw


def matlab(*elements, subsystem=bytes(8)):
    text = b"MATLAB 5.0 MAT-file".ljust(116)
    return text + subsystem + struct.pack("<H", 0x100) + b"IM" + b"".join(elements)


def matrix(is_of, *inner):
    """A matrix of a class, its name and size, and what lies in it."""
    body = struct.pack("<4L", 6, 8, is_of, 0) + struct.pack("<2L2l", 5, 8, 1, 1)
    return element(14, body + struct.pack("<HH4s", 1, 1, b"x") + b"".join(inner))


def packed(raw):
    """An element that MATLAB compresses."""
    return element(15, zlib.compress(raw), pads=False)


def element(kind, raw, *, pads=True):
    return struct.pack("<2L", kind, len(raw)) + raw + bytes(-len(raw) % 8 if pads else 0)


def data_set(shape, item_bytes, *, address=UNDEFINED, chunked=True):
    """The messages of a data set: its shape, its type and where it lies."""
    space = struct.pack(f"<BB6x{len(shape)}Q", 1, len(shape), *shape)
    kind = struct.pack("<BBBBLHH", 0x10, 8, 0, 0, item_bytes, 0, 8 * item_bytes)
    if chunked:
        sizes = [min(each, 64) for each in shape]
        layout = struct.pack("<BBB", 3, 2, len(shape) + 1) + address
        layout += struct.pack(f"<{len(shape) + 1}L", *sizes, item_bytes)
    else:
        size = item_bytes
        for each in shape:
            size *= each
        layout = struct.pack("<BB", 3, 1) + address + struct.pack("<Q", size)
    return [(1, space), (3, kind), (8, layout)]


def hdf5_beside(name, text, *, depth=0):
    """An HDF5 file whose one attribute is too large for a heap's blocks."""
    start = len(hdf5((0x15, struct.pack("<BBQQ", 0, 0, 0, 0))))
    tree, leaf, place = start + 160, start + 200, start + 240
    content = attribute(name, text)[1]
    root = hdf5((0x15, struct.pack("<BBQ", 0, 0, start) + UNDEFINED))
    heap = bytearray(160)
    heap[:5] = b"FRHP\0"
    struct.pack_into("<Q", heap, 22, tree)
    struct.pack_into("<Q", heap, 86, 1)
    head = struct.pack("<4sBBLHHBBQHQ", b"BTHD", 0, 1, 512, 24, depth, 100, 40, leaf, 1, 1)
    record = struct.pack("<4sBBQQQ", b"BTLF", 0, 1, place, len(content), 0)
    raw = root + bytes(heap) + head.ljust(40, b"\0") + record.ljust(40, b"\0") + content
    return raw[:40] + struct.pack("<Q", len(raw)) + raw[48:]


def zip_member(name, payload, *, method, plain):
    """A zip file of one member that is packed by a method Python may not know."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), payload)
    raw = bytearray(target.getvalue())
    entry = raw.rindex(b"PK\x01\x02")
    for at in (8, entry + 10):
        struct.pack_into("<H", raw, at, method)
    for at in (14, entry + 16):
        struct.pack_into("<L", raw, at, zlib.crc32(plain))
    for at in (22, entry + 24):
        struct.pack_into("<L", raw, at, len(plain))
    return bytes(raw)
