"""Where versions are used: what is said of them is told, asked and kept."""

import pytest
from onnx_models import two_models
from scenes import Scene
from tensor_files import tensors, written

from modelkeep.core.errors import KeepError
from modelkeep.core.record import replaced
from modelkeep.flows.keys import destroyed
from modelkeep.flows.publish import chosen
from modelkeep.flows.settings import ApprovalSettings
from modelkeep.sdk.versions import Versions


@pytest.fixture
def keep(tmp_path):
    with Scene(tmp_path).create() as keep:
        yield keep


@pytest.fixture
def file(tmp_path):
    return written(tmp_path / "m.safetensors", tensors(1, count=1, items=4))


def refusal(act, *words, **more):
    with pytest.raises(KeepError) as refused:
        act(*words, **more)
    return refused.value.code


def test_an_alias_set_by_a_program_needs_the_same_approval(keep, file):
    keep.admit(file, name="m")
    keep.config = replaced(keep.config, approvals=ApprovalSettings(needed=1))
    assert refusal(keep.set_alias, "m:prod", 1) == "approval.needed"


def test_a_restore_of_what_is_deprecated_is_warned_of(keep, file, tmp_path):
    told = []
    keep._warn = told.append
    keep.admit(file, name="m")
    keep.restore("m:1", tmp_path / "a")
    assert told == []
    Versions(keep).deprecate("m:1")
    keep.restore("m", tmp_path / "b")
    assert told == ["m:1 is deprecated"]


def test_a_base_is_recorded_by_its_number(keep, file, tmp_path):
    keep.admit(file, name="m")
    keep.set_alias("m:prod", 1)
    other = written(tmp_path / "n.safetensors", tensors(2, count=1, items=4))
    keep.admit(other, name="m", base="m:prod")
    assert keep.manifest("m:2").base == "m:1"
    keep.admit(file, name="n", base="hub:latest")  # which this keep does not hold
    assert keep.manifest("n").base == "hub:latest"


def test_what_has_ended_is_left_out_of_a_start_or_stops_it_by_name(keep):
    for model in two_models():
        keep.admit(model, name="d")
    versions, told = Versions(keep), []
    versions.deprecate("d:1", until="2000-01-01")
    assert [str(each) for each in chosen(keep.opened, (), warn=told.append)] == ["d:2"]
    assert told == []
    assert refusal(chosen, keep.opened, ("d:1",)) == "version.ended"
    versions.alias("d:prod", 1)
    assert refusal(chosen, keep.opened, (), warn=told.append) == "serve.nothing"
    assert "d:1 is deprecated, which ended at 2000-01-01" in told[0]


def test_a_domain_with_something_on_hold_is_not_destroyed(keep, file):
    keep.keys.new("acme")
    keep.admit(file, name="m", domain="acme")
    Versions(keep).hold("m:1", note="case 7")
    assert refusal(destroyed, keep.opened, "acme") == "remove.held"
    assert keep.models()[0].is_held
