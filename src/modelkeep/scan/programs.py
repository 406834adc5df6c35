"""PaddlePaddle programs and Core ML models: operators and parts that bring foreign code."""

from __future__ import annotations

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.kernels import protobuf
from modelkeep.kernels.protobuf import LENGTH
from modelkeep.kernels.protokinds import inner_fields, text_of
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable

_PADDLE_ACTING = {
    "py_func": "calls Python", "py_layer": "calls Python", "run_program": "runs another program",
    "save": "writes files", "save_combine": "writes files", "load": "reads files",
    "load_combine": "reads files", "print": "", "listen_and_serv": "opens connections",
    "send": "opens connections", "recv": "opens connections",
}  # fmt: skip
# Model.customModel; NeuralNetworkLayer.custom and Model.linkedModel are further inside.
_CUSTOM_MODEL, _LINKED_MODEL = 555, 556
_CUSTOM_LAYER = 500
_NETWORKS = (303, 403, 500)


def paddle_findings(case: Case) -> tuple[Finding, ...]:
    """Judge a program of PaddlePaddle: blocks of operators."""
    findings = []
    try:
        for block in protobuf.fields(case.view):
            if block.number != 1 or block.wire != LENGTH:
                continue
            for each in inner_fields(case.view, block):
                if each.number != 4 or each.wire != LENGTH:
                    continue
                for part in inner_fields(case.view, each):
                    kind = text_of(case.view, part) if part.number == 3 else ""
                    why = _PADDLE_ACTING.get(kind, "")
                    if why:
                        text = f"operator {printable(kind, 40)!r} {why}"
                        findings.append(case.found("scan.paddle.operator", Severity.HIGH, text))
    except IntegrityError as error:
        text = f"does not parse as a program: {error.message}"
        findings.append(case.found("scan.paddle.broken", Severity.HIGH, text))
    return tuple(findings[: case.settings.findings_max])


def coreml_findings(case: Case) -> tuple[Finding, ...]:
    """Judge a Core ML model: custom models and layers need classes of an application."""
    findings = []
    try:
        for each in protobuf.fields(case.view):
            if each.wire == LENGTH and each.number in (_CUSTOM_MODEL, _LINKED_MODEL):
                text = "is a custom or linked model: it runs a class of whoever loads it"
                findings.append(case.found("scan.coreml.custom", Severity.MEDIUM, text))
            if each.wire == LENGTH and each.number in _NETWORKS:
                layers = [part for part in inner_fields(case.view, each) if part.number == 1]
                customs = sum(
                    inner.number == _CUSTOM_LAYER and inner.wire == LENGTH
                    for layer in layers
                    if layer.wire == LENGTH
                    for inner in inner_fields(case.view, layer)
                )
                if customs:
                    text = f"has {customs} custom layers: they run classes of whoever loads it"
                    findings.append(case.found("scan.coreml.custom", Severity.MEDIUM, text))
    except IntegrityError as error:
        text = f"does not parse as Core ML: {error.message}"
        findings.append(case.found("scan.coreml.broken", Severity.HIGH, text))
    return tuple(findings[: case.settings.findings_max])
