"""Which kept models are served as text, said of their manifests alone."""

from __future__ import annotations

import pytest

from modelkeep.core.artifact import FileEntry, Manifest, Port, Schema
from modelkeep.core.digest import Digest
from modelkeep.gate.text_models import text_form

PORT = Port(name="x", dtype="FP32", shape=(-1, 4))


def manifest(kind, *paths, schema=None):
    digest = Digest("blake3:" + 64 * "0")
    files = tuple(FileEntry(path=path, size_bytes=1, digest=digest) for path in paths)
    return Manifest(
        name="m", version=1, kind=kind, domain="d", admitted_ns=0, files=files, schema=schema
    )


def test_a_gguf_is_served_whatever_it_is_called():
    assert text_form(manifest("gguf", "smol.gguf")).files == ("smol.gguf",)
    assert text_form(manifest("gguf", "weights.bin")).files == ("weights.bin",)
    assert text_form(manifest("gguf", "a.gguf", "b.gguf")) is None


def test_a_folder_gives_its_replicas_what_they_read_and_nothing_else():
    folder = manifest(
        "safetensors",
        "README.md",
        "config.json",
        "model-1.safetensors",
        "onnx/model.safetensors",
        "tokenizer.json",
        "modeling_own.py",
    )
    assert text_form(folder).files == ("config.json", "model-1.safetensors", "tokenizer.json")


@pytest.mark.parametrize(
    "paths",
    [
        ("config.json", "tokenizer.json"),
        ("config.json", "model.safetensors"),
        ("tokenizer.json", "model.safetensors"),
        ("config.json", "tokenizer.json", "pytorch_model.bin"),
        (),
    ],
)
def test_a_folder_that_lacks_something_is_refused(paths):
    assert text_form(manifest("safetensors", *paths)) is None


def test_a_model_with_a_schema_takes_tensors():
    schema = Schema(inputs=(PORT,), outputs=(PORT,))
    assert text_form(manifest("onnx", "model.onnx", schema=schema)) is None
