"""LangChain: what its documents import, ask for and read.

`lc` objects name a class by its path, or a secret that the loader takes from its environment
(CVE-2025-68664); older chains and prompts say by `_type` what they are. A secret belongs where a
model's key is set; anywhere else it would be shown, or sent to whoever answers.
"""

from __future__ import annotations

import re

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable
from modelkeep.scan.targets import target_severity
from modelkeep.scan.walks import Entry

# Kinds of chains and tools that run what they are given.
_ACTING_CHAINS = re.compile(
    r"(?i)(?:llm_)?(?:bash|pal|math|python_repl|terminal|shell|symbolic_math)(?:_chain)?$|repl"
)
# Arguments of a model that hold a secret, and what such secrets are called.
_SLOT = re.compile(
    r"(?i)(?:.*_)?(?:api_?key|apikey|key|key_id|token|secret|password|passwd|credentials?)"
)
_SECRET = re.compile(
    r"(?i)(?:.*_)?(?:API_?KEY|TOKEN|ACCESS_KEY(?:_ID)?|KEY|PASSWORD|CLIENT_SECRET)"
)
_CLOUD = re.compile(r"(?i)aws|database|db_|postgres|mysql|github|ssh|root|sudo|vault|stripe")


def chain_findings(case: Case, entry: Entry) -> list[Finding]:
    """Judge one object of a document, if it is one of LangChain's."""
    pairs = entry.pairs
    findings: list[Finding] = []
    if pairs.get("lc") in (1, 2, "1") and isinstance(pairs.get("id"), list):
        findings.extend(_langchain(case, entry))
    if isinstance(pairs.get("_type"), str):
        findings.extend(_chain(case, entry))
    return findings


def _langchain(case: Case, entry: Entry) -> list[Finding]:
    pairs = entry.pairs
    dotted = ".".join(str(part) for part in pairs["id"])
    if pairs.get("type") == "secret":
        text = f"asks for the secret {printable(dotted, 60)}, which the loader may take from its"
        severity = _secret_severity(entry.path, dotted)
        return [case.found("scan.config.secret", severity, text + " environment (CVE-2025-68664)")]
    if pairs.get("type") == "not_implemented":
        return []
    severity_or_none = target_severity(dotted)
    if severity_or_none is None:
        return []
    text = f"{printable(entry.path or '(top)', 60)}: LangChain makes {printable(dotted, 100)}"
    return [case.found("scan.config.target", severity_or_none, text)]


def _secret_severity(path: str, name: str) -> Severity:
    """How bad it is that this secret is put there."""
    slot = path.rpartition(".")[2].partition("[")[0]
    is_usual = _SECRET.fullmatch(name) is not None and not _CLOUD.search(name)
    if not slot:  # the document is nothing but a secret
        return Severity.NOTE if is_usual else Severity.MEDIUM
    is_own = name.upper().endswith(slot.upper())
    if not is_own and not _SLOT.fullmatch(slot):
        return Severity.HIGH
    return Severity.NOTE if is_own or is_usual or _kin(slot, name) else Severity.MEDIUM


def _kin(slot: str, name: str) -> bool:
    """`aws_secret_access_key` is where AWS_SECRET_ACCESS_KEY belongs."""
    first = re.match(r"[A-Za-z0-9]+", slot)
    return first is not None and name.lower().startswith(first[0].lower())


def _chain(case: Case, entry: Entry) -> list[Finding]:
    kind = entry.pairs["_type"]
    findings = []
    if _ACTING_CHAINS.search(kind):
        text = f"a chain of type {printable(kind, 40)!r} runs what a model answers"
        findings.append(case.found("scan.config.target", Severity.HIGH, text))
    for key in ("template_path", "examples", "llm_path", "prompt_path"):
        value = entry.pairs.get(key)
        if isinstance(value, str) and (
            value.startswith(("/", "~")) or ".." in value or ":" in value
        ):
            text = f"`{key}` reads {printable(value, 80)!r}"
            findings.append(case.found("scan.config.path", Severity.HIGH, text))
    if entry.pairs.get("template_format") == "jinja2":
        text = "is a prompt that is rendered by Jinja (CVE-2023-36281)"
        findings.append(case.found("scan.config.template", Severity.NOTE, text))
    return findings
