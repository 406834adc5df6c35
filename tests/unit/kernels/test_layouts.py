"""Unit tests of the layouts' refusals: what a file claims is held against the file."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels import ggufs, npy, torchpickle, zips
from modelkeep.kernels.ggufs import gguf_tensors
from modelkeep.kernels.npy import npy_array
from modelkeep.kernels.safetensors import safetensors_layout
from modelkeep.kernels.tensors import places_of, tensor_entries, tensor_places
from modelkeep.kernels.torchzip import torch_storages
from modelkeep.kernels.zips import members_of


def refused(read, raw):
    with pytest.raises(IntegrityError) as caught:
        read(memoryview(raw))
    return caught.value.code


# ---- zip ----


def archive(members, *, method=zipfile.ZIP_STORED, comment=b""):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        for name, content in members.items():
            made.writestr(name, content)
        made.comment = comment
    return out.getvalue()


PLAIN = archive({"a": b"one", "b": b"two words"})


def patched(raw, at, value):
    return raw[:at] + value + raw[at + len(value) :]


def central(raw, name):
    """Where the directory's entry of a member begins."""
    at = -1
    while (at := raw.find(b"PK\x01\x02", at + 1)) >= 0:
        if raw[at + 46 : at + 46 + len(name)] == name:
            return at
    raise AssertionError(name)


def test_stored_members_lie_where_they_are_said_to_lie():
    for raw in (PLAIN, archive({"a": b"one", "b": b"two words"}, comment=b"PK\x05\x06 no end")):
        found = {each.name: each for each in members_of(memoryview(raw))}
        assert all(each.is_stored for each in found.values())
        assert raw[found["b"].offset : found["b"].offset + found["b"].length] == b"two words"


def test_members_with_descriptors_and_wide_sizes_are_read():
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def tell(self):
            raise OSError

        def seek(self, *_):
            raise OSError

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as made:
        made.writestr("a", b"streamed")
        with made.open(zipfile.ZipInfo("wide"), "w", force_zip64=True) as member:
            member.write(b"wide")
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w") as made,
        made.open("wide", "w", force_zip64=True) as member,
    ):
        member.write(b"wide")
    for raw in (pipe.getvalue(), out.getvalue()):
        for each in members_of(memoryview(raw)):
            piece = raw[each.offset : each.offset + each.length]
            assert piece == {"a": b"streamed", "wide": b"wide"}[each.name]


def test_a_compressed_member_is_named_as_such():
    (member,) = members_of(memoryview(archive({"a": bytes(999)}, method=zipfile.ZIP_DEFLATED)))
    assert not member.is_stored


def same_place():
    """Two entries of the directory for one member."""
    raw = archive({"a": b"one", "b": b"one"})
    return patched(raw, central(raw, b"b") + 42, bytes(4))


def covering():
    """A member whose data reaches over the next one."""
    raw = bytearray(archive({"a": b"one", "b": b"one"}))
    entry = central(raw, b"a")
    for at in (18, 22, entry + 20, entry + 24):
        raw[at : at + 4] = (20).to_bytes(4, "little")
    return bytes(raw)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "zip.end"),
        (PLAIN[:-1], "zip.end"),
        (PLAIN[:-22], "zip.end"),
        (PLAIN + b"tail", "zip.end"),
        (b"head" + PLAIN, "zip.end"),
        (patched(PLAIN, len(PLAIN) - 14, b"\x01\x00"), "zip.end"),
        (patched(PLAIN, len(PLAIN) - 14, b"\x01\x00\x01\x00"), "zip.directory"),
        (patched(PLAIN, len(PLAIN) - 14, b"\x03\x00\x03\x00"), "zip.directory"),
        (patched(PLAIN, central(PLAIN, b"a") + 28, b"\xff\xff"), "zip.directory"),
        (patched(PLAIN, central(PLAIN, b"a") + 46, b"b"), "zip.local"),
        (patched(PLAIN, central(PLAIN, b"a") + 46, b"\0"), "zip.name"),
        (patched(PLAIN, central(PLAIN, b"a") + 8, b"\x01"), "zip.encrypted"),
        (patched(PLAIN, central(PLAIN, b"a") + 10, b"\x08"), "zip.local"),
        (patched(PLAIN, central(PLAIN, b"a") + 16, b"\x00"), "zip.local"),
        (patched(PLAIN, central(PLAIN, b"b") + 42, b"\xff\xff"), "zip.local"),
        (patched(PLAIN, 0, b"X"), "zip.local"),
        (patched(PLAIN, 30, b"c"), "zip.local"),
        (patched(PLAIN, 14, b"\x00"), "zip.local"),
        (patched(patched(PLAIN, 6, b"\x08"), central(PLAIN, b"a") + 8, b"\x08"), "zip.descriptor"),
        (archive({"a": b"1", "b": b"2"}).replace(b"b", b"a"), "zip.name"),
        (same_place(), "zip.overlap"),
        (covering(), "zip.overlap"),
    ],
)  # fmt: skip
def test_an_archive_that_two_readers_see_differently_is_refused(raw, code):
    assert refused(members_of, raw) == code


