"""What comes with a model to prove it: signature, digests, bills of materials, a canary."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from modelkeep.adapters.file_streams import small_bytes
from modelkeep.core.artifact import Canary
from modelkeep.core.errors import UsageError
from modelkeep.core.limits import CONFIG_BYTES_MAX
from modelkeep.crypto.keytext import VERIFIER
from modelkeep.crypto.signers import Signers, signers_of
from modelkeep.flows.canary import parsed_canary
from modelkeep.flows.provenance import NO_CLAIMS, Bom, Claims
from modelkeep.flows.sanity import Declared, parsed_declared
from modelkeep.scan.admission_settings import AdmissionSettings
from modelkeep.scan.boms import BOM_BYTES_MAX, told_model, told_packages
from modelkeep.scan.provenance import EXPECTED_MAX, expected_of
from modelkeep.sdk.files import mapped
from modelkeep.seal.oms import BUNDLE_BYTES_MAX

BOMS_MAX = 20


@dataclass(frozen=True, slots=True)
class Papers:
    """What is handed over with a model, by name.

    Attributes:
        signature: an OMS bundle, or a detached signature of modelkeep over one file.
        signed_by: who may have made it: files of public keys or of root certificates (PEM), or
            `mkv1…`; the verifiers that the policy trusts may, too.
        expect: `[PATH=]sha256:…`, digests that files must have.
        boms: bills of materials, CycloneDX in JSON.
        schema: the form that it must have (inputs, outputs, tensors, how many parameters), or a
            JSON file that says so.
    """

    signature: str | Path | None = None
    signed_by: tuple[str | Path, ...] = ()
    expect: tuple[str, ...] = ()
    boms: tuple[str | Path, ...] = ()
    schema: Declared | str | Path | None = None

    def claims(self, path: Path, settings: AdmissionSettings) -> Claims:
        """Read them.

        Args:
            path: of the model.

        Raises:
            MissingError: `file.missing`.
            UsageError: `provenance.expect`, `provenance.signature`, `file.*`, `ec.key`, `key.*`.
            IntegrityError: `bom.form`.
        """
        if self == NO_PAPERS:
            return NO_CLAIMS
        if self.signed_by and self.signature is None:
            raise UsageError(
                "provenance.signature",
                "it is said who signed, and there is no signature",
                hint="name its file: --signature FILE",
            )
        if len(self.expect) > EXPECTED_MAX or len(self.boms) > BOMS_MAX:
            raise UsageError(
                "provenance.expect",
                f"more than {EXPECTED_MAX} digests, or {BOMS_MAX} bills of materials, are named",
            )
        signature = b""
        if self.signature is not None:
            signature = small_bytes(Path(self.signature), size_max=BUNDLE_BYTES_MAX)
        signers = Signers()
        for each in self.signed_by:
            signers += _signers(each)
        for named in settings.signers if signature else ():
            if named.startswith(VERIFIER.prefix):
                signers += _signers(named)
        return Claims(
            signature=signature,
            signature_path=_inside(path, self.signature),
            signers=signers,
            expected=tuple(map(expected_of, self.expect)),
            boms=tuple(_bom(Path(each)) for each in self.boms),
        )


NO_PAPERS = Papers()


def declared_of(given: Declared | str | Path | None) -> Declared | None:
    """The form that a model must have, or the one that a file says.

    Raises:
        KeepError: as `mapped` and `parsed_declared`.
    """
    if given is None or isinstance(given, Declared):
        return given
    with mapped(Path(given)) as raw:
        return parsed_declared(bytes(raw), what=str(given))


def canary_of(given: Canary | str | Path | None) -> Canary | None:
    """A call whose right answer is known, or the one in a file.

    Raises:
        KeepError: as `mapped` and `parsed_canary`.
    """
    if given is None or isinstance(given, Canary):
        return given
    with mapped(Path(given)) as raw:
        return parsed_canary(bytes(raw), what=str(given))


def _signers(given: str | Path) -> Signers:
    if isinstance(given, str) and given.lower().startswith(VERIFIER.prefix) and given.isalnum():
        return signers_of(given.encode(), what="a verifier")
    return signers_of(small_bytes(Path(given), size_max=CONFIG_BYTES_MAX), what=str(given))


def _bom(path: Path) -> Bom:
    raw = small_bytes(path, size_max=BOM_BYTES_MAX)
    digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    return Bom(digest, told_model(raw), told_packages(raw, place=path.name))


def _inside(folder: Path, file: str | Path | None) -> str:
    """The path of a signature that lies in the folder that it is about."""
    if file is None:
        return ""
    root, place = folder.resolve(), Path(file).resolve()
    return place.relative_to(root).as_posix() if root in place.parents else ""
