"""Dotted names in configuration that a loader imports and calls.

Hydra's `_target_`, MLflow's `loader_module`, LangChain's `id`, Keras's `module`, the `type` of
sentence-transformers: text chooses what is imported, so each is judged by one rule. A class
(its name begins with a capital) of a library that models are made of is what such a field is for;
what runs commands, reads other names or fetches files is denied; all else holds.
"""

from __future__ import annotations

import re
import sys

from modelkeep.core.verdict import Severity
from modelkeep.scan.symbols import is_dangerous
from modelkeep.scan.symbols_values import Symbol

_DOTTED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_CLASS = re.compile(r"_?[A-Z][A-Za-z0-9_]*")
# Libraries whose classes configuration builds; of the larger ones, the parts that are models.
_BUILDING = (
    "torch.nn.", "torch.optim.", "torch.utils.data.", "torchvision.transforms.",
    "torchvision.models.", "torchmetrics.", "torchaudio.transforms.", "transformers.", "diffusers.",
    "nemo.", "lightning.pytorch.", "pytorch_lightning.", "lightning.", "megatron.", "timm.",
    "sklearn.", "keras.", "omegaconf.", "sentence_transformers.", "peft.", "tokenizers.",
    "langchain",
    "xgboost.", "lightgbm.", "catboost.", "monai.", "segmentation_models_pytorch.",
    "speechbrain.", "torch_geometric.nn.", "einops.layers.", "ultralytics.nn.", "datasets.",
    "ldm.", "sgm.", "cldm.", "taming.",
)  # fmt: skip
# Functions that configuration names as values.
_FUNCTIONS = re.compile(
    r"torch\.nn\.functional\.[a-z_0-9]+|torch\.(?:float16|float32|float64|bfloat16|int8|int64|device"
    r"|tensor|zeros|ones|arange|linspace|relu|tanh|sigmoid)|torch\.nn\.init\.[a-z_]+"
    r"|torch\.optim\.lr_scheduler\.[A-Za-z]+|transformers\.get_[a-z_]+_schedule(?:_with_warmup)?"
    r"|collections\.(?:OrderedDict|defaultdict|Counter|deque)|pathlib\.(?:Pure)?(?:Posix)?Path"
    r"|datetime\.(?:timedelta|datetime|date)|builtins\.(?:dict|list|tuple|set|int|float|str|bool)|numpy\.(?:array|float32|float64|int64)"
)
# Functions that build a model by its name, as those of torchvision do: `resnet18`, `vit_b_16`.
_BUILDERS = re.compile(
    r"torchvision\.models(?:\.(?!_)[a-z0-9_]+)*\.(?:alexnet|vgg1[1369](?:_bn)?|googlenet|inception_v3"
    r"|get_model|(?:wide_)?resnet[0-9]+(?:_2)?|(?:resnext|densenet|mnasnet|shufflenet|squeezenet"
    r"|mobilenet|efficientnet|regnet|convnext|vit|swin|swin3d|maxvit|fasterrcnn|fcos|retinanet|ssd"
    r"|ssdlite|ssd300|ssdlite320|maskrcnn|keypointrcnn|fcn|deeplabv3|lraspp|raft|r3d|mc3|r2plus1d|s3d"
    r"|mvit)[a-z0-9_]*)"
    r"|timm\.(?:models\.(?:_factory\.|factory\.)?)?create_model"
    r"|timm\.models\.(?:[a-z0-9]+\.)?[a-z]+[0-9][a-z0-9_]*"
    r"|segmentation_models_pytorch\.create_model"
    r"|(?:transformers|diffusers|sentence_transformers|peft)\.(?:(?!_)[a-z0-9_]+\.)*[A-Z][A-Za-z0-9_]*"
    r"\.from_(?:pretrained|config)"
)
# They call or find what another key names, which is judged there.
_NAMING = frozenset(
    {"functools.partial", "hydra.utils.get_class", "hydra.utils.get_method",
     "hydra.utils.get_object", "hydra.utils.instantiate", "hydra.utils.call"}
)  # fmt: skip
# Inside those libraries: what starts programs, reads files or fetches them.
_ACTING = re.compile(
    r"REPL|(?i:(?:^|[._])(?:eval|exec|execute|system|popen|spawn|shell|python_repl|run_code)(?:[._]|$)"
    r"|shell(?:tool|$)|bash|terminal|subprocess|(?:^|\.)os\.|hub\.load|from_url|download_"
    r"|urlretrieve|(?:^|\.)requests|requests(?:get|post|put|patch|delete)|pickle|unpickl"
    r"|torch\.load|code_?interpreter|(?:write|read|delete|copy|move)filetool|importlib|import_module)"
)


def target_severity(dotted: str) -> Severity | None:
    """How bad it is that a loader imports and calls this name; None where it is usual."""
    text = dotted.replace(":", ".").strip()
    if not _DOTTED.fullmatch(text):
        return Severity.MEDIUM if text.isprintable() and "/" not in text else Severity.HIGH
    parts = text.split(".")
    if _FUNCTIONS.fullmatch(text):
        return None
    is_own = parts[0] == "__main__" and len(parts) == 2 and _CLASS.fullmatch(parts[1])
    if is_own or text in _NAMING:  # a class of the script that wrote the file; see above
        return Severity.MEDIUM
    if _is_acting(text, parts):
        return Severity.HIGH
    if fetches(text) or (text.startswith(_BUILDING) and _CLASS.fullmatch(parts[-1])):
        return None
    return Severity.HIGH if _is_foreign(parts) else Severity.MEDIUM


def fetches(dotted: str) -> bool:
    """Whether the name is a function that builds a model, and may be told where its weights are."""
    return _BUILDERS.fullmatch(dotted) is not None


def _is_acting(text: str, parts: list[str]) -> bool:
    """Whether a part of the name says that it runs, reads or fetches something."""
    is_inside = any(part.startswith("__") for part in parts)
    return is_inside or _reaches_through(parts) or _ACTING.search(text) is not None


def _is_foreign(parts: list[str]) -> bool:
    """Whether the name is one of Python itself, or known to be dangerous."""
    module, name = ".".join(parts[:-1]), parts[-1]
    if is_dangerous(Symbol(module or "builtins", name)):
        return True
    if is_dangerous(Symbol(parts[0], ".".join(parts[1:]))):
        return True
    return bool(module) and parts[0] in sys.stdlib_module_names


def _reaches_through(parts: list[str]) -> bool:
    """Whether a standard module is taken out of another one, as in `torch.serialization.os`."""
    inner = set(parts[1:-1]) & {
        "os", "sys", "subprocess", "shutil", "importlib", "builtins", "pickle", "socket", "ctypes",
        "runpy", "pty", "code", "posix", "nt", "pathlib", "tempfile", "urllib", "requests", "sh",
    }  # fmt: skip
    return bool(inner)
