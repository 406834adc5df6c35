"""PyTorch: checkpoints as zip, tar and the old form, TorchScript, packages, exported programs."""
# ruff: noqa: E501, ARG005 - tables

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

from model_files import tarred

from modelkeep.core.verdict import Decision
from tests.attack.scan.corpus import state_dict_pickle
from tests.attack.scan.corpus import zipped as plain_zip
from tests.corpus import zips
from tests.corpus.cases import Case, Family, Harm, Trap, Traps
from tests.corpus.opcodes import (
    called,
    integer,
    legacy,
    line,
    mapped,
    named,
    raw,
    state,
    text,
    tupled,
)
from tests.corpus.packed import acting, calm
from tests.corpus.zips import Member, changed

TORCH = Family("torch", "torch_load", "model.pt")
SCRIPT = Family("torchscript", "torch_jit", "model.pt")
EXPORT = Family("torch-export", "torch_export", "model.pt2")


def cases(traps: Traps) -> Iterator[Case]:
    """All of them."""
    yield from _checkpoints(traps)
    yield from _archives(traps)
    yield from _scripts(traps)
    yield from _programs(traps)


def members(data: bytes, storage: bytes = bytes(64)) -> list[Member]:
    """What torch writes: the pickle, the byte order, one storage, the version."""
    return [
        Member("m/data.pkl", data), Member("m/byteorder", b"little"),
        Member("m/data/0", storage), Member("m/version", b"3\n"),
    ]  # fmt: skip


def archive(data: bytes) -> bytes:
    """A checkpoint."""
    return zips.zipped(*members(data))


def _with_a_tensor(note: bytes) -> bytes:
    """A state dictionary and a note beside it, protocol 2."""
    tensors = state_dict_pickle()[2:-1]
    return b"\x80\x02}(" + text("state_dict") + tensors + text("note") + note + b"u."


def _checkpoints(traps: Traps) -> Iterator[Case]:
    def command(trap: Trap) -> bytes:
        return line("os", "system") + tupled(text(trap.command)) + b"R"

    trap = traps("torch-zip")
    evil, twin = (_with_a_tensor(each) for each in (command(trap), text(trap.command)))
    yield TORCH.case("zip", archive(evil), archive(twin))
    trap = traps("torch-checkpoint-of-lightning")
    evil, twin = (
        archive(b"\x80\x02}(" + text("hyper_parameters") + each + text("epoch") + b"K\x01u.")
        for each in (command(trap), text(trap.command))
    )
    yield TORCH.case("checkpoint-of-lightning", evil, twin, main="m.ckpt")
    trap = traps("torch-legacy")
    evil, twin = legacy(command(trap)), legacy(text(trap.command))
    yield TORCH.case("legacy", evil, twin)
    trap = traps("torch-legacy-in-its-last-stream")
    evil = legacy(b"N").removesuffix(b"\x80\x02].") + b"\x80\x02" + command(trap) + b"0]."
    yield TORCH.case("legacy-in-its-last-stream", evil, legacy(b"N"))
    trap = traps("torch-legacy-in-its-first-stream")
    evil = b"\x80\x02" + command(trap) + b"0" + legacy(b"N")[2:]
    yield TORCH.case("legacy-in-its-first-stream", evil, legacy(b"N"))
    trap = traps("torch-tar")
    evil, twin = (_tar(each) for each in (command(trap), text(trap.command)))
    yield TORCH.case("tar", evil, twin)
    trap = traps("torch-tar-in-its-storages")
    evil = _tar(b"N", storages=b"\x80\x02" + command(trap) + b"0K\x00.\x80\x02].")
    yield TORCH.case("tar-in-its-storages", evil, _tar(b"N"))
    evil, twin = (_stored(count) for count in (1 << 40, 4))
    yield TORCH.case("legacy-storage-of-terabytes", evil, twin, harm=Harm.MEMORY)
    trap = traps("torch-bytes-of-a-storage")
    inner, calm_inner = legacy(command(trap)), legacy(b"N")
    evil, twin = (
        archive(state(called("torch.storage", "_load_from_bytes", raw(each))))
        for each in (inner, calm_inner)
    )
    yield TORCH.case("bytes-of-a-storage", evil, twin)
    trap = traps("torch-rebuilt-from-a-type")
    evil = state(
        called("torch._tensor", "_rebuild_from_type_v2", named("builtins", "exec"),
               named("torch", "Tensor"), tupled(text(trap.code)), b"}")
    )  # fmt: skip
    twin = state(
        called("torch._tensor", "_rebuild_from_type_v2", named("torch._utils", "_rebuild_tensor_v2"),
               named("torch", "Tensor"),
               tupled(_storage(), b"K\x00", b"K\x02\x85", b"K\x01\x85", b"\x89",
                      called("collections", "OrderedDict")), b"}")
    )  # fmt: skip
    yield TORCH.case("rebuilt-from-a-type", archive(evil), archive(twin))
    trap = traps("torch-forward-hook")
    evil, twin = (
        archive(b"\x80\x04" + _module(mapped_hooks) + b".")
        for mapped_hooks in (b"}K\x00" + _runs(trap) + b"s", b"}")
    )
    yield TORCH.case("forward-hook", evil, twin, loader="torch_call")
    for name, module, function, given in (
        ("config-module", "torch.utils.collect_env", "run", lambda t: (text(t.command),)),
        ("exec-wrapper", "torch.jit.unsupported_tensor_ops", "execWrapper",
         lambda t: (text(t.code), b"}", b"}")),
        ("hub", "torch.hub", "load_state_dict_from_url",
         lambda t: (text("http://127.0.0.1:9/x.pt"),)),
        ("another-file", "torch", "load", lambda t: (text(t.secret),)),
        ("graph-module", "torch.fx.graph_module", "_exec_with_source",
         lambda t: (text(t.code), b"}")),
        ("cuda-source", "torch.utils._cpp_embed_headers", "read_file", lambda t: (text(t.secret),)),
    ):  # fmt: skip
        trap = traps(f"torch-{name}")
        arguments = given(trap)
        harm = {"hub": Harm.NETWORK, "another-file": Harm.READ, "cuda-source": Harm.READ}
        yield TORCH.case(
            name,
            archive(state(called(module, function, *arguments))),
            archive(state(tupled(*arguments))),
            harm=harm.get(name, Harm.CODE),
            wanted=Decision.HOLD if name == "cuda-source" else Decision.DENY,
        )


