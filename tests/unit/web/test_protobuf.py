"""The generated messages are those of their source, and those of the public protocol."""

import runpy

import pytest
from google.protobuf.descriptor import FieldDescriptor
from tritonclient.grpc import model_config_pb2, service_pb2

from modelkeep.web import open_inference_pb2 as ours
from modelkeep.web.grpc_methods import SERVICE, UNSUPPORTED
from tests.arch.source import ROOT

PUBLIC = {
    **service_pb2.DESCRIPTOR.message_types_by_name,
    **model_config_pb2.DESCRIPTOR.message_types_by_name,
}
# Where ours has another name, or none of theirs.
QUESTIONS = ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics")
OWN = {"Status", "RetryInfo", "ModelQuestion"}


def messages(found, prefix=""):
    for each in found:
        if each.GetOptions().map_entry:
            continue
        yield prefix + each.name, each
        yield from messages(each.nested_types, f"{prefix}{each.name}.")


def public(name):
    first, *rest = name.split(".")
    found = PUBLIC[first]
    for each in rest:
        found = found.nested_types_by_name[each]
    return found


def shape_of(field):
    kind = field.message_type.name if field.message_type is not None else field.type
    return field.name, field.number, kind, field.is_repeated


def test_the_generated_code_is_current():
    script = ROOT / "scripts" / "protobuf.py"
    generated = runpy.run_path(str(script))["generated"]
    assert (ROOT / "src/modelkeep/web/open_inference_pb2.py").read_text() == generated()


@pytest.mark.parametrize(
    "name",
    sorted(set(dict(messages(ours.DESCRIPTOR.message_types_by_name.values()))) - OWN),
)
def test_a_message_is_part_of_the_public_one(name):
    mine = dict(messages(ours.DESCRIPTOR.message_types_by_name.values()))[name]
    theirs = {shape_of(field) for field in public(name).fields}
    for field in mine.fields:
        if name == "ModelStreamInferResponse":  # sent as it was recorded; and a field of our own
            assert field.number in {1, 2, 1000}
            assert field.number != 2 or field.type == FieldDescriptor.TYPE_BYTES
        else:
            assert shape_of(field) in theirs


@pytest.mark.parametrize("name", QUESTIONS)
def test_questions_about_a_model_are_all_alike(name):
    mine = {shape_of(field) for field in ours.ModelQuestion.DESCRIPTOR.fields}
    assert mine == {shape_of(field) for field in public(f"{name}Request").fields}


def test_element_types_have_their_public_numbers():
    theirs = dict(model_config_pb2.DataType.items())
    assert dict(ours.DataType.items()) == theirs


def test_every_public_method_is_known():
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert service.full_name == SERVICE
    offered = {
        *("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata"),
        *("ModelInfer", "ModelStreamInfer", "ModelConfig", "ModelStatistics", "RepositoryIndex"),
    }
    assert {method.name for method in service.methods} == offered | set(UNSUPPORTED)
