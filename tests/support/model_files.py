"""Small files of model formats, written byte by byte: honest ones and hostile ones."""

import io
import struct
import tarfile
import zipfile

UNDEFINED = b"\xff" * 8


def number(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def message(*fields):
    """A protobuf message of (number, value) fields: bytes, text or integers."""
    out = b""
    for place, value in fields:
        if isinstance(value, int):
            out += number(place << 3) + number(value)
        else:
            raw = value.encode() if isinstance(value, str) else value
            out += number(place << 3 | 2) + number(len(raw)) + raw
    return out


def node(name, operator, *inputs, text=None):
    attribute = message((1, "value"), (2, message((8, message((8, text)))))) if text else None
    fields = [(1, name), (2, operator), *((3, each) for each in inputs)]
    return message(*fields, *([(5, attribute)] if attribute else []))


def graph(*nodes, functions=()):
    library = message(*((1, message((1, b"\n\x01f"), (3, each))) for each in functions))
    return message(*((1, each) for each in nodes), *([(2, library)] if functions else []))


def saved_model(*nodes, functions=()):
    inner = message((1, message((5, "2.20"))), (2, graph(*nodes, functions=functions)))
    return message((1, 1), (2, inner))


def gguf(pairs, *, tensors=(), data=b"", version=3):
    """A GGUF file; pairs are of text, or raw (kind, bytes)."""
    out = struct.pack("<4sL2Q", b"GGUF", version, len(tensors), len(pairs))
    for key, value in pairs:
        kind, raw = value if isinstance(value, tuple) else (8, _counted(value.encode()))
        out += _counted(key.encode()) + struct.pack("<L", kind) + raw
    for name, sizes, kind, offset in tensors:
        out += _counted(name.encode()) + struct.pack("<L", len(sizes))
        out += struct.pack(f"<{len(sizes)}Q", *sizes) + struct.pack("<LQ", kind, offset)
    return out + bytes(-len(out) % 32) + data


def _counted(raw):
    return struct.pack("<Q", len(raw)) + raw


def hdf5(*messages):
    """An HDF5 file whose root object has these (kind, bytes) messages."""
    body = b"".join(
        struct.pack("<HHB3x", kind, len(raw) + -len(raw) % 8, 0) + raw + bytes(-len(raw) % 8)
        for kind, raw in messages
    )
    header = struct.pack("<BxHLL4x", 1, len(messages), 1, len(body)) + body
    head = b"\x89HDF\r\n\x1a\n" + bytes([0, 0, 0, 0, 0, 8, 8, 0]) + struct.pack("<HHL", 4, 16, 0)
    head += struct.pack("<Q", 0) + UNDEFINED + struct.pack("<Q", 96 + len(header)) + UNDEFINED
    return head + struct.pack("<QQ24x", 0, 96) + header


def attribute(name, text):
    """An attribute message that holds one text of fixed length."""
    raw_name = name.encode() + b"\0"
    kind = struct.pack("<BBBBL", 0x13, 0, 0, 0, len(text))
    space = struct.pack("<BB6x", 1, 0)
    head = struct.pack("<BxHHH", 1, len(raw_name), len(kind), len(space))
    return 0x0C, head + raw_name + bytes(-len(raw_name) % 8) + kind + space + text


def external_link(name, file, path):
    value = b"\0" + file.encode() + b"\0" + path.encode() + b"\0"
    head = struct.pack("<BBBB", 1, 8, 64, len(name)) + name.encode()
    return 0x06, head + struct.pack("<H", len(value)) + value


def tflite(custom):
    """A TFLite file of one operator, one graph and no tensors."""
    tables = bytearray(struct.pack("<L4s", 0, b"TFL3"))

    def put(raw):
        tables.extend(bytes(-len(tables) % 4))
        at = len(tables)
        tables.extend(raw)
        return at

    def table(fields):
        size = 4 + 2 * (max(fields, default=-1) + 1)
        offsets = [0] * (max(fields, default=-1) + 1)
        for place, each in enumerate(fields):
            offsets[each] = 4 + 4 * place
        start = put(struct.pack(f"<HH{len(offsets)}H", size, 4 + 4 * len(fields), *offsets))
        at = put(struct.pack("<l", 0) + bytes(4 * len(fields)))
        struct.pack_into("<l", tables, at, at - start)
        return at, {each: at + 4 + 4 * place for place, each in enumerate(fields)}

    def point(place, target):
        struct.pack_into("<L", tables, place, target - place)

    def vector(place, *, of):
        """A list of so many tables, named by a field; where each is to be pointed from."""
        at = put(struct.pack("<L", of) + bytes(4 * of))
        point(place, at)
        return [at + 4 + 4 * each for each in range(of)]

    root, fields = table([1, 2, 4])
    point(0, root)
    (code_at,) = vector(fields[1], of=1)
    (graph_at,) = vector(fields[2], of=1)
    vector(fields[4], of=0)
    code, named = table([1])
    point(code_at, code)
    text = put(struct.pack("<L", len(custom)) + custom.encode() + b"\0")
    point(named[1], text)
    inner, parts = table([3])
    point(graph_at, inner)
    (operator_at,) = vector(parts[3], of=1)
    operator, _ = table([])
    point(operator_at, operator)
    return bytes(tables)


def tarred(members, kinds=None):
    """A tar file; `kinds` gives a member another type, and a target."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, raw in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(raw)
            if kinds and name in kinds:
                entry.type, entry.linkname = kinds[name]
                entry.size = 0
            archive.addfile(entry, io.BytesIO(raw))
    return out.getvalue()


def script(source):
    """A torch archive with this file of TorchScript code."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("m/code/__torch__.py", source)
        archive.writestr("m/constants.pkl", b"\x80\x02).")
        archive.writestr("m/version", b"3\n")
    return out.getvalue()