def _stored(count: int) -> bytes:
    """A file of the old form with one storage that says how many numbers it has."""
    parts = (text("storage"), line("torch", "FloatStorage"), text("0"), text("cpu"))
    head = legacy(tupled(*parts, integer(count), b"N") + b"Q").removesuffix(b"\x80\x02].")
    return head + b"\x80\x02]X\x01\0\0\x000a." + struct.pack("<q", 4) + bytes(16)


def _storage() -> bytes:
    pid = tupled(text("storage"), named("torch", "FloatStorage"), text("0"), text("cpu"), b"K\x10")
    return pid + b"Q"


def _runs(trap: Trap) -> bytes:
    return called("functools", "partial", named("cProfile", "run"), text(trap.code))


def _module(hooks: bytes) -> bytes:
    """An Identity, in whose state hooks can stand."""
    empty = called("collections", "OrderedDict")
    names = (
        "_parameters", "_buffers", "_backward_hooks", "_backward_pre_hooks",
        "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_hooks",
        "_forward_pre_hooks_with_kwargs", "_state_dict_hooks", "_state_dict_pre_hooks",
        "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks", "_modules",
    )  # fmt: skip
    pairs = [("training", b"\x88"), ("_is_full_backward_hook", b"N"), ("_forward_pre_hooks", hooks)]
    pairs += [(name, empty) for name in names] + [("_non_persistent_buffers_set", b"\x8f")]
    return named("torch.nn.modules.linear", "Identity") + b")\x81" + mapped(*pairs) + b"b"


def _tar(note: bytes, storages: bytes = b"\x80\x02K\x00.\x80\x02].") -> bytes:
    """The oldest form: three pickles in a tar."""
    return tarred({
        "storages": storages, "tensors": b"\x80\x02K\x00.", "pickle": b"\x80\x02" + note + b".",
    })  # fmt: skip


