"""Where a model is from, as findings: what was proven against what the policy demands.

Nothing is read here: flows hash files and verify signatures, this says what that comes to. What is
proven wrong (a signature, a digest) is denied always; what is wanting is held or denied, as the
policy says; without a policy nothing is wanting.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from modelkeep.core.card import Card
from modelkeep.core.errors import UsageError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.admission_settings import BASE, DENY, HOLD, AdmissionSettings
from modelkeep.scan.assessments import Assessed, Assessment, Standing
from modelkeep.scan.boms import ToldModel
from modelkeep.scan.evidence import SUBJECT_CHARS_MAX, TEXT_CHARS_MAX, listed, printable
from modelkeep.scan.licences import is_permitted, normal_licence

EXPECTED_MAX = 10_000
_SUPPLY = "AML.T0010"
_SOFTWARE = "AML.T0010.001"
_LENGTHS = {
    "sha256": 64, "sha384": 96, "sha512": 128, "sha3_256": 64, "sha3_512": 128,
    "blake2b": 128, "blake3": 64,
}  # fmt: skip
_EXPECTED = re.compile(r"(?:(?P<path>.+)=)?(?P<name>[a-z0-9_]+):(?P<hex>[0-9a-fA-F]+)", re.DOTALL)
_REFERENCES = {
    "provenance.signature.bad": f"CWE-347, {_SUPPLY}",
    "provenance.signature.missing": f"CWE-345, {_SUPPLY}",
    "provenance.signature.partial": f"CWE-345, {_SUPPLY}",
    "provenance.signer": f"CWE-346, {_SUPPLY}",
    "provenance.digest": f"CWE-354, {_SUPPLY}",
    "provenance.bom.digest": f"CWE-354, {_SUPPLY}",
    "provenance.bom.": f"CWE-345, {_SUPPLY}",
    "provenance.": "CWE-1059",
    "dependencies.": f"CWE-1395, {_SOFTWARE}",
}


@dataclass(frozen=True, slots=True)
class Expected:
    """A digest that a file must have; an empty path is that of the only file."""

    path: str
    algorithm: str
    value: str

    def __str__(self) -> str:
        return f"{self.path}={self.algorithm}:{self.value}" if self.path else self.digest

    @property
    def digest(self) -> str:
        """As digests are written."""
        return f"{self.algorithm}:{self.value}"


def expected_of(text: str) -> Expected:
    """Read `[PATH=]sha256:…`.

    Raises:
        UsageError: `provenance.expect`.
    """
    found = _EXPECTED.fullmatch(text)
    if found is None or len(found["hex"]) != _LENGTHS.get(found["name"]):
        raise UsageError(
            "provenance.expect",
            f"{text[:200]!r} is no digest",
            hint=f"write [PATH=]ALGORITHM:HEX, with {', '.join(_LENGTHS)}",
        )
    return Expected(found["path"] or "", found["name"], found["hex"].lower())


def wanting(rule: str, settings: AdmissionSettings, subject: str, evidence: str) -> Finding:
    """A finding about what the policy demands and nobody brought."""
    severity = Severity.HIGH if settings.decision == DENY else Severity.MEDIUM
    return said(rule, severity, subject, evidence)


def said(rule: str, severity: Severity, subject: str, evidence: str) -> Finding:
    """A finding whose texts are printable and short."""
    reference = next(text for prefix, text in _REFERENCES.items() if rule.startswith(prefix))
    return Finding(
        rule=rule,
        severity=severity,
        subject=printable(subject, SUBJECT_CHARS_MAX),
        evidence=printable(evidence, 2 * TEXT_CHARS_MAX),
        reference=reference,
    )


def needs_signature(name: str, settings: AdmissionSettings) -> bool:
    """Whether models of this name must be signed."""
    return any(fnmatchcase(name, each) for each in settings.signature_required)


def signer_findings(name: str, signer: str, settings: AdmissionSettings) -> list[Finding]:
    """Judge who signed; nobody did where the name is empty."""
    if not signer:
        if not needs_signature(name, settings):
            return []
        text = "no signature came with it, and models of this name need one"
        return [wanting("provenance.signature.missing", settings, name, text)]
    if settings.signers and signer not in settings.signers:
        text = f"it is signed by {signer}, who is not one of the trusted signers"
        return [wanting("provenance.signer.untrusted", settings, name, text)]
    return []


def digest_findings(
    expected: Sequence[Expected], digests: Callable[[str, str], str]
) -> list[Finding]:
    """Judge files by the digests that they must have.

    Args:
        digests: of a file by an algorithm; empty where there is no such file.
    """
    findings = []
    for each in expected:
        got = digests(each.path, each.algorithm)
        if got != each.digest:
            text = f"it is {got}, and not {each.digest}" if got else "there is no such file"
            findings.append(said("provenance.digest", Severity.HIGH, each.path or "it", text))
    return findings


def card_findings(
    name: str, card: Card, settings: AdmissionSettings, *, base: str
) -> list[Finding]:
    """Judge what is said of a model."""
    missing = [
        each
        for each in settings.card_required
        if not (base if each == BASE else getattr(card, each))
    ]
    findings = []
    if missing:
        text = f"nothing is said of its {', '.join(missing)}"
        findings.append(wanting("provenance.card", settings, name, text))
    if settings.licences:
        findings += _licence_findings(name, card.licence, settings)
    return findings


def _licence_findings(name: str, licence: str, settings: AdmissionSettings) -> list[Finding]:
    normal = normal_licence(licence)
    if not licence:
        text = "it has no licence"
    elif not normal:
        text = f"its licence {printable(licence, 80)!r} is no SPDX expression"
    elif not is_permitted(normal, settings.licences):
        text = f"its licence {normal} is not allowed"
    else:
        return []
    return [wanting("provenance.licence", settings, name, text)]


def bom_findings(
    told: ToldModel,
    paths: Collection[str],
    digests: Callable[[str, str], str],
    settings: AdmissionSettings,
) -> list[Finding]:
    """Judge files by what a bill of materials says of them."""
    findings = []
    for path, own in told.files.items():
        for digest in own:
            got = digests(path, digest.partition(":")[0])
            if not got:
                text = "the bill of materials names it, and it is not there"
                findings.append(wanting("provenance.bom.file", settings, path or "it", text))
                break
            if got != digest:
                text = f"it is {got}, and not {digest} as the bill of materials says"
                findings.append(said("provenance.bom.digest", Severity.HIGH, path or "it", text))
                break
    if not told.files:
        text = "the bill of materials has no digest that binds it to these files"
        findings.append(said("provenance.bom.unbound", Severity.NOTE, "it", text))
    elif "" not in told.files and (unlisted := sorted(set(paths) - set(told.files))):
        text = f"the bill of materials does not prove {listed(unlisted)}"
        findings.append(said("provenance.bom.unlisted", Severity.NOTE, unlisted[0], text))
    return findings


def contradictions(name: str, fields: Sequence[str], settings: AdmissionSettings) -> list[Finding]:
    """Judge a card and a bill of materials that do not say the same."""
    if not fields:
        return []
    text = f"its card and its bill of materials differ in {', '.join(fields)}"
    return [wanting("provenance.bom.contradiction", settings, name, text)]


def dependency_findings(found: Assessment, settings: AdmissionSettings) -> list[Finding]:
    """Judge what a model wants to have installed."""
    findings = [
        said("dependencies.vulnerable", Severity.MEDIUM, each.place, _flawed(each))
        for each in found.packages
        if each.standing is Standing.VULNERABLE and not each.is_passed
    ]
    lived_with = [
        each.name
        for each in found.packages
        if each.standing is not Standing.CLEAN and each.is_passed
    ]
    if lived_with:
        text = f"the policy tolerates what is known of {listed(lived_with)}"
        findings.append(said("dependencies.tolerated", Severity.NOTE, "requirements", text))
    unknown: Mapping[str, Assessed] = {
        each.name: each
        for each in found.packages
        if each.standing is Standing.NOT_ASSESSED and not each.is_passed
    }
    if unknown:
        first = next(iter(unknown.values()))
        severity = Severity.MEDIUM if settings.unassessed == HOLD else Severity.NOTE
        text = f"nobody can say whether {listed(unknown)} is safe: {first.why}"
        findings.append(said("dependencies.unassessed", severity, first.place, text))
    return findings


def _flawed(package: Assessed) -> str:
    flaws = [flaw for flaw in package.flaws if not flaw.tolerated]
    names = [name for flaw in flaws for name in (*flaw.ids[:1], *_numbers(flaw.aliases))]
    fixed = flaws[0].fixed[:1]
    remedy = f"; fixed in {fixed[0]}" if fixed else ""
    return f"{package.name} {package.version} has {listed(names)}{remedy}"


def _numbers(aliases: Sequence[str]) -> list[str]:
    return [each for each in aliases if each.startswith("CVE-")][:1]