def test_the_number_of_members_is_bounded(monkeypatch):
    monkeypatch.setattr(zips, "ARCHIVE_MEMBERS_MAX", 1)
    assert refused(members_of, PLAIN) == "zip.members"


# ---- torch ----


class Call:
    """Pickled as a call of a name; nothing here can be loaded."""

    def __init__(self, module, name, *arguments):
        self.symbol, self.arguments = Name(module, name), arguments

    def __reduce__(self):
        return self.symbol, self.arguments


class Name:
    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self):
        raise AssertionError("never called")


class Pickler(pickle._Pickler):
    """Writes names that do not exist, and storages as torch does."""

    def persistent_id(self, item):
        return item.identity if isinstance(item, Stored) else None

    def save(self, item, save_persistent_id=True):  # noqa: FBT002 - the base has it so
        if isinstance(item, Name):
            self.write(f"c{item.module}\n{item.name}\n".encode())
            return None
        return super().save(item, save_persistent_id)


class Stored:
    def __init__(self, key, items, kind="FloatStorage"):
        self.identity = ("storage", Name("torch", kind), key, "cpu", items)


def tensor(storage, *shape, offset=0, stride=None):
    if stride is None:
        stride = tuple(int(np.prod(shape[at + 1 :])) for at in range(len(shape)))
    arguments = (storage, offset, shape, stride, None, {})
    return Call("torch._utils", "_rebuild_tensor_v2", *arguments)


def checkpoint(whole, *, storages=(), raw=None, **more):
    out = io.BytesIO()
    Pickler(out, 2).dump(whole)
    members = {"m/data.pkl": out.getvalue() if raw is None else raw}
    members |= {f"m/data/{key}": bytes(size) for key, size in dict(storages).items()}
    return archive(members | more)


def test_a_checkpoint_made_by_hand_is_seen():
    whole = {"deep": [tensor(Stored("0", 6), 2, 3)], 5: tensor(Stored("1", 4), 2)}
    found = torch_storages(memoryview(checkpoint(whole, storages={"0": 24, "1": 16})))
    assert [(each.name, each.dtype, each.shape, each.length) for each in found] == [
        ("deep.0", "FP32", (2, 3), 24),
        ("5", "FP32", (4,), 16),
    ]


def test_names_are_the_way_or_the_key_and_never_the_same():
    shared = Stored("9", 1)
    whole = {"a": tensor(Stored("7", 1), 1), "b": {"": shared, "x" * 300: Stored("8", 1)}}
    whole["7"] = tensor(Stored("6", 1), 1)
    made = checkpoint(whole, storages=dict.fromkeys("6789", 4))
    assert {each.name for each in torch_storages(memoryview(made))} == {"a", "b", "8", "6"}


def test_big_endian_items_are_raw():
    whole = {"a": tensor(Stored("0", 1), 1), "b": Stored("1", 2, "ByteStorage")}
    made = checkpoint(whole, storages={"0": 4, "1": 2}, **{"m/byteorder": b"big"})
    assert [each.dtype for each in torch_storages(memoryview(made))] == ["RAW", "UINT8"]


def test_a_circle_of_objects_ends():
    ring = []
    ring += [ring, {"ring": ring}, tensor(Stored("0", 1), 1)]
    (found,) = torch_storages(memoryview(checkpoint(ring, storages={"0": 4})))
    assert found.name == "2"