def _archives(traps: Traps) -> Iterator[Case]:
    """What torch's own reader of archives takes and others do not, or otherwise."""

    def data(trap: Trap, **fields: object) -> tuple[bytes, bytes]:
        evil, twin = members(acting(trap)), members(calm(trap))
        evil[0] = changed(evil[0], **fields)
        return zips.zipped(*evil), zips.zipped(*twin)

    trap = traps("torch-zip-wrong-crc")
    evil, twin = data(trap, crc=0x12345678)
    yield TORCH.case("zip-wrong-crc", evil, twin)
    trap = traps("torch-zip-says-encrypted")
    evil, twin = data(trap, flags=0, local_flags=1)
    yield TORCH.case("zip-says-encrypted", evil, twin)
    trap = traps("torch-zip-other-name-inside")
    evil, twin = data(trap, local_name="m/notes.t")
    yield TORCH.case("zip-other-name-inside", evil, twin)
    trap = traps("torch-zip-deflated")
    evil, twin = data(trap, method=8)
    yield TORCH.case("zip-deflated", evil, twin)
    trap = traps("torch-zip-two-of-one-name")
    parts = members(calm(trap))
    evil = zips.zipped(Member("m/data.pkl", acting(trap)), *parts)
    yield TORCH.case("zip-two-of-one-name", evil, zips.zipped(*parts))
    trap = traps("torch-zip-other-case")
    evil = zips.zipped(*(changed(each, name=each.name.replace("data.pkl", "DATA.pkl"))
                         for each in members(acting(trap))))  # fmt: skip
    yield TORCH.case("zip-other-case", evil, zips.zipped(*members(calm(trap))))
    trap = traps("torch-zip-behind-another")
    # torch looks at the end for the archive: a whole one may lie in front as a storage
    inner = zips.zipped(*members(calm(trap)))
    evil = zips.zipped(*members(acting(trap)), before=inner)
    yield TORCH.case("zip-behind-another", evil, inner)
    trap = traps("torch-plain-pickle-named-bin")
    evil, twin = acting(trap), calm(trap)
    yield TORCH.case(
        "plain-pickle-named-bin", evil, twin, loader="pickle", main="pytorch_model.bin"
    )
    bomb, small = (_large(blocks) for blocks in (80, 1))
    yield TORCH.case("zip-bomb", bomb, small, harm=Harm.MEMORY)


def _large(blocks: int) -> bytes:
    """A checkpoint whose one storage inflates to so many times 8 MiB."""
    floats = b"J" + struct.pack("<i", blocks << 21) + b"t"
    tensor = state_dict_pickle().replace(b"K\x10t", floats)
    data, order, _, version = members(tensor)
    return zips.zipped(data, order, zips.zeros("m/data/0", b"", blocks), version)


_CLASS = """class M(Module):
  __parameters__ = []
  __buffers__ = []
  training : bool
  def forward(self: __torch__.M,
    x: Tensor) -> Tensor:
    FORWARD
  def __getstate__(self: __torch__.M) -> Tuple[bool]:
    training = self.training
    return (training,)
  def __setstate__(self: __torch__.M,
    state: Tuple[bool]) -> NoneType:
    training, = state
    self.training = training
    SETSTATE
    return None
"""


def _script(forward: str = "return torch.relu(x)", setstate: str = "_0 = 1") -> bytes:
    source = _CLASS.replace("FORWARD", forward).replace("SETSTATE", setstate)
    module = b"\x80\x02" + line("__torch__", "M") + b")\x81" + b"\x88\x85b."
    return plain_zip({
        "m/data.pkl": module, "m/code/__torch__.py": source.encode(),
        "m/constants.pkl": b"\x80\x02).", "m/version": b"3\n", "m/byteorder": b"little",
    })  # fmt: skip


def _scripts(traps: Traps) -> Iterator[Case]:
    """Operators that touch files, when a program is loaded or when it is called."""
    calm_script = _script()
    for name, place, code, harm in (
        ("reads-when-loaded", "setstate", "self.training = bool(torch.sum(FILE))", Harm.READ),
        ("writes-when-loaded", "setstate", 'torch.save(state, "NEW")', Harm.WRITE),
        ("reads-when-called", "forward", "return FILE", Harm.READ),
        ("writes-when-called", "forward", 'torch.save(x, "NEW")\n    return x', Harm.WRITE),
        ("reads-by-its-full-name", "forward", "return OWN", Harm.READ),
        ("writes-by-its-full-name", "setstate", 'ops.aten.save(state, "NEW")', Harm.WRITE),
    ):  # fmt: skip
        trap = traps(f"torchscript-{name}")
        filled = code.replace("FILE", 'torch.from_file("SECRET", False, 3)')
        filled = filled.replace("OWN", 'ops.aten.from_file("SECRET", False, 3)')
        filled = filled.replace("SECRET", trap.secret).replace("NEW", trap.new)
        evil = _script(**{place: filled})
        yield SCRIPT.case(name, evil, calm_script, harm=harm)
    trap = traps("torchscript-loaded-as-a-checkpoint")
    evil, twin = (
        plain_zip({"m/data.pkl": each, "m/code/x.txt": b"", "m/version": b"3\n"})
        for each in (acting(trap), calm(trap))
    )
    yield SCRIPT.case("loaded-as-a-checkpoint", evil, twin, loader="torch_load")
    fills = "return torch.zeros([1099511627776])"
    yield SCRIPT.case("fills-memory", _script(forward=fills), calm_script, harm=Harm.MEMORY)


