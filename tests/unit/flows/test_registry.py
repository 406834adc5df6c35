"""What a reference names: a version, an alias, `prod`, or the latest; never a guess."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.adapters.state_sqlite import SqliteState
from modelkeep.core.artifact import ModelReference, Port, Schema, parsed_reference
from modelkeep.core.entry import Entry
from modelkeep.core.errors import MissingError
from modelkeep.flows.publish import is_batchable
from modelkeep.flows.registry import resolved
from modelkeep.vault.snapshot import ArtifactEntry, Snapshot


def snapshot(**versions):
    artifacts = tuple(
        ArtifactEntry(name=name, version=version, domain="d", envelope="e", recipe="r")
        for name, each in versions.items()
        for version in each
    )
    return Snapshot(taken_ns=0, parent="", artifacts=artifacts, indexes=())


HELD = snapshot(digits=(1, 3, 2), fraud=(1,))


@pytest.fixture
def state(tmp_path):
    with contextlib.closing(SqliteState(tmp_path / "state.db")) as opened:
        yield opened


def alias(state, model, name, version):
    facts = {"model": model, "alias": name, "version": version}
    entry = Entry(kind="alias.set", at_ns=0, actor="test", facts=facts)
    state.apply(state.applied().entries, [entry])


def version_of(text, state, held=HELD):
    return resolved(parsed_reference(text), held, state)


def test_a_name_alone_is_the_latest_until_there_is_a_prod(state):
    assert version_of("digits", state) == 3
    alias(state, "digits", "next", 2)
    assert version_of("digits", state) == 3
    alias(state, "digits", "prod", 1)
    assert version_of("digits", state) == 1
    assert version_of("fraud", state) == 1


def test_a_selector_is_an_alias_of_this_model_or_a_version_that_exists(state):
    alias(state, "digits", "next", 2)
    assert version_of("digits:next", state) == 2
    assert [version_of(f"digits:{n}", state) for n in (1, 2, 3)] == [1, 2, 3]


@pytest.mark.parametrize(
    "text", ["nobody", "nobody:1", "digits:4", "digits:0", "digits:next", "fraud:2", "digit"]
)
def test_what_does_not_exist_is_missing_and_says_what_does(state, text):
    alias(state, "fraud", "next", 1)
    with pytest.raises(MissingError) as missing:
        version_of(text, state)
    assert missing.value.code == "model.unknown"
    assert missing.value.hint


@given(st.sets(st.integers(1, 10**6), min_size=1))
def test_the_latest_is_the_highest_whatever_the_order(versions):
    with contextlib.closing(Nothing()) as state:
        assert resolved(ModelReference(name="m"), snapshot(m=tuple(versions)), state) == max(
            versions
        )


class Nothing:
    """A State that has applied nothing."""

    def rows(self, _):
        return ()

    def close(self):
        return


def schema(*inputs, outputs=((-1, 10),)):
    def ports(shapes):
        return tuple(Port(name=str(n), dtype="FP32", shape=s) for n, s in enumerate(shapes))

    return Schema(inputs=ports(inputs), outputs=ports(outputs))


@pytest.mark.parametrize(
    ("found", "batchable"),
    [
        (schema((-1, 64)), True),
        (schema((-1, 64), (-1,)), True),
        (schema((1, 64)), False),
        (schema((-1, -1)), False),
        (schema((64, -1)), False),
        (schema(()), False),
        (schema((-1, 64), outputs=((10,),)), False),
        (schema((-1, 64), outputs=((-1, -1),)), False),
        (schema((-1, 64), (4,)), False),
    ],
)
def test_calls_are_joined_only_where_the_first_dimension_alone_is_free(found, batchable):
    assert is_batchable(found) is batchable
