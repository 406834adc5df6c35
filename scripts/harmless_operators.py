"""Write down which operators TensorFlow has that only compute, for the scanner's list.

    python scripts/harmless_operators.py [--check]

Run it in an environment that has TensorFlow. Every operator of its registry that no table of
`modelkeep.scan.tensorflow_ops` names is merged into `src/modelkeep/scan/tensorflow_operators.txt`:

    plain   computes
    calls   computes, and takes functions of the graph
    held    is TensorFlow's and not known to be harmless

Held are the operators of `HELD`, and those with an input or an attribute that is named as a file or
an address is, unless `LOOKED_AT` has them: so an operator that a new TensorFlow brings is never
harmless by default when it sounds like a file. Read the difference before it is committed.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from modelkeep.scan import tensorflow_ops  # noqa: E402

TARGET = ROOT / "src" / "modelkeep" / "scan" / "tensorflow_operators.txt"
# What stands in a graph only while it runs, stops the process, or runs what is not in the graph.
HELD = frozenset(
    {"Abort", "RemoteCall", "MlirPassthroughOp", "XlaCustomCall", "XlaCustomCallV2",
     "TPUCompile", "TPUExecute", "TPUExecuteAndUpdateVariables", "WorkerHeartbeat",
     "RpcCheckStatus", "RpcGetValue", "DeleteRpcFutureResource", "Send", "Recv", "_Send",
     "_Recv", "_HostSend", "_HostRecv", "_TPUCompileMlir", "_XlaHostComputeMlir", "_XlaRun",
     "_XlaCompile", "ConstructionFails"}
)  # fmt: skip
_SUSPECT = re.compile(
    r"file|path|(?:^|_)(?:log)?dir(?:_|$|ectory)|prefix|ur[il]s?$|address|memory_region|library|"
    r"shared_object|snapshot_|checkpoint|source|command"
)
# Operators whose inputs sound so and name no file.
LOOKED_AT = frozenset(
    {"CollectivePermute", "XlaSelectAndScatter", "TensorArrayGrad", "TensorArrayGradV2",
     "TensorArrayGradV3", "TensorArrayGradWithShape", "SetStatsAggregatorDataset",
     "ExperimentalSetStatsAggregatorDataset"}
)  # fmt: skip
Operators = dict[str, str]

HEADER = """\
# Operators of TensorFlow that no table of modelkeep.scan.tensorflow_ops names.
# Written by scripts/harmless_operators.py; read by modelkeep.scan.tensorflow_ops.
#   plain   computes
#   calls   computes, and takes functions of the graph
#   held    is TensorFlow's and not known to be harmless
"""


def main() -> int:
    """Collect, merge, write; with --check say whether something would be written."""
    before = TARGET.read_text("utf-8") if TARGET.is_file() else ""
    operators, versions = _read(before)
    version, found = _registered()
    operators.update(found)
    text = _written(operators, versions | {version})
    print(f"{len(operators)} operators; {'unchanged' if text == before else 'changed'}")
    if "--check" in sys.argv:
        return int(text != before)
    TARGET.write_text(text, "utf-8")
    return 0


def _registered() -> tuple[str, Operators]:
    """What this TensorFlow has."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    tensorflow = importlib.import_module("tensorflow")
    session = importlib.import_module("tensorflow.python.client.pywrap_tf_session")
    registry = importlib.import_module("tensorflow.core.framework.op_def_pb2").OpList()
    registry.ParseFromString(bytes(session.TF_GetBuffer(session.TF_GetAllOpList())))
    found = {each.name: _use(each) for each in registry.op if not _is_judged(each.name)}
    return tensorflow.__version__, found


def _is_judged(name: str) -> bool:
    plain = tensorflow_ops.plain_name(name)
    tables = (tensorflow_ops.DANGEROUS, tensorflow_ops.NAMED_INPUTS,
              tensorflow_ops.NAMED_ATTRIBUTES, tensorflow_ops.SENDERS)  # fmt: skip
    return any(plain in table for table in tables)


def _use(operator: Any) -> str:
    texts = [each.name for each in operator.input_arg if each.type in (0, 7)]
    texts += [each.name for each in operator.attr if each.type in ("string", "list(string)")]
    suspect = [each for each in texts if _SUSPECT.search(each)]
    if suspect and operator.name not in LOOKED_AT:
        print(f"  held: {operator.name} {suspect}", file=sys.stderr)
        return "held"
    if operator.name in HELD:
        return "held"
    is_caller = any(each.type in ("func", "list(func)") for each in operator.attr)
    return "calls" if is_caller else "plain"


def _read(text: str) -> tuple[Operators, set[str]]:
    operators: Operators = {}
    versions: set[str] = set()
    for line in text.splitlines():
        words = line.split()
        if line.startswith("# from TensorFlow "):
            versions = {word.strip(",") for word in words[3:]}
        elif words and words[0] in ("plain", "calls", "held"):
            operators.update({name: words[0] for name in words[1:] if not _is_judged(name)})
    return operators, versions


def _written(operators: Operators, versions: set[str]) -> str:
    lines = [HEADER.rstrip(), f"# from TensorFlow {', '.join(sorted(versions))}"]
    for use in ("plain", "calls", "held"):
        names = sorted(name for name, each in operators.items() if each == use)
        lines += textwrap.wrap(
            " ".join(names), 100, initial_indent=f"{use} ", subsequent_indent=f"{use} ",
            break_on_hyphens=False, break_long_words=False,
        )  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
