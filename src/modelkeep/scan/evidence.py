"""How a finding of the scanner is worded: what may be printed, and which weakness it names."""

from __future__ import annotations

from collections.abc import Iterable

from modelkeep.core.verdict import DECISION_BY_SEVERITY, Decision, Finding, Severity

# Long enough for a dotted name or a path, short enough for one line of a table.
TEXT_CHARS_MAX = 160
SUBJECT_CHARS_MAX = 300

# Rule, or the beginning of its name: the reference that fits best. Longest first.
_REFERENCES: tuple[tuple[str, str], ...] = (
    ("scan.archive.traversal", "CWE-22"),
    ("scan.archive.link", "CWE-59"),
    ("scan.archive.bomb", "CWE-409"),
    ("scan.archive.duplicate", "CWE-694"),
    ("scan.archive.", "CWE-436"),
    ("scan.array.object", "CWE-502, AML.T0011.000"),
    ("scan.array.", "CWE-20, AML.T0010"),
    ("scan.arrow.", "CWE-502, CVE-2023-47248, AML.T0011.000"),
    ("scan.config.code", "CWE-829, AML.T0011.000"),
    ("scan.config.duplicate", "CWE-694"),
    ("scan.config.path", "CWE-22, CVE-2023-36281"),
    ("scan.config.requirement", "CWE-78, CWE-829, AML.T0010"),
    ("scan.config.prompt", "CWE-1336, CVE-2025-65106"),
    ("scan.config.secret", "CWE-526, CVE-2025-68664"),
    ("scan.config.expression", "CWE-95, AML.T0011.000"),
    ("scan.config.notebook", "CWE-829, AML.T0011"),
    ("scan.config.target", "CWE-470, AML.T0011.000"),
    ("scan.config.depth", "CWE-674"),
    ("scan.config.", "CWE-20, AML.T0010"),
    ("scan.coreml.", "CWE-829, AML.T0011"),
    ("scan.format.executable", "CWE-829, AML.T0011"),
    ("scan.format.polyglot", "CWE-436, AML.T0011.000"),
    ("scan.format.mismatch", "CWE-436"),
    ("scan.format.link", "CWE-59"),
    ("scan.format.", "AML.T0010"),
    ("scan.gguf.path", "CWE-22"),
    ("scan.gguf.", "CWE-125, CWE-190, AML.T0010"),
    ("scan.graph.file", "CWE-22, CWE-73, AML.T0010"),
    ("scan.graph.external", "CWE-22, AML.T0010"),
    ("scan.graph.bomb", "CWE-789, CWE-400"),
    ("scan.graph.domain", "CWE-829, AML.T0011"),
    ("scan.graph.operator", "CWE-94, AML.T0011.000"),
    ("scan.graph.function", "CWE-674, AML.T0010"),
    ("scan.graph.", "CWE-20, AML.T0010"),
    ("scan.hdf5.bomb", "CWE-789, CWE-409"),
    ("scan.hdf5.external", "CWE-73, AML.T0010"),
    ("scan.hdf5.pickles", "CWE-502, AML.T0011.000"),
    ("scan.hdf5.filter", "CWE-829, AML.T0011"),
    ("scan.hdf5.", "CWE-20, AML.T0010"),
    ("scan.keras.lambda", "CWE-502, CVE-2024-3660, CVE-2025-9905, AML.T0011.000"),
    ("scan.keras.foreign", "CWE-502, AML.T0011.000"),
    ("scan.keras.function", "CWE-94, CVE-2025-8747, CVE-2025-9906, AML.T0011.000"),
    ("scan.keras.module", "CWE-94, CVE-2025-1550, AML.T0011.000"),
    ("scan.keras.file", "CWE-73, CWE-918, CVE-2025-12058"),
    ("scan.keras.", "CWE-20, AML.T0010"),
    ("scan.matlab.", "CWE-94, AML.T0011"),
    ("scan.openvino.", "CWE-125, CWE-190, AML.T0010"),
    ("scan.packed.depth", "CWE-674"),
    ("scan.packed.limit", "CWE-400"),
    ("scan.packed.", "CWE-20, AML.T0010"),
    ("scan.paddle.operator", "CWE-94, AML.T0011.000"),
    ("scan.pickle.memo", "CWE-789"),
    ("scan.pickle.limit", "CWE-400"),
    ("scan.pickle.", "CWE-502, AML.T0011.000"),
    ("scan.shard.", "CWE-502, CWE-436, AML.T0011.000"),
    ("scan.template.bomb", "CWE-400"),
    ("scan.template.depth", "CWE-674"),
    ("scan.template.broken", "CWE-20, AML.T0010"),
    ("scan.template.", "CWE-1336, CVE-2024-34359, AML.T0011.000"),
    ("scan.tensorflow.bomb", "CWE-789, CWE-400"),
    ("scan.tensorflow.limit", "CWE-400"),
    ("scan.tensorflow.path", "CWE-22, AML.T0011.000"),
    ("scan.tensorflow.address", "CWE-918, AML.T0011.000"),
    ("scan.tensorflow.broken", "CWE-20, AML.T0010"),
    ("scan.tensorflow.", "CWE-94, AML.T0011.000"),
    ("scan.tensors.", "CWE-20, AML.T0010"),
    ("scan.tflite.broken", "CWE-125, CWE-787, AML.T0010"),
    ("scan.tflite.", "CWE-829, AML.T0011.000"),
    ("scan.torchscript.bomb", "CWE-789"),
    ("scan.torchscript.broken", "CWE-20, AML.T0010"),
    ("scan.torchscript.expression", "CWE-95, AML.T0011.000"),
    ("scan.torchscript.", "CWE-94, AML.T0011.000"),
    ("scan.xml.", "CWE-611"),
    ("scan.yaml.tag", "CWE-502, AML.T0011.000"),
    ("scan.yaml.bomb", "CWE-776"),
    ("scan.yaml.", "CWE-20, AML.T0010"),
)


def found(rule: str, severity: Severity, subject: str, evidence: str) -> Finding:
    """Make a finding whose texts are printable and short."""
    reference = next((text for prefix, text in _REFERENCES if rule.startswith(prefix)), "")
    return Finding(
        rule=rule,
        severity=severity,
        subject=printable(subject, SUBJECT_CHARS_MAX),
        evidence=printable(evidence, 2 * TEXT_CHARS_MAX),
        reference=reference,
    )


def gravest(findings: Iterable[Finding], limit: int) -> list[Finding]:
    """So many of the findings, none left out that is graver than one that stays."""
    order = list(Decision)
    return sorted(
        findings, key=lambda each: order.index(DECISION_BY_SEVERITY[each.severity]), reverse=True
    )[:limit]


def printable(text: str, chars_max: int = TEXT_CHARS_MAX) -> str:
    """The text without what a terminal would obey: escapes for all that does not print, cut."""
    said = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:chars_max])
    return said if len(text) <= chars_max >= len(said) else said[: chars_max - 1] + "…"


def listed(names: Iterable[str], limit: int = 5) -> str:
    """A few names and how many more there are."""
    every = list(names)
    more = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(printable(name, 60) for name in every[:limit]) + more
