"""Which models a service shows: those that were named, else every model's default, each once."""

import pytest
from onnx_models import two_models
from scenes import Scene
from tiny_language_model import tiny_language_model

from modelkeep.core.errors import MissingError, UsageError
from modelkeep.flows.publish import PROGRAM, TENSOR, TEXT, chosen, defaults, published


def served(keep, *references):
    return [str(each) for each in chosen(keep.opened, references)]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    made = Scene(tmp_path_factory.mktemp("publish"))
    with made.create() as keep:
        for path in two_models():
            keep.admit(path, name="digits")
        keep.admit(two_models()[0], name="another")
    return made


@pytest.fixture
def keep(scene):
    scene.show(scene.image())
    with scene.open() as opened:
        yield opened


def test_without_a_wish_every_model_is_served_at_its_default(keep):
    assert served(keep) == ["another:1", "digits:2"]


def test_what_is_named_is_served_in_that_order_and_once(keep):
    assert served(keep, "digits:1", "another", "digits:1") == ["digits:1", "another:1"]
    assert served(keep, "digits", "digits:2") == ["digits:2"]


def test_what_does_not_exist_cannot_be_served(keep):
    for reference in ("digits:9", "nobody", "digits:prod"):
        with pytest.raises(MissingError):
            chosen(keep.opened, [reference])
    with pytest.raises(UsageError):
        chosen(keep.opened, ["no:such:thing"])


def test_an_empty_keep_has_nothing_to_serve(tmp_path):
    with Scene(tmp_path).create() as keep, pytest.raises(UsageError) as refused:
        chosen(keep.opened, [])
    assert refused.value.code == "serve.nothing"
    assert "admit" in refused.value.hint


def test_a_model_is_published_into_memory_bit_for_bit(keep):
    buffers = []

    def allocate(size_bytes):
        buffers.append(bytearray(size_bytes))
        return memoryview(buffers[-1])

    (first, _) = chosen(keep.opened, ["digits:1", "digits:2"])
    found = published(keep.opened, first, is_default=False, allocate=allocate)
    assert bytes(buffers[0]) == two_models()[0].read_bytes()
    assert (found.name, found.version, found.is_batchable, found.is_default) == (
        "digits",
        1,
        True,
        False,
    )
    assert [port.name for port in found.schema.inputs] == ["pixels"]


def test_the_default_is_the_highest_version_that_is_served(keep):
    assert [each.selector for each in defaults(keep.opened, chosen(keep.opened, ["digits:1"]))] == [
        "1"
    ]
    both = chosen(keep.opened, ["digits:1", "digits:2"])
    assert [each.selector for each in defaults(keep.opened, both)] == ["2"]


def test_a_language_model_waits_for_its_runtime_whose_replicas_get_what_they_read(keep, tmp_path):
    folder = tiny_language_model(tmp_path / "tiny")
    keep.admit(folder, name="talk")
    said = []
    kinds = (TENSOR, PROGRAM)
    found = chosen(keep.opened, [], kinds=kinds, warn=said.append)
    assert "talk" not in {each.name for each in found}
    assert [text.partition(" is not served")[0] for text in said] == ["talk:1"]
    (talk,) = chosen(keep.opened, ["talk"], kinds=(*kinds, TEXT))
    held = {}

    def place(entry):
        held[entry.path] = bytearray(entry.size_bytes)
        return memoryview(held[entry.path])

    model = published(keep.opened, talk, is_default=True, allocate=bytearray, place=place)
    assert model.kind == TEXT
    assert {"README.md"} == {path.name for path in folder.iterdir()} - held.keys()
    assert all(raw == (folder / path).read_bytes() for path, raw in held.items())
