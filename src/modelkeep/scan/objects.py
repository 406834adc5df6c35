"""Objects that a document asks its loader to make.

Hydra, peft, jsonpickle and zarr read a name out of the document, import it and call it; LangChain,
skops and what is rendered are in files of their own.
"""

from __future__ import annotations

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable
from modelkeep.scan.langchains import chain_findings
from modelkeep.scan.names import reaches_out
from modelkeep.scan.prompts import prompt_findings
from modelkeep.scan.skops import skops_findings
from modelkeep.scan.targets import fetches, target_severity
from modelkeep.scan.walks import Entry

# jsonpickle: what calls or imports, and what only names a class.
_PICKLED_CALLS = frozenset({"py/reduce", "py/function", "py/repr", "py/newargs", "py/newargsex",
                            "py/initargs", "py/newobj", "py/mod"})  # fmt: skip
_PICKLED_NAMES = frozenset({"py/object", "py/type", "py/class", "py/ref"})


def object_findings(case: Case, entry: Entry) -> list[Finding]:
    """Judge one object of a document by what it would make."""
    findings: list[Finding] = []
    pairs = entry.pairs
    findings.extend(_hydra(case, entry))
    findings.extend(_diffusion(case, entry))
    findings.extend(_adapter(case, entry))
    findings.extend(chain_findings(case, entry))
    if any(str(key).startswith("py/") for key in pairs):
        findings.extend(_jsonpickle(case, entry))
    findings.extend(skops_findings(case, entry))
    if pairs.get("id") == "pickle" and ("filters" in entry.path or "compressor" in entry.path):
        text = f"{printable(entry.path, 60)}: chunks of the array are pickles"
        findings.append(case.found("scan.config.target", Severity.MEDIUM, text))
    findings.extend(prompt_findings(case, entry))
    return findings


def _hydra(case: Case, entry: Entry) -> list[Finding]:
    findings = []
    finds = str(entry.pairs.get("_target_", "")).startswith("hydra.utils.")
    for key in ("_target_", "_target", "__target__", "_path_", "cls_path", "class_path", "path"):
        value = entry.pairs.get(key)
        if not isinstance(value, str) or (key == "path" and not finds):
            continue
        severity = target_severity(value)
        texts = (each for each in entry.pairs.values() if isinstance(each, str))
        if severity is None and fetches(value) and any(reaches_out(each) for each in texts):
            severity = Severity.MEDIUM  # its weights come from a file or an address elsewhere
        where = printable(entry.path or "(top)", 60)
        text = f"{where}: `{key}` makes {printable(value, 100)}"
        findings.append(case.found("scan.config.target", severity or Severity.NOTE, text))
    return findings


def _diffusion(case: Case, entry: Entry) -> list[Finding]:
    """`target` and `params`, as latent diffusion and what came of it build models."""
    target = entry.pairs.get("target")
    if not isinstance(target, str) or "." not in target or "inputs" in entry.pairs:
        return []
    severity = target_severity(target)
    if "params" not in entry.pairs and severity is not Severity.HIGH:
        return []
    text = f"{printable(entry.path or '(top)', 60)}: `target` makes {printable(target, 100)}"
    return [case.found("scan.config.target", severity or Severity.NOTE, text)]


def _adapter(case: Case, entry: Entry) -> list[Finding]:
    """What an adapter was made for: peft imports it (peft/auto.py, `from_pretrained`)."""
    mapping = entry.pairs.get("auto_mapping")
    if not isinstance(mapping, dict) or not mapping.get("parent_library"):
        return []
    dotted = f"{mapping['parent_library']}.{mapping.get('base_model_class')}"
    severity = target_severity(dotted) or Severity.NOTE
    text = f"`auto_mapping` imports {printable(dotted, 100)}"
    return [case.found("scan.config.target", severity, text)]


def _jsonpickle(case: Case, entry: Entry) -> list[Finding]:
    findings = []
    for key, value in entry.pairs.items():
        if key in _PICKLED_CALLS:
            severity: Severity | None = Severity.HIGH
        elif key in _PICKLED_NAMES and isinstance(value, str):
            severity = target_severity(value)
        else:
            continue
        if severity is not None:
            text = f"jsonpickle makes {printable(f'{key} {value}', 100)}"
            findings.append(case.found("scan.config.target", severity, text))
    return findings
