"""TensorFlow's operators: which of them reach out of a graph, and where they say to what.

Theory of operation. TensorFlow has about 1,900 operators, and some eighty of them open files, call
Python or talk to others. Those stand here, by what they do. The rest is data,
`tensorflow_operators.txt`: `scripts/harmless_operators.py` asks TensorFlow's own registry, and
writes down the operators that compute and those that nobody has looked at. So a name is in one of
four places:

- in a table here: it is judged by what the table says;
- `plain` or `calls` (which takes functions of the graph) in the list: it only computes;
- `held` in the list: it is TensorFlow's and not known to be harmless;
- nowhere: a custom operator, whose library somebody must load first.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

_LIST = Path(__file__).with_name("tensorflow_operators.txt")
# Operators that no honest model runs, whatever their inputs are.
DANGEROUS: Mapping[str, str] = {
    **dict.fromkeys(("PyFunc", "PyFuncStateless", "EagerPyFunc", "NumpyFunc"), "calls Python"),
    **dict.fromkeys(("ReadFile", "WholeFileReader", "WholeFileReaderV2", "ImmutableConst",
                     "RecordInput", "Skipgram", "SnapshotDatasetReader", "SnapshotChunkDataset",
                     "SnapshotNestedDatasetReader", "ListSnapshotChunksDataset"),
                    "reads any file"),
    **dict.fromkeys(("WriteFile", "PrintV2File"), "writes any file"),
    **dict.fromkeys(("MatchingFiles", "MatchingFilesDataset"), "lists folders"),
    "DeleteFile": "deletes files",
    **dict.fromkeys(("SaveDataset", "SaveDatasetV2", "SnapshotDataset", "SnapshotDatasetV2",
                     "DistributedSave", "CreateSummaryFileWriter", "CreateSummaryDbWriter",
                     "WriteAudioSummary2", "DatasetToTFRecord", "DumpTensor",
                     "CalibrationStatisticsSaver"), "writes files"),
    **dict.fromkeys(("DataServiceDataset", "DataServiceDatasetV2", "DataServiceDatasetV3",
                     "DataServiceDatasetV4", "RegisterDataset", "RegisterDatasetV2", "RpcCall",
                     "RpcClient", "RpcServer", "RpcServerStart", "RpcServerRegister", "Rpc",
                     "TryRpc", "BigQueryReader", "GcsConfigureCredentials",
                     "GcsConfigureBlockCache", "KafkaDataset", "SqlDataset"), "opens connections"),
    **dict.fromkeys(("ShellCommand", "Shell", "ExecuteCommand", "System", "Subprocess", "Popen",
                     "LoadLibrary", "LoadOpLibrary", "LoadPluggableDeviceLibrary"),
                    "runs foreign code"),
    "DatasetFromGraph": "runs a graph that is hidden in a text",
    "FileSystemSetConfiguration": "changes how files are reached",
}  # fmt: skip
# Which inputs of an operator are names of files.
WRITERS: Mapping[str, tuple[int, ...]] = {
    "Save": (0,),
    "SaveV2": (0,),
    "SaveSlices": (0,),
    "MergeV2Checkpoints": (0, 1),
}
READERS: Mapping[str, tuple[int, ...]] = {
    "Restore": (0,),
    "RestoreV2": (0,),
    "RestoreSlice": (0,),
    "DTensorRestoreV2": (0,),
    "InitializeTableFromTextFile": (1,),
    "InitializeTableFromTextFileV2": (1,),
    "LoadAndRemapMatrix": (0,),
    "GenerateVocabRemapping": (0, 1),
    "SimpleMLLoadModelFromPath": (0,),
    "SimpleMLLoadModelFromPathWithHandle": (1,),
}
# A cache keeps what a data set gave: in memory where the name is empty, else in a file.
CACHES: Mapping[str, tuple[int, ...]] = {"CacheDataset": (1,), "CacheDatasetV2": (1,)}
# Readers of files that a pipeline for training may hold: what they read is not known here.
PIPELINES: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("LoadDataset", "LoadDatasetV2", "TextLineDataset", "TFRecordDataset",
                     "TFRecordDatasetV2", "FixedLengthRecordDataset", "FixedLengthRecordDatasetV2",
                     "CSVDataset", "CSVDatasetV2", "LMDBDataset"), (0,)),
    **dict.fromkeys(("TextLineReader", "TextLineReaderV2", "TFRecordReader", "TFRecordReaderV2",
                     "FixedLengthRecordReader", "FixedLengthRecordReaderV2", "LMDBReader"), ()),
}  # fmt: skip
# Operators of the tables above: their inputs that name files.
NAMED_INPUTS = {**WRITERS, **READERS, **CACHES, **PIPELINES}
# Attributes that name a file, and the values (or beginnings of them) that name none.
NAMED_ATTRIBUTES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "FixedUnigramCandidateSampler": ("vocab_file", ()),
    "EncodeProto": ("descriptor_source", ("local://", "bytes://")),
    "DecodeProtoV2": ("descriptor_source", ("local://", "bytes://")),
}
# Operators that send what they see to an address in an attribute.
SENDERS = frozenset(
    {"PrintV2", "DebugIdentity", "DebugIdentityV2", "DebugIdentityV3", "DebugNanCount",
     "DebugNumericSummary", "DebugNumericSummaryV2", "DebugGradientIdentity"}
)  # fmt: skip
# Operators that fill a shape, and the input that is the shape.
GROWERS: Mapping[str, int] = {"Fill": 0, "BroadcastTo": 1, "Empty": 0}
# Custom operators of this namespace (tensorflow-io) open files and connections by name.
FOREIGN_NAMESPACES = frozenset({"IO"})


def plain_name(operator: str) -> str:
    """The operator's name without its namespace and without the mark of an older twin."""
    return operator.rpartition(">")[2].removeprefix("Experimental")


def use_of(operator: str) -> str:
    """plain, calls or held, as the list has it; nothing for a custom operator."""
    return _uses().get(operator, "")


@cache
def _uses() -> Mapping[str, str]:
    """The list: lines of `use name name …`; other lines are comments."""
    found: dict[str, str] = {}
    for line in _LIST.read_text("utf-8").splitlines():
        use, *names = line.split() or [""]
        if use in ("plain", "calls", "held"):
            found.update(dict.fromkeys(names, use))
    return found
