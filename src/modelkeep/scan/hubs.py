"""Configuration of model hubs: keys that make a loader run code which lies beside the model.

transformers (`auto_map`, `custom_pipelines`), diffusers (`model_index.json`), sentence-transformers
(`modules.json`), MLflow (`MLmodel`) and environments that MLflow installs.
"""

from __future__ import annotations

import re
from typing import Any

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable
from modelkeep.scan.installs import requirement_findings
from modelkeep.scan.names import reaches_out
from modelkeep.scan.targets import target_severity
from modelkeep.scan.walks import Entry

# MLflow's own flavours; each has a `_load_pyfunc` of its own.
_FLAVOURS = re.compile(
    r"mlflow\.(?:sklearn|pytorch|tensorflow|keras|xgboost|lightgbm|catboost|onnx|spark|statsmodels"
    r"|prophet|pmdarima|paddle|fastai|gluon|h2o|spacy|transformers|sentence_transformers|langchain"
    r"|llama_index|openai|diviner|mleap|johnsnowlabs|promptflow|dspy|models\.[a-z_]+"
    r"|pyfunc(?:\.(?:model|loaders\.[a-z_]+|spark_model_cache))?)"
)
_REQUIREMENTS = ("dependencies", "pip", "build_dependencies")


def hub_findings(case: Case, entry: Entry) -> list[Finding]:
    """Judge one object of a document by the keys of the hubs."""
    pairs, findings = entry.pairs, list[Finding]()
    where = printable(entry.path or "(top)", 80)

    def note(rule: str, severity: Severity, text: str) -> None:
        findings.append(case.found("scan.config." + rule, severity, f"{where}: {text}"))

    auto = pairs.get("auto_map")
    if isinstance(auto, dict | list | str) and auto:
        far = "--" in str(auto)
        what = "of another repository" if far else "beside the model"
        text = f"`auto_map` runs code {what}: {printable(str(auto), 100)}"
        note("code", Severity.MEDIUM, text)
    if pairs.get("trust_remote_code") in (True, "true", "True", 1):
        note("code", Severity.MEDIUM, "asks its loader to trust code that comes with it")
    pipelines = pairs.get("custom_pipelines")
    if isinstance(pipelines, dict) and pipelines:
        note("code", Severity.MEDIUM, "`custom_pipelines` runs code beside the model")
    for key in ("custom_generate", "custom_pipeline"):
        if isinstance(pairs.get(key), str) and pairs[key]:
            note("code", Severity.MEDIUM, f"`{key}` runs code of a repository")
    kernel = pairs.get("_attn_implementation") or pairs.get("attn_implementation")
    if isinstance(kernel, str) and "/" in kernel:
        note("code", Severity.MEDIUM, f"attention is a program from a hub: {printable(kernel, 60)}")
    findings.extend(_index(case, entry))
    findings.extend(_modules(case, entry))
    findings.extend(_mlflow(case, entry))
    findings.extend(_environment(case, entry))
    findings.extend(_paths(case, entry))
    return findings


def _index(case: Case, entry: Entry) -> list[Finding]:
    """diffusers: `"unet": ["diffusers", "UNet2DConditionModel"]`, or code beside the model."""
    name = entry.pairs.get("_class_name")
    if not isinstance(name, str | list) or entry.path:
        return []
    parts = [name] if isinstance(name, list) else []
    parts += [
        value for key, value in entry.pairs.items() if isinstance(value, list) and key[:1] != "_"
    ]
    findings = []
    for part in parts:
        if len(part) != 2 or not all(isinstance(each, str) for each in part):
            continue
        module, what = part
        if module in (
            "diffusers",
            "transformers",
            "onnxruntime",
            "stable_diffusion",
            "k_diffusion",
        ):
            continue
        if re.fullmatch(r"[a-z_]+", module) and what in _SHARED:
            continue
        text = f"a pipeline takes {printable(what, 60)} from {printable(module, 60)}"
        severity = target_severity(f"{module}.{what}") or Severity.NOTE
        findings.append(case.found("scan.config.code", severity, text))
    return findings


# Modules of diffusers' pipelines that indexes name without the library.
_SHARED = frozenset(
    {"StableDiffusionSafetyChecker", "IFWatermarker", "IFSafetyChecker",
     "PaintByExampleImageEncoder", "StableUnCLIPImageNormalizer",
     "FlaxStableDiffusionSafetyChecker", "ClapTextModelWithProjection"}
)  # fmt: skip


def _modules(case: Case, entry: Entry) -> list[Finding]:
    """sentence-transformers imports each module, and what modules name, by dotted names.

    `modules.json` lists modules; Dense names its activation, Router (Asym) the types of its parts.
    """
    pairs = entry.pairs
    named: list[Any] = []
    if {"idx", "name", "path"} <= set(pairs):
        named.append(pairs.get("type"))
    if "in_features" in pairs or "out_features" in pairs:
        named.append(pairs.get("activation_function"))
    types = pairs.get("types")
    if isinstance(types, dict) and "structure" in pairs:
        named.extend(types.values())
    findings = []
    for kind in named:
        if isinstance(kind, str) and "." in kind and not _is_sentence_module(kind):
            text = f"a module is made by {printable(kind, 80)}"
            severity = target_severity(kind) or Severity.NOTE
            findings.append(case.found("scan.config.target", severity, text))
    return findings


def _is_sentence_module(kind: str) -> bool:
    own = kind.startswith(("sentence_transformers.", "torch.nn."))
    return own and target_severity(kind) is None


def _mlflow(case: Case, entry: Entry) -> list[Finding]:
    pairs = entry.pairs
    loader = pairs.get("loader_module")
    findings = []
    if isinstance(loader, str) and not _FLAVOURS.fullmatch(loader):
        text = f"MLflow imports {printable(loader, 80)} to load the model"
        severity = target_severity(f"{loader}.Load") or Severity.MEDIUM
        findings.append(case.found("scan.config.target", severity, text))
    if isinstance(loader, str) or "flavors" in pairs or "python_function" in entry.path:
        for key in ("code", "code_paths", "model_code_path", "code_dir_subpath"):
            value = pairs.get(key)
            if isinstance(value, str | list) and value:
                text = f"MLflow imports code beside the model ({key}): {printable(str(value), 80)}"
                findings.append(case.found("scan.config.code", Severity.MEDIUM, text))
    return findings


def _paths(case: Case, entry: Entry) -> list[Finding]:
    """Files that a loader opens beside the model: shards of weights, MLflow's artifacts."""
    named: list[str] = []
    weights = entry.pairs.get("weight_map")
    if isinstance(weights, dict):
        named.extend(sorted({each for each in weights.values() if isinstance(each, str)}))
    if "loader_module" in entry.pairs or entry.path.startswith("flavors"):
        values = (entry.pairs.get(key) for key in ("data", "model_path", "python_model", "path"))
        named.extend(each for each in values if isinstance(each, str))
    outside = [each for each in named if reaches_out(each)]
    if not outside:
        return []
    text = f"names a file outside the model's folder: {printable(outside[0], 100)!r}"
    return [case.found("scan.config.path", Severity.HIGH, text)]


def _environment(case: Case, entry: Entry) -> list[Finding]:
    """conda.yaml, python_env.yaml: what a server of models installs."""
    findings = []
    for key in _REQUIREMENTS:
        lines = entry.pairs.get(key)
        if not isinstance(lines, list):
            continue
        for line in lines:
            if isinstance(line, str):
                findings.extend(requirement_findings(case, line))
    return findings