def test_a_deep_nest_ends():
    deep = tensor(Stored("0", 1), 1)
    for _ in range(100):
        deep = [deep]
    found = torch_storages(memoryview(checkpoint([deep], storages={"0": 4})))
    assert found == ()


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (archive({"m/version": b"3"}), "torch.pickle"),
        (checkpoint(tensor(Stored("0", 1), 1)), "torch.storage"),
        (checkpoint(tensor(Stored("0", 2), 1), storages={"0": 4}), "torch.storage"),
        (checkpoint(Stored("0", 1, "OddStorage"), storages={"0": 4}), "torch.storage"),
        (
            checkpoint([Stored("0", 1), Stored("0", 1, "IntStorage")], storages={"0": 4}),
            "torch.storage",
        ),
        (checkpoint(Stored("0", -1), storages={"0": 4}), "torch.pickle"),
        (checkpoint(Stored(0, 1), storages={"0": 4}), "torch.pickle"),
        (checkpoint(tensor(Stored("0", 1), -1), storages={"0": 4}), "torch.pickle"),
        (checkpoint(tensor(Stored("0", 1), 1, stride=()), storages={"0": 4}), "torch.pickle"),
        (checkpoint(tensor(Stored("0", 1), *[1] * 65), storages={"0": 4}), "torch.pickle"),
        (checkpoint(None, raw=b""), "pickle.truncated"),
        (checkpoint(None, raw=b"\x80\x02"), "pickle.truncated"),
        (checkpoint(None, raw=b"X\xff\xff\xff\xffa."), "pickle.truncated"),
        (checkpoint(None, raw=b"X\xff"), "pickle.truncated"),
        (checkpoint(None, raw=b"cposix"), "pickle.truncated"),
        (checkpoint(None, raw=b"\xff"), "pickle.opcode"),
        (checkpoint(None, raw=b"."), "torch.pickle"),
        (checkpoint(None, raw=b"t."), "torch.pickle"),
        (checkpoint(None, raw=b"h\x01."), "torch.pickle"),
        (checkpoint(None, raw=b"Np" + b"9" * 30 + b"\n."), "torch.pickle"),
        (checkpoint(None, raw=b"(o."), "torch.pickle"),
        (checkpoint(None, raw=b"NN\x93."), "torch.pickle"),
        (checkpoint(None, raw=b"}(Nu."), "torch.pickle"),
    ],
)
def test_a_pickle_that_does_not_fit_the_archive_is_refused(made, code):
    assert refused(torch_storages, made) == code


@pytest.mark.parametrize(
    ("bound", "raw"),
    [("OPCODES_MAX", b"0N" * 9 + b"."), ("MEMO_MAX", b"N" + b"\x94" * 9), ("STACK_MAX", b"(" * 9)],
)
def test_what_a_pickle_costs_is_bounded(bound, raw, monkeypatch):
    monkeypatch.setattr(torchpickle, bound, 4)
    assert refused(torch_storages, checkpoint(None, raw=b"N" + raw)) == "torch.size"


def test_a_pickle_that_would_run_a_command_does_nothing(tmp_path):
    ran = tmp_path / "ran"
    whole = {"x": Call("os", "system", f"touch {ran}"), "w": tensor(Stored("0", 1), 1)}
    (found,) = torch_storages(memoryview(checkpoint(whole, storages={"0": 4})))
    assert found.name == "w"
    assert not ran.exists()


# ---- gguf ----


def text(value):
    return struct.pack("<Q", len(value)) + value


def info(name, kind, *sizes, offset=0):
    numbers = struct.pack(f"<L{len(sizes)}Q", len(sizes), *sizes)
    return text(name) + numbers + struct.pack("<LQ", kind, offset)


def model(*infos, pairs=(), data=4096, version=3, count=None):
    head = struct.pack(
        "<4sL2Q", b"GGUF", version, len(infos) if count is None else count, len(pairs)
    )
    raw = head + b"".join(pairs) + b"".join(infos)
    return raw + bytes(-len(raw) % 32) + bytes(data)


def pair(key, kind, value):
    return text(key) + struct.pack("<L", kind) + value


def array(kind, count, value=b""):
    return struct.pack("<LQ", kind, count) + value