def _programs(traps: Traps) -> Iterator[Case]:
    """torch.export and torch.package."""
    trap = traps("torch-export-expression")
    code = f"__import__('os').system({trap.command!r})"
    yield EXPORT.case("expression", _exported(code), _exported("s0"))
    trap = traps("torch-export-pickled-weights")
    evil, twin = (_exported("s0", weights=archive(each)) for each in (
        acting(trap), state_dict_pickle()))  # fmt: skip
    yield EXPORT.case("pickled-weights", evil, twin)
    trap = traps("torch-export-sample-inputs")
    evil, twin = (_exported("s0", samples=archive(each)) for each in (
        acting(trap), b"\x80\x02)}\x86."))  # fmt: skip
    yield EXPORT.case("sample-inputs", evil, twin)
    trap = traps("torch-package-pickle")
    evil, twin = (_package(each) for each in (acting(trap), calm(trap)))
    yield TORCH.case("package-pickle", evil, twin, loader="torch_package")


def _package(pickled: bytes) -> bytes:
    return plain_zip({"p/model/model.pkl": pickled, "p/.data/version": b"6\n",
                      "p/byteorder": b"little", "p/.data/extern_modules": b"os\n"})  # fmt: skip


def _exported(
    expression: str, *, weights: bytes = b"", samples: bytes = b"",
) -> bytes:  # fmt: skip
    """A program of one operator, as torch.export writes it."""
    size = (
        {"as_int": 1}
        if not expression
        else {"as_expr": {"expr_str": expression, "hint": {"as_int": 2}}}
    )
    meta = {"dtype": 7, "sizes": [size], "requires_grad": False, "layout": 7,
            "device": {"type": "cpu", "index": None}, "strides": [{"as_int": 1}],
            "storage_offset": {"as_int": 0}}  # fmt: skip
    node = {"target": "torch.ops.aten.relu.default", "outputs": [{"as_tensor": {"name": "y"}}],
            "inputs": [{"name": "self", "arg": {"as_tensor": {"name": "x"}}, "kind": 1}], "metadata": {},
            "is_hop_single_tensor_return": None, "name": "y"}  # fmt: skip
    graph = {"inputs": [{"as_tensor": {"name": "x"}}], "outputs": [{"as_tensor": {"name": "y"}}],
             "nodes": [node], "tensor_values": {"x": meta, "y": meta}, "sym_int_values": {},
             "sym_bool_values": {}, "is_single_tensor_return": False, "custom_obj_values": {},
             "sym_float_values": {}}  # fmt: skip
    signature = {"input_specs": [{"user_input": {"arg": {"as_tensor": {"name": "x"}}}}],
                 "output_specs": [{"user_output": {"arg": {"as_tensor": {"name": "y"}}}}]}  # fmt: skip
    spec = '[1, {"type": "builtins.tuple", "context": "null", "children_spec": [{"type": "builtins.tuple", "context": "null", "children_spec": [{"type": null, "context": null, "children_spec": []}]}, {"type": "builtins.dict", "context": "[]", "children_spec": []}]}]'
    calls = [{"fqn": "", "signature": {"inputs": [], "outputs": [], "in_spec": spec,
              "out_spec": '[1, {"type": null, "context": null, "children_spec": []}]',
              "forward_arg_names": ["x"]}}]  # fmt: skip
    program = {"graph_module": {"graph": graph, "signature": signature, "module_call_graph": calls,
                                "metadata": {}, "treespec_namedtuple_fields": {}},
               "opset_version": {"aten": 10}, "range_constraints": {"s0": {"min_val": 2, "max_val": 99}},
               "schema_version": {"major": 8, "minor": 20}, "verifiers": ["TRAINING"],
               "torch_version": "2.13.0", "guards_code": []}  # fmt: skip
    entry = {"path_name": "weight_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    config = {"config": {"w": entry} if weights else {}}
    found = {"e/models/model.json": json.dumps(program).encode(), "e/archive_format": b"pt2",
             "e/archive_version": b"0", "e/.data/version": b"6\n", "e/byteorder": b"little",
             "e/data/weights/model_weights_config.json": json.dumps(config).encode(),
             "e/data/constants/model_constants_config.json": b'{"config": {}}',
             "e/data/sample_inputs/model.pt": samples or archive(b"\x80\x02)}\x86.")}  # fmt: skip
    if weights:
        found["e/data/weights/weight_0"] = weights
    return plain_zip(found)
