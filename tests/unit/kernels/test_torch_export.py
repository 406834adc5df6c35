"""A program's description says what it takes and gives, or it has no schema."""

import io
import json
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.artifact import Port
from modelkeep.core.errors import IntegrityError
from modelkeep.kernels.torch_export import export_schema, is_export, is_script
from modelkeep.kernels.zips import members_of


def meta(dtype, *sizes):
    return {
        "dtype": dtype,
        "sizes": [
            {"as_int": size} if isinstance(size, int) else {"as_expr": {"expr_str": size}}
            for size in sizes
        ],
    }


def document(**changed):
    graph = {"tensor_values": {"w": meta(7, 3, 4), "x": meta(7, "s0", 4), "y": meta(5, "s0")}}
    signature = {
        "input_specs": [
            {"parameter": {"arg": {"name": "w"}, "parameter_name": "w"}},
            {"user_input": {"arg": {"as_tensor": {"name": "x"}}}},
        ],
        "output_specs": [{"user_output": {"arg": {"as_tensor": {"name": "y"}}}}],
    }
    return {
        "schema_version": {"major": 8, "minor": 20},
        "graph_module": {"graph": graph, "signature": signature},
        **changed,
    }


def archive(raw, *, name="m/models/model.json", compression=zipfile.ZIP_STORED, more=()):
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w", compression) as file:
        file.writestr("m/archive_format", "pt2")
        file.writestr(name, raw if isinstance(raw, bytes) else json.dumps(raw))
        for each in more:
            file.writestr(each, b"{}")
    return memoryview(kept.getvalue())


def test_a_program_says_what_it_takes_and_gives():
    schema = export_schema(archive(document()))
    assert schema.inputs == (Port(name="x", dtype="FP32", shape=(-1, 4)),)
    assert schema.outputs == (Port(name="y", dtype="INT64", shape=(-1,)),)
    assert is_export(members_of(archive(document())))


def broken():
    changes = {
        "another version": document(schema_version={"major": 9}),
        "no version": document(schema_version=None),
        "no graph": document(graph_module={}),
    }
    for what, (place, value) in {
        "an input that is no tensor": ("input_specs", [{"user_input": {"arg": {"as_int": 1}}}]),
        "a changed buffer": ("output_specs", [{"buffer_mutation": {}}]),
        "an unknown tensor": (
            "input_specs", [{"user_input": {"arg": {"as_tensor": {"name": "nobody"}}}}],
        ),
    }.items():  # fmt: skip
        changes[what] = document()
        changes[what]["graph_module"]["signature"][place] = value
    for what, value in {
        "an unknown type": meta(13, 2),
        "a negative size": meta(7, -2),
        "a size that is true": meta(7, True),  # noqa: FBT003
        "too many dimensions": meta(7, *range(1, 99)),
    }.items():
        changes[what] = document()
        changes[what]["graph_module"]["graph"]["tensor_values"]["x"] = value
    return changes


@pytest.mark.parametrize("what", broken())
def test_what_is_of_no_known_form_has_no_schema(what):
    with pytest.raises(IntegrityError):
        export_schema(archive(broken()[what]))


def test_an_archive_must_hold_one_plain_program():
    for view in (
        archive(document(), name="m/other/model.json"),
        archive(document(), compression=zipfile.ZIP_DEFLATED),
        archive(document(), more=["m/models/second.json"]),
        archive(b"{"),
    ):
        with pytest.raises(IntegrityError):
            export_schema(view)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(st.sampled_from(["graph_module", "schema_version"]), JSON)
def test_no_document_does_anything_but_have_a_schema_or_none(key, value):
    with pytest.raises(IntegrityError):
        export_schema(archive(document(**{key: value})))


@given(st.binary(max_size=300))
def test_no_bytes_do_anything_but_have_a_schema_or_none(raw):
    with pytest.raises(IntegrityError):
        export_schema(memoryview(raw))


def test_saved_tensors_are_no_script():
    assert not is_script(members_of(archive(document())))
    script = archive(
        b"def forward(self): ...", name="m/code/__torch__.py", more=["m/constants.pkl"]
    )
    assert is_script(members_of(script))