def test_rows_of_blocks_are_counted_in_bytes():
    raw = model(info(b"q", 12, 512, 3), info(b"f", 0, 2, offset=896))
    first, second = gguf_tensors(memoryview(raw))
    assert (first.dtype, first.shape, first.length) == ("RAW", (3, 288), 864)
    assert (second.dtype, second.shape, second.offset) == ("FP32", (2,), first.offset + 896)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"GGUF", "gguf.header"),
        (b"GGML" + bytes(40), "gguf.header"),
        (model(version=1), "gguf.version"),
        (model(version=3 << 24), "gguf.version"),
        (model(count=1 << 40), "gguf.header"),
        (model(count=100_000, data=0), "gguf.truncated"),
        (model(info(b"x" * 2000, 0, 1)), "gguf.text"),
        (model(info(b"\xff", 0, 1)), "gguf.text"),
        (model(info(b"a", 0, 1), info(b"a", 0, 1, offset=32)), "gguf.duplicate"),
        (model(info(b"a", 0, 1, 1, 1, 1, 1)), "gguf.shape"),
        (model(info(b"a", 2, 33)), "gguf.shape"),
        (model(info(b"a", 2)), "gguf.shape"),
        (model(info(b"a", 99, 1)), "gguf.type"),
        (model(info(b"a", 4, 1)), "gguf.type"),
        (model(info(b"a", 0, 1, offset=4)), "gguf.offset"),
        (model(info(b"a", 0, 1, offset=1 << 63)), "gguf.bounds"),
        (model(info(b"a", 0, (1 << 63) - 1, (1 << 63) - 1)), "gguf.bounds"),
        (model(info(b"a", 0, 0, 1 << 63)), "gguf.shape"),
        (model(info(b"a", 0, 9), info(b"b", 0, 9, offset=32)), "gguf.overlap"),
        (model(pairs=[pair(b"general.alignment", 4, bytes(4))]), "gguf.alignment"),
        (model(pairs=[pair(b"general.alignment", 4, b"\x30\0\0\0")]), "gguf.alignment"),
        (model(pairs=[pair(b"general.alignment", 4, b"\0\0\0\x80")]), "gguf.alignment"),
        (model(pairs=[pair(b"general.alignment", 8, text(b"64"))]), "gguf.alignment"),
        (model(pairs=[pair(b"k", 0, b"\1")] * 2), "gguf.duplicate"),
        (model(pairs=[pair(b"k", 13, b"")]), "gguf.type"),
        (model(pairs=[pair(b"k", 8, b"\xff" * 8)]), "gguf.truncated"),
        (model(pairs=[pair(b"k", 9, array(4, 1 << 62))]), "gguf.truncated"),
        (model(pairs=[pair(b"k", 9, array(8, 1 << 62))]), "gguf.header"),
        (model(pairs=[pair(b"k", 9, array(8, 2_000_000))], data=9), "gguf.truncated"),
        (model(pairs=[pair(b"k", 9, array(9, 1) * 9)]), "gguf.type"),
    ],
)
def test_a_gguf_file_that_lies_is_refused_with_its_reason(raw, code):
    assert refused(gguf_tensors, raw) == code


def test_the_texts_of_a_gguf_file_are_bounded(monkeypatch):
    monkeypatch.setattr(ggufs, "STEPS_MAX", 3)
    raw = model(pairs=[pair(b"k", 9, array(8, 4, text(b"") * 4))])
    assert refused(gguf_tensors, raw) == "gguf.header"


# ---- safetensors ----


def test_the_parts_of_a_safetensors_header_are_bounded():
    raw = b'{"a":[' + b"[]," * 1_000_000 + b"[]]}"
    assert refused(safetensors_layout, len(raw).to_bytes(8, "little") + raw) == "safetensors.header"


# ---- npy ----


def npy_file(header, data=b"", version=1):
    size = 2 if version == 1 else 4
    raw = header.encode("utf-8" if version == 3 else "latin-1")
    return b"\x93NUMPY" + bytes([version, 0]) + len(raw).to_bytes(size, "little") + raw + data


def header(descr="'<f4'", fortran="False", shape="(2,)"):
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}   \n"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\x93NUMPY", "npy.header"),
        (npy_file(header(), bytes(8), version=4), "npy.version"),
        (npy_file(header(), bytes(7)), "npy.length"),
        (npy_file(header(), bytes(9)), "npy.length"),
        (npy_file(header(shape="(-2,)"), bytes(8)), "npy.header"),
        (npy_file(header(shape="(2.0,)"), bytes(8)), "npy.header"),
        (npy_file(header(shape="(2**9,)"), bytes(8)), "npy.header"),
        (npy_file(header(shape=f"({9 * 10**18},)" * 1), bytes(8)), "npy.length"),
        (npy_file(header(shape=f"({2**63},)"), bytes(8)), "npy.shape"),
        (npy_file(header(shape=f"({'1,' * 65})"), bytes(4)), "npy.shape"),
        (npy_file(header(descr="'<f'"), bytes(8)), "npy.type"),
        (npy_file(header(descr="__import__('os')"), bytes(8)), "npy.header"),
        (npy_file(header(fortran="0"), bytes(8)), "npy.header"),
        (npy_file("{'shape': (), 'descr': '<f4'}", bytes(4)), "npy.header"),
        (npy_file("{" * 60_000, bytes(4)), "npy.header"),
        (npy_file(" " * 60_000, bytes(4)), "npy.header"),
        (npy_file("{'descr':" + " " * 60_000, bytes(4)), "npy.header"),
        (npy_file(header(shape="(" + "1" * 60_000), bytes(4)), "npy.header"),
        (npy_file(header(shape="(" + "1 " * 30_000), bytes(4)), "npy.header"),
        (npy_file(header(shape="(" + "1, " * 20_000), bytes(4)), "npy.header"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "npy.header"),
        (npy_file(header(), version=3).replace(b"<f4", b"\xfff4"), "npy.header"),
    ],
)  # fmt: skip
def test_an_array_that_lies_is_refused_with_its_reason(raw, code):
    assert refused(npy_array, raw) == code


