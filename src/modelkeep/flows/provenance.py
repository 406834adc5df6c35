"""Provenance at admission: signature, digests, bill of materials, card, requirements; one proof.

    signature -> who signed, and that these are the files
    expected digests, bill of materials -> that these are the files
    card (filled from the bill) -> licence, data, run, base
    requirements in the folder -> what is known of the packages that it wants

Each comes to findings in the verdict of the admission. What was proven goes to the ledger as
`model.provenance`, in the same write as `model.admitted`. A digest of a file is made once.

The steps of a signature, whose numbers stand at the code:

1. It is of a form that is known: an OMS bundle, or a detached signature of modelkeep over one file.
2. One of those who are named, or trusted by the policy, made it.
3. It is good, and its list is exactly these files; a link proves nothing.
4. Who made it is trusted, where the policy says who is.
5. What the signer left out is not proven: that is wanting where a signature is demanded.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from modelkeep.core.card import Card
from modelkeep.core.entry import Fact
from modelkeep.core.errors import IntegrityError, KeepError, RefusedError, UsageError
from modelkeep.core.verdict import Finding, Severity, Verdict
from modelkeep.crypto.file_signature import FIRST_LINE, parsed_signature
from modelkeep.crypto.file_signature import FileDigest as SignedDigest
from modelkeep.crypto.keytext import verifier_text
from modelkeep.crypto.signers import Signers, key_name
from modelkeep.flows.deposit import Also
from modelkeep.flows.keep import OpenKeep, record
from modelkeep.flows.oms import Subject, compared
from modelkeep.kernels.digest import Digester
from modelkeep.scan.admission_settings import AdmissionSettings
from modelkeep.scan.assessments import Assessment
from modelkeep.scan.boms import ToldModel, filled
from modelkeep.scan.environments import required_environment
from modelkeep.scan.evidence import listed, printable
from modelkeep.scan.packages import Package
from modelkeep.scan.provenance import (
    Expected,
    bom_findings,
    card_findings,
    contradictions,
    dependency_findings,
    digest_findings,
    needs_signature,
    said,
    signer_findings,
    wanting,
)
from modelkeep.scan.requirements import MANY, REQUIREMENTS_BYTES_MAX, UNREADABLE, required
from modelkeep.seal.oms import WHOLE, Statement, verified_bundle
from modelkeep.vault.streams import Plain

_BLOCK_BYTES = 1024 * 1024
_BLAKE3 = "blake3"
_UNSAID_MAX = 5
# What the public tool never signs, and no loader of a model reads.
_PLAIN_PATHS = frozenset({".gitattributes", ".gitignore"})
# Lists of requirements in one folder; MLflow writes three.
_LISTS_MAX = 20
_REQUIREMENTS = re.compile(r"(?:.*[._-])?(?:requirements|constraints)(?:[._-].*)?\.txt")
_ENVIRONMENTS = frozenset(
    {"conda.yaml", "conda.yml", "environment.yaml", "environment.yml", "python_env.yaml"}
)
# What may be asked of packages: those of a model, in one go.
Assess = Callable[[Sequence[Package]], Assessment]


@dataclass(frozen=True, slots=True)
class Bom:
    """A bill of materials that came with a model.

    Attributes:
        digest: of its bytes.
        told: what it says of the model; None where it is about none.
        packages: that it lists.
    """

    digest: str
    told: ToldModel | None
    packages: tuple[Package, ...] = ()


@dataclass(frozen=True, slots=True)
class Claims:
    """What came with a model to prove where it is from.

    Attributes:
        signature: an OMS bundle or a detached signature; empty for none.
        signature_path: of its file, where it lies in the folder that is admitted.
        signers: who may have made it.
        proven: who is proven already to have signed all of it, as a policy names them.
    """

    signature: bytes = b""
    signature_path: str = ""
    signers: Signers = field(default_factory=Signers)
    expected: tuple[Expected, ...] = ()
    boms: tuple[Bom, ...] = ()
    proven: str = ""


NO_CLAIMS = Claims()


@dataclass(frozen=True, slots=True)
class Asking:
    """The model that is asked about.

    Attributes:
        is_folder: whether it is one, of whatever many files.
        links: paths of links in it.
        card: with what bills of materials say of it (`card_with`).
    """

    name: str
    files: tuple[Plain, ...]
    is_folder: bool
    links: tuple[str, ...]
    card: Card
    base: str


@dataclass(frozen=True, slots=True)
class Proof:
    """What was proven of a model.

    Attributes:
        facts: for the ledger; empty where nothing was claimed, demanded or assessed.
    """

    findings: tuple[Finding, ...] = ()
    facts: Mapping[str, Fact] = field(default_factory=dict)


NO_PROOF = Proof()


@dataclass(frozen=True, slots=True)
class _Signed:
    """Who signed, or why nobody did."""

    signer: str = ""
    root: str = ""
    findings: tuple[Finding, ...] = ()


def card_with(card: Card, boms: Sequence[Bom]) -> Card:
    """A card with what bills of materials say and it does not."""
    for bom in boms:
        if bom.told is not None:
            card, _ = filled(card, bom.told.card)
    return card


def proof_of_origin(
    asking: Asking, claims: Claims, settings: AdmissionSettings, *, assess: Assess | None
) -> Proof:
    """Hold a model against what came with it, and that against the policy.

    Args:
        assess: says what is known of packages; None where there are no advisories.

    Raises:
        UsageError: `provenance.expect`, `provenance.signature`.
    """
    files = _Files(asking)
    signed = _signed(asking, claims, settings)
    findings = [*signed.findings]
    if not signed.findings or signed.signer:
        findings += signer_findings(asking.name, signed.signer, settings)
    if any(not each.path for each in claims.expected) and files.only is None:
        raise UsageError(
            "provenance.expect",
            f"{asking.name} has several files: whose digest is it?",
            hint="name the file: --expect model.safetensors=sha256:…",
        )
    findings += digest_findings(claims.expected, files.digest)
    base = asking.base
    for bom in claims.boms:
        if bom.told is not None:
            findings += bom_findings(bom.told, files.paths, files.digest, settings)
            apart = filled(asking.card, bom.told.card)[1]
            findings += contradictions(asking.name, apart, settings)
            base = base or bom.told.base
    findings += card_findings(asking.name, asking.card, settings, base=base)
    found = None
    if assess is not None:
        packages = (*_wanted(asking), *(each for bom in claims.boms for each in bom.packages))
        found = assess(packages) if packages else None
        findings += dependency_findings(found, settings) if found is not None else ()
    return Proof(tuple(findings), _facts(claims, signed, found))


def entries_of(proof: Proof, model: str) -> tuple[Also, ...]:
    """The entry that says what was proven of a version, if anything was."""
    if not proof.facts:
        return ()
    facts = {**proof.facts, "model": model}
    return (lambda version: ("model.provenance", {**facts, "version": version}),)


def record_all(keep: OpenKeep, entries: Sequence[Also], *, version: int) -> None:
    """Record what was proven of a version that was there already."""
    for each in entries:
        record(keep, *each(version))


def unsaid(proof: Proof, verdict: Verdict) -> list[str]:
    """What is wanting besides the gravest finding: a scan does not show it."""
    return [
        f"also: {each.evidence} ({each.rule})"
        for each in proof.findings
        if each.severity is not Severity.NOTE and each is not verdict.findings[0]
    ][:_UNSAID_MAX]


def _facts(claims: Claims, signed: _Signed, found: Assessment | None) -> dict[str, Fact]:
    facts: dict[str, Fact] = {
        "signer": signed.signer,
        "signature": _sha256(claims.signature) if claims.signature else "",
        "root": signed.root,
        "expected": tuple(str(each) for each in claims.expected),
        "boms": tuple(bom.digest for bom in claims.boms),
        "packages": 0 if found is None else len(found.packages),
        "advisories": "" if found is None else f"{found.advisories} of {found.newest or 'no date'}",
    }
    # Who exported a model that is imported is in the ledger as `model.imported`.
    is_new = claims.signature or any(value for name, value in facts.items() if name != "signer")
    return facts if is_new else {}


def _sha256(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


# ---- files -------------------------------------------------------------------------------------


class _Files:
    """The files of a model and their digests, each made once."""

    def __init__(self, asking: Asking) -> None:
        self._files = {each.path: each for each in asking.files}
        self._known: dict[tuple[str, str], str] = {}
        self.paths = tuple(self._files)
        self.only = None if len(asking.files) != 1 else asking.files[0]

    def digest(self, path: str, algorithm: str) -> str:
        """Of a file, such as `sha256:…`; empty where it is not there."""
        file = self._files.get(path) if path else self.only
        if file is None:
            return ""
        key = (file.path, algorithm)
        if key not in self._known:
            self._known[key] = _digest(file, algorithm)
        return self._known[key]


def _digest(file: Plain, algorithm: str) -> str:
    if algorithm == _BLAKE3:
        own = Digester()
        for block in _blocks(file):
            own.update(block)
        return str(own.digest())
    other = hashlib.new(algorithm)
    for block in _blocks(file):
        other.update(block)
    return f"{algorithm}:{other.hexdigest()}"


def _blocks(file: Plain) -> Iterator[memoryview]:
    """The bytes that were judged, in order."""
    for start in range(0, file.size_bytes, _BLOCK_BYTES):
        yield file.raw[start : start + _BLOCK_BYTES]
    file.forget()


# ---- signatures --------------------------------------------------------------------------------


def _signed(asking: Asking, claims: Claims, settings: AdmissionSettings) -> _Signed:
    """Verify a signature; the numbers are those of the module."""
    if not claims.signature:
        return _Signed(signer=claims.proven)
    try:
        if claims.signature.startswith(FIRST_LINE.encode()):  # 1
            return _Signed(signer=_detached(asking, claims))
        statement, signer = _statement(claims)
        left = _unsigned(asking, statement, own=claims.signature_path)
    except RefusedError as error:  # 2
        return _Signed(
            findings=(wanting("provenance.signer.other", settings, asking.name, error.message),)
        )
    except IntegrityError as error:  # 3
        text = f"its signature is not good: {error.message}"
        bad = said("provenance.signature.bad", Severity.HIGH, asking.name, text)
        return _Signed(findings=(bad,))
    return _Signed(signer, statement.root, tuple(_left(asking, left, settings)))


def _left(asking: Asking, left: Sequence[str], settings: AdmissionSettings) -> Iterator[Finding]:
    """What is admitted and not signed."""  # 5
    text = f"the signature does not prove {listed(left)}"
    if set(left) - _PLAIN_PATHS and needs_signature(asking.name, settings):
        yield wanting("provenance.signature.partial", settings, asking.name, text)
    elif left:
        yield said("provenance.signature.partial", Severity.NOTE, asking.name, text)


def _statement(claims: Claims) -> tuple[Statement, str]:
    """What was signed, and by which of those who may have.

    Raises:
        RefusedError: what the last of them was refused with, if nobody fits.
        IntegrityError: where it is theirs and not good.
    """
    errors: list[KeepError] = []
    for key in claims.signers.keys:
        try:
            return verified_bundle(claims.signature, public=key), key_name(key)
        except (RefusedError, IntegrityError) as error:
            errors.append(error)
    for root in claims.signers.roots:
        try:
            return verified_bundle(claims.signature, of_chain=root.key_of), root.name
        except (RefusedError, IntegrityError) as error:
            errors.append(error)
    if not errors:
        raise UsageError(
            "provenance.signature",
            "nobody says whose key the signature is to be checked with",
            hint="name the signer's public key or root certificate: --signed-by FILE",
        )
    raise next((each for each in errors if isinstance(each, IntegrityError)), errors[-1])


def _unsigned(asking: Asking, statement: Statement, *, own: str) -> list[str]:
    """What is there and not signed, once the rest is proven to be as it was signed.

    Args:
        own: path of the signature itself, where it lies in the folder.

    Raises:
        IntegrityError: `oms.files` or `oms.digest`.
    """
    names = {each.path if asking.is_folder else WHOLE: each for each in asking.files}

    def blocks(paths: Sequence[str]) -> Iterator[tuple[str, memoryview]]:
        for path in paths:
            for block in _blocks(names[path]):
                yield path, block

    subject = Subject(
        name=asking.name,
        sizes={path: each.size_bytes for path, each in names.items()},
        blocks=blocks,
        others=asking.links,
    )
    try:
        passed = compared(subject, statement, ignored=[own] if own else []).ignored
    except UsageError as error:
        raise IntegrityError("oms.files", error.message) from error
    return [path for path in passed if path != own]


def _detached(asking: Asking, claims: Claims) -> str:
    """Who signed the one file.

    Raises:
        UsageError: `provenance.signature`.
        RefusedError: `provenance.signer`.
        IntegrityError: `signature.form` or `signature.bad`.
    """
    if asking.is_folder or len(asking.files) != 1:
        raise UsageError(
            "provenance.signature",
            "a signature of one file proves no folder",
            hint="sign the folder in the form of OMS: `modelkeep oms sign ./FOLDER -o FILE`",
        )
    found = parsed_signature(claims.signature)
    digest = SignedDigest()
    for block in _blocks(asking.files[0]):
        digest.update(block)
    found.verify(digest)
    signer = verifier_text(found.verifier)
    if found.verifier not in claims.signers.verifiers:
        raise RefusedError("provenance.signer", f"it is signed by {signer}, who is not named")
    return signer


# ---- requirements ------------------------------------------------------------------------------


def _wanted(asking: Asking) -> tuple[Package, ...]:
    """The packages that a folder wants to have installed, each version once."""
    files = {each.path: each for each in asking.files}

    def opened(path: str) -> bytes | None:
        file = files.get(path)
        if file is None or file.size_bytes > REQUIREMENTS_BYTES_MAX:
            return None
        return b"".join(map(bytes, _blocks(file)))

    found: dict[tuple[str, str, str], Package] = {}
    lists = [path for path in sorted(files) if is_list(path)]
    for path in lists[:_LISTS_MAX]:
        for each in wanted_by(path, opened):
            found.setdefault((each.name, each.version, each.why_not), each)
    more = [Package(name="…", place=each, why_not=MANY) for each in lists[_LISTS_MAX:][:1]]
    return (*found.values(), *more)


def is_list(path: str) -> bool:
    """Whether a file's name says that it lists packages."""
    name = posixpath.basename(path).lower()
    return name in _ENVIRONMENTS or _REQUIREMENTS.fullmatch(name) is not None


def wanted_by(path: str, opened: Callable[[str], bytes | None]) -> tuple[Package, ...]:
    """The packages of one file whose name says that it lists some."""
    raw = opened(path)
    if raw is None:
        return (Package(name=printable(path), place=path, why_not=UNREADABLE),)
    if posixpath.basename(path).lower() in _ENVIRONMENTS:
        return required_environment(raw, place=path, opened=opened)
    return required(raw, place=path, opened=opened)
