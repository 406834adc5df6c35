"""What a program of `torch.export` takes and gives, read from its own description.

A `.pt2` archive holds `models/NAME.json`: the graph, and of each of its tensors the element type
and the sizes, where a size may be a symbol. Nothing of the graph is run, and no expression is
looked at: whatever is no plain number is a free dimension. Programs that take anything but tensors
have no schema here. Form: torch/_export/serde/schema.py, major version 8.
"""

from __future__ import annotations

from typing import Any

from modelkeep.core.artifact import Port, Schema
from modelkeep.core.errors import IntegrityError
from modelkeep.core.limits import TENSOR_RANK_MAX
from modelkeep.core.record import parsed_json
from modelkeep.kernels.zips import Member, members_of

# A graph of 100,000 nodes is about 50 MB; ten times what language models of today have.
DOCUMENT_BYTES_MAX = 64 * 1024 * 1024
PORTS_MAX = 1024
_DTYPES = {
    1: "UINT8", 2: "INT8", 3: "INT16", 4: "INT32", 5: "INT64", 6: "FP16", 7: "FP32", 8: "FP64",
    12: "BOOL", 28: "UINT16", 34: "UINT32", 35: "UINT64",
}  # fmt: skip
_MAJOR = 8


def is_export(members: tuple[Member, ...]) -> bool:
    """Whether an archive is a program of `torch.export`."""
    return any(each.name.rpartition("/")[2] == "archive_format" for each in members)


def is_script(members: tuple[Member, ...]) -> bool:
    """Whether an archive is a TorchScript program, and not only saved tensors."""
    names = [each.name.split("/", 1)[-1] for each in members]
    return "constants.pkl" in names and any(name.startswith("code/") for name in names)


def export_schema(view: memoryview) -> Schema:
    """The schema of the one program in an archive.

    Raises:
        IntegrityError: `export.form`, or what `members_of` raises.
    """
    found = [each for each in members_of(view) if _is_program(each.name)]
    if len(found) != 1 or not found[0].is_stored or found[0].length > DOCUMENT_BYTES_MAX:
        raise _no_program("it does not hold one program")
    raw = view[found[0].offset : found[0].offset + found[0].length]
    document = parsed_json(raw, what="the program")
    try:
        return _schema(document)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _no_program("it is not of the known form") from error


def _is_program(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 3 and parts[1] == "models" and parts[2].endswith(".json")


def _schema(document: Any) -> Schema:
    if document["schema_version"]["major"] != _MAJOR:
        raise _no_program(f"it is of another version than {_MAJOR}")
    module = document["graph_module"]
    tensors, signature = module["graph"]["tensor_values"], module["signature"]
    inputs = [each["user_input"] for each in signature["input_specs"] if "user_input" in each]
    outputs = [each["user_output"] for each in signature["output_specs"] if "user_output" in each]
    # Whatever else it gives (a changed buffer) would make an answer depend on the one before.
    if len(outputs) != len(signature["output_specs"]) or max(len(inputs), len(outputs)) > PORTS_MAX:
        raise _no_program("it changes what it holds, or has too many inputs")
    return Schema(
        inputs=tuple(_port(each, tensors) for each in inputs),
        outputs=tuple(_port(each, tensors) for each in outputs),
    )


def _port(spec: Any, tensors: Any) -> Port:
    name = spec["arg"]["as_tensor"]["name"]
    meta = tensors[name]
    shape = tuple(_size(each) for each in meta["sizes"])
    if not isinstance(name, str) or not name or len(shape) > TENSOR_RANK_MAX:
        raise _no_program("a port has no name or too many dimensions")
    return Port(name=name, dtype=_DTYPES[meta["dtype"]], shape=shape)


def _size(size: Any) -> int:
    if "as_expr" in size:
        return -1
    number = size["as_int"]
    if type(number) is not int or not 0 <= number < 1 << 63:
        raise _no_program("a size is no number")
    return number


def _no_program(why: str) -> IntegrityError:
    return IntegrityError("export.form", f"the archive is no program that can be read: {why}")