def test_headers_of_old_writers_are_read():
    assert npy_array(memoryview(npy_file(header(shape="(2L, 1L)"), bytes(8)))).shape == (2, 1)
    assert npy_array(memoryview(npy_file(header(shape="()"), bytes(4)))).shape == ()
    assert npy_array(memoryview(npy_file(header(descr="'<M8[ns]'"), bytes(16)))).dtype == "RAW"
    assert npy_array(memoryview(npy_file(header(descr="'|V2'"), bytes(4)))).dtype == "RAW"


def test_a_longer_header_than_numpy_writes_is_refused(monkeypatch):
    monkeypatch.setattr(npy, "HEADER_BYTES_MAX", 20)
    assert refused(npy_array, npy_file(header(), bytes(8))) == "npy.header"


# ---- folders ----


def external_model(*tensors):
    from onnx import TensorProto, helper  # noqa: PLC0415

    made = []
    for name, shape, pairs in tensors:
        each = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        each.data_location = TensorProto.EXTERNAL
        for key, value in pairs.items():
            each.external_data.add(key=key, value=value)
        made.append(each)
    graph = helper.make_graph([], "g", [], [], made)
    return memoryview(helper.make_model(graph).SerializeToString())


def test_external_tensors_of_two_models_may_share_a_file():
    piece = {"location": "w.bin", "offset": "8", "length": "8"}
    files = {
        "deep/a.onnx": external_model(("w", [2], piece), ("v", [2], {"location": "w.bin"})),
        "deep/b.onnx": external_model(("again", [2], piece | {"location": "./w.bin"})),
        "deep/w.bin": memoryview(bytes(16)),
    }
    found = places_of(
        files, {"deep/a.onnx": "onnx", "deep/b.onnx": "onnx", "deep/w.bin": "unknown"}
    )
    assert [(each.name, each.offset) for each in found["deep/w.bin"]] == [("v", 0), ("w", 8)]


@pytest.mark.parametrize(
    "pairs",
    [
        {"location": "../w.bin"},
        {"location": "/w.bin"},
        {"location": "a/../../w.bin"},
        {"location": "a\\w.bin"},
        {"location": "C:w.bin"},
        {"location": ""},
        {},
        {"location": "w.bin", "length": "9"},
        {"location": "w.bin", "offset": "-1"},
        {"location": "w.bin", "offset": "9" * 30},
    ],
)
def test_a_model_that_reaches_out_of_its_folder_is_missing(pairs):
    files = {"a.onnx": external_model(("w", [2], pairs)), "w.bin": memoryview(bytes(8))}
    assert places_of(files, {"a.onnx": "onnx", "w.bin": "unknown"}) == {"w.bin": ()}


@pytest.mark.parametrize("offset", ["4", "12", "16"])
def test_external_tensors_that_overlap_or_leave_the_file_are_no_places(offset):
    first = {"location": "w.bin"}
    files = {
        "a.onnx": external_model(("a", [2], first), ("b", [2], first | {"offset": offset})),
        "w.bin": memoryview(bytes(16)),
    }
    assert places_of(files, {"a.onnx": "onnx", "w.bin": "unknown"})["w.bin"] == ()


def test_a_refused_file_is_missing_and_named_and_kept_as_bytes():
    files = {"bad.gguf": memoryview(b"GGUF"), "a.txt": memoryview(b"text")}
    assert places_of(files, {"bad.gguf": "gguf", "a.txt": "unknown"}) == {"a.txt": ()}
    with pytest.raises(IntegrityError) as caught:
        tensor_places("bad.gguf", files["bad.gguf"], "gguf")
    assert caught.value.context["file"] == "bad.gguf"
    assert tensor_entries("bad.gguf", files["bad.gguf"], "gguf") == ()
