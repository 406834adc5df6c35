"""Operators of ONNX beyond its own: which run foreign code, which are known, what they name.

Theory of operation. A runtime finds an operator by domain and name. Those of ONNX and onnxruntime
are built in. onnxruntime-extensions is a library of its makers that tokenizes, decodes images and
audio: its operators hold their vocabularies in attributes and open no files, except `PyOp`, which
calls a function of Python. An attribute that names a file elsewhere is a finding all the same. Only
where such operators are used is the file walked a second time, for their attributes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Severity
from modelkeep.kernels import protobuf
from modelkeep.kernels.protobuf import LENGTH, Field
from modelkeep.scan.evidence import printable
from modelkeep.scan.names import reaches_out

DEFAULT_DOMAIN = "ai.onnx"
# Operators of these domains are built into onnxruntime: no library is loaded for them.
_BUILT_IN_DOMAINS = frozenset(
    {
        "ai.onnx",
        "ai.onnx.ml",
        "ai.onnx.training",
        "ai.onnx.preview",
        "ai.onnx.preview.training",
        "com.microsoft",
        "com.microsoft.experimental",
        "com.microsoft.nchwc",
        "com.ms.internal.nhwc",
    }
)
# Operators that run foreign code or read files beside the model.
_DANGEROUS: Mapping[str, str] = {
    "PyOp": "runs a Python function",
    "PyCustomOp": "runs a Python function",
    "PyCustomOpDef": "runs a Python function",
    "PythonOp": "runs a Python function",
    "PythonOpGrad": "runs a Python function",
    "ATen": "calls any function of PyTorch by name",
    "EPContext": "loads a compiled program, also from a file beside the model",
    "TRT_EngineOp": "loads a compiled program",
    "AzureTritonInvoker": "sends what it is given to an address",
    "AzureTextToText": "sends what it is given to an address",
    "AzureAudioToText": "sends what it is given to an address",
    "OpenAIAudioToText": "sends what it is given to an address",
}
_EXTENSION_DOMAINS = frozenset({"ai.onnx.contrib", "com.microsoft.extensions"})
# What onnxruntime-extensions 0.15 registers (docs/custom_ops.md, operators/*.cc).
_EXTENSION_NAMES = """
    AudioDecoder BasicTokenizer BertTokenizer BertTokenizerDecoder BlingFireSentenceBreaker
    BpeDecoder CLIPTokenizer DecodeImage DrawBoundingBoxes EncodeImage FastGelu GPT2Tokenizer
    GaussianBlur HfBertTokenizer HfJsonTokenizer ImageDecoder ImageReader Inverse MaskedFill
    MergeSignalSegments MulSigmoid NegPos RaggedTensorToDense RaggedTensorToSparse RobertaTokenizer
    ScatterNDOfShape SegmentExtraction SegmentSum SentencepieceDecoder SentencepieceTokenizer
    SplitSignalSegments SpmTokenizer StftNorm StringConcat StringECMARegexReplace
    StringECMARegexSplitWithOffsets StringEqual StringHash StringHashFast StringJoin StringLength
    StringLower StringMapping StringRaggedTensorToDense StringRegexReplace
    StringRegexSplitWithOffsets StringSplit StringStrip StringToHashBucket StringToHashBucketFast
    StringToVector StringUpper T5Tokenizer TrieDetokenizer TrieTokenizer VectorToString
    WordpieceTokenizer XLMRobertaTokenizer
"""
_EXTENSIONS = frozenset(_EXTENSION_NAMES.split())
# An attribute that is a file's name; others hold the file itself, which has lines.
_FILE_KEYS = re.compile(r"(?i).*(?:file|path|uri|url|location|library|module)")
_FILE_CHARS_MAX = 1_024
# Fields of onnx.proto that lead to nodes: which message holds which in which field.
_PARTS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {6: "graph", 11: "graph"},
}
_DEPTH_MAX = 40
_METADATA = 14
_TEXT_BYTES_MAX = 1 << 20


def operator_severity(domain: str, op_type: str) -> tuple[Severity | None, str]:
    """How bad it is that a graph uses this operator, and why; None for what is built in."""
    why = _DANGEROUS.get(op_type)
    named = f"operator {printable(domain)}.{printable(op_type)}"
    if why is not None:
        return Severity.HIGH, f"{named} {why}"
    if domain in _BUILT_IN_DOMAINS:
        return None, ""
    if domain in _EXTENSION_DOMAINS and op_type in _EXTENSIONS:
        return Severity.NOTE, f"{named} is one of onnxruntime-extensions, which must be installed"
    return (
        Severity.MEDIUM,
        f"{named} is in no known set: a runtime needs foreign code for it",
    )


def is_built_in(domain: str) -> bool:
    """Whether onnxruntime has the operators of this domain in itself."""
    return domain in _BUILT_IN_DOMAINS


def outside_files(view: memoryview) -> Iterator[str]:
    """Files elsewhere that attributes of foreign operators name, in a model that parses."""
    for node in _nodes(view, 0, len(view), "model", 0):
        fields = tuple(_inner(view, node))
        domain = "".join(_text(view, each) for each in fields if each.number == 7)
        if domain in _BUILT_IN_DOMAINS or not domain:
            continue
        for field in fields:
            if field.number == 5 and field.wire == LENGTH:
                yield from _outside(view, field)


def metadata_of(view: memoryview) -> dict[str, str]:
    """What the model says about itself, values whole."""
    pairs: dict[str, str] = {}
    try:
        for field in protobuf.fields(view):
            if field.number == _METADATA and field.wire == LENGTH:
                parts = {each.number: _text(view, each) for each in _inner(view, field)}
                pairs[parts.get(1, "")] = parts.get(2, "")
    except IntegrityError:
        return pairs  # what the graph's own parser has refused already
    return pairs


def _outside(view: memoryview, attribute: Field) -> Iterator[str]:
    fields = tuple(_inner(view, attribute))
    name = "".join(_text(view, each) for each in fields if each.number == 1)
    for field in fields:
        if field.number not in (4, 9) or field.length > _FILE_CHARS_MAX:
            continue
        text = _text(view, field)
        is_name = bool(_FILE_KEYS.fullmatch(name[:80])) and "\n" not in text.strip()
        if is_name and reaches_out(text):
            yield f"attribute {printable(name, 40)} names {printable(text, 80)!r}"


def _nodes(view: memoryview, start: int, stop: int, kind: str, depth: int) -> Iterator[Field]:
    if depth > _DEPTH_MAX:
        return
    try:
        for field in protobuf.fields(view, start, stop):
            part = _PARTS[kind].get(field.number)
            if part is None or field.wire != LENGTH:
                continue
            if part == "node":
                yield field
            yield from _nodes(view, field.offset, field.offset + field.length, part, depth + 1)
    except IntegrityError:
        return


def _inner(view: memoryview, span: Field) -> Iterator[Field]:
    try:
        yield from protobuf.fields(view, span.offset, span.offset + span.length)
    except IntegrityError:
        return


def _text(view: memoryview, field: Field) -> str:
    if field.wire != LENGTH:
        return ""
    stop = field.offset + min(field.length, _TEXT_BYTES_MAX)
    return str(view[field.offset : stop], "utf-8", "replace")
