"""Snapshots: which version is next, and which one is meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import MissingError
from modelkeep.vault.snapshot import ArtifactEntry, Snapshot, entry_of, next_version


def snapshot(*versions):
    artifacts = tuple(
        ArtifactEntry(name=name, version=version, domain="d", envelope=f"e{version}", recipe="r")
        for name, version in versions
    )
    return Snapshot(taken_ns=0, parent="", artifacts=artifacts, indexes=())


@given(st.lists(st.integers(1, 1000), unique=True))
def test_the_next_version_is_one_past_the_highest(versions):
    found = snapshot(*(("a", version) for version in versions), ("other", 5000))
    assert next_version(found, "a") == max(versions, default=0) + 1


def test_names_count_for_themselves():
    found = snapshot(("a", 1), ("a", 2), ("ab", 7))
    assert [next_version(found, name) for name in ("a", "ab", "new")] == [3, 8, 1]
    assert entry_of(found, "a", 2).envelope == "e2"
    for name, version in (("a", 3), ("b", 1), ("ab", 1), ("a", 0)):
        with pytest.raises(MissingError) as missing:
            entry_of(found, name, version)
        assert missing.value.code == "model.unknown"
