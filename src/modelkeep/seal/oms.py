"""Signatures in the form of the OpenSSF Model Signing specification (OMS), v1.0.

A file of JSON, a Sigstore bundle: what verifies it (the hint of a public key, or a chain of
certificates) and a DSSE envelope. In the envelope: an in-toto statement, whose predicate lists
every file (or shard of a file) with its digest, and whose subject is the SHA-256 over those
digests in their order. One signature is over the exact bytes of the statement:

    ECDSA over "DSSEv1 " || len(type) || " " || type || " " || len(statement) || " " || statement

A statement counts when all of this holds; the numbers stand at the code:

1. The bundle is of the one media type, within bounds, with exactly one signature.
2. The signer is the one who is asked for: the key, or a chain to one of the roots.
3. The signature verifies over the exact bytes, before anything in them is read.
4. Those are an in-toto statement of OMS v1.0 with one subject, and the root digest is right.
5. No name is listed twice, none leads out of the folder, each has the one algorithm.
6. Files and list are the same: nothing is missing, nothing is unlisted but what the signer or the
   verifier chose to ignore. A list by shards cannot name empty files: they count as ignored.

Not taken: signatures by Sigstore itself (keyless), which need its transparency log, and those of
the tool before 1.0, whose encoding was faulty.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar

from modelkeep.core.errors import IntegrityError, RefusedError, UsageError
from modelkeep.core.record import Record, from_json, to_json
from modelkeep.crypto.ec_signatures import EcPublic, EcSigner

SHA256, BLAKE2B, BLAKE3 = "sha256", "blake2b", "blake3"
# A model that is one file has this path.
WHOLE = "."
# What the public tool never looks at, unless it is told to; it is part of the statement.
GIT_PATHS = (".git", ".gitattributes", ".github", ".gitignore")
# 100,000 files with names of 100 characters.
BUNDLE_BYTES_MAX = 64 * 1024 * 1024
RESOURCES_MAX = 100_000
PATH_CHARS_MAX = 4096  # PATH_MAX of Linux
IGNORED_MAX = 1000
_SHARD_BYTES_MAX = 1 << 53  # numbers of a statement pass through doubles

_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_DIGEST_CHARS = {SHA256: 64, BLAKE2B: 128, BLAKE3: 64}
_FILES, _SHARDS = "files", "shards"

R = TypeVar("R", bound=Record)


# ---- what is signed ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listed:
    """A file, or a piece of one, and its digest in hex; the end of a whole file is -1."""

    path: str
    digest: str
    start: int = 0
    end: int = -1


@dataclass(frozen=True, slots=True)
class Statement:
    """What a signer said of a model; made by `verified_bundle` and nowhere else.

    Attributes:
        name: of the model, for people; nothing depends on it.
        root: SHA-256 over all digests, in hex.
        algorithm: `sha256`, `blake2b` or `blake3`.
        shard_bytes: how long the pieces of files are; 0 where files are listed whole.
        ignored: paths, below the folder, that the signer did not look at.
        key: fingerprint of the key that signed.
    """

    name: str
    root: str
    algorithm: str
    shard_bytes: int
    ignored: tuple[str, ...]
    files: Mapping[str, tuple[Listed, ...]]
    key: str


class _Loose(Record, frozen=True, forbid_unknown_fields=False, rename="camel"):
    """A record of a format that others extend."""


class _PublicKey(_Loose, frozen=True):
    hint: str | None = None


class _Certificate(_Loose, frozen=True):
    raw_bytes: str


class _Chain(_Loose, frozen=True):
    certificates: tuple[_Certificate, ...]


class _Material(_Loose, frozen=True):
    public_key: _PublicKey | None = None
    x509_certificate_chain: _Chain | None = None
    certificate: _Certificate | None = None


class _Signature(_Loose, frozen=True):
    sig: str
    keyid: str = ""


class _Envelope(_Loose, frozen=True):
    payload: str
    payload_type: str
    signatures: tuple[_Signature, ...]


class _Bundle(_Loose, frozen=True):
    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope


class _Subject(_Loose, frozen=True):
    name: str
    digest: dict[str, str]


class _Resource(Record, frozen=True, forbid_unknown_fields=False):
    name: str
    algorithm: str
    digest: str


class _Serialization(Record, frozen=True, forbid_unknown_fields=False):
    method: str
    hash_type: str
    allow_symlinks: bool = False
    ignore_paths: tuple[str, ...] = ()
    shard_size: float = 0


class _Predicate(Record, frozen=True, forbid_unknown_fields=False):
    serialization: _Serialization
    resources: tuple[_Resource, ...]


class _InToto(_Loose, frozen=True, rename={"type_": "_type", "predicate_type": "predicateType"}):
    type_: str
    subject: tuple[_Subject, ...]
    predicate_type: str
    predicate: _Predicate


# ---- sign --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SignedBundle:
    """A bundle and the root digest that it signs."""

    raw: bytes
    root: str


def signed_bundle(
    name: str,
    digests: Mapping[str, str],
    *,
    algorithm: str,
    ignored: Sequence[str],
    signer: EcSigner,
) -> SignedBundle:
    """Sign a list of files; the same list gives the same bytes.

    Args:
        digests: in hex, by path; the one path of a single file is `WHOLE`.

    Raises:
        UsageError: `oms.count`.
    """
    if not 1 <= len(digests) <= RESOURCES_MAX or not all(map(_is_path, digests)):
        raise UsageError(
            "oms.count",
            f"{len(digests)} files are to be signed: it must be 1 to {RESOURCES_MAX}, each with a "
            "path below the folder",
        )
    ordered = sorted(digests, key=lambda path: PurePosixPath(path).parts)
    root = _root_of(digests[path] for path in ordered)
    statement = {
        "_type": _STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {SHA256: root}}],
        "predicateType": _PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": _FILES,
                "hash_type": algorithm,
                "allow_symlinks": False,
                "ignore_paths": list(ignored),
            },
            "resources": [
                {"name": path, "algorithm": algorithm, "digest": digests[path]} for path in ordered
            ],
        },
    }
    payload = to_json(statement)
    bundle = {
        "mediaType": _MEDIA_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": signer.public.fingerprint},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD_TYPE,
            "signatures": [
                {"sig": base64.b64encode(signer.sign(_encoded(payload))).decode(), "keyid": ""}
            ],
        },
    }
    return SignedBundle(raw=to_json(bundle), root=root)


def _encoded(payload: bytes) -> bytes:
    """The pre-authentication encoding of DSSE v1."""
    kind = _PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _root_of(digests: Iterable[str]) -> str:
    root = hashlib.sha256()
    for each in digests:
        root.update(bytes.fromhex(each))
    return root.hexdigest()


# ---- verify ------------------------------------------------------------------------------------


def verified_bundle(
    raw: bytes,
    *,
    public: EcPublic | None = None,
    of_chain: Callable[[Sequence[bytes]], EcPublic] | None = None,
) -> Statement:
    """Check a bundle as far as that goes without the files; the numbers are those of the module.

    Args:
        public: the key that must have signed.
        of_chain: gives the key of a chain of certificates, or refuses it; used where no key is
            named.

    Raises:
        RefusedError: `oms.signer`, and what `of_chain` raises.
        IntegrityError: `oms.bundle`, `ec.signature` or `oms.statement`.
    """
    if len(raw) > BUNDLE_BYTES_MAX:  # 1
        raise _no_bundle(f"it has more than {BUNDLE_BYTES_MAX} bytes")
    bundle = _decoded(_Bundle, raw, _no_bundle)
    envelope = bundle.dsse_envelope
    if bundle.media_type != _MEDIA_TYPE or envelope.payload_type != _PAYLOAD_TYPE:
        raise _no_bundle(f"its types are {bundle.media_type!r:.80}, {envelope.payload_type!r:.80}")
    if len(envelope.signatures) != 1:
        raise _no_bundle(f"it has {len(envelope.signatures)} signatures, not one")
    payload = _base64(envelope.payload)
    key = _key_of(bundle.verification_material, public, of_chain)  # 2
    key.demand(_base64(envelope.signatures[0].sig), _encoded(payload))  # 3
    return _stated(_decoded(_InToto, payload, _no_statement), key)


def _key_of(
    material: _Material,
    public: EcPublic | None,
    of_chain: Callable[[Sequence[bytes]], EcPublic] | None,
) -> EcPublic:
    hint, chain = material.public_key, material.x509_certificate_chain
    if [hint, chain, material.certificate].count(None) != 2:
        raise _no_bundle("it does not name one kind of signer")
    if material.certificate is not None:
        raise RefusedError(
            "oms.signer",
            "it is signed through Sigstore itself, which only its transparency log can prove",
            hint="verify it with the public tool, or ask for a signature with a key",
        )
    if chain is not None and of_chain is not None:
        return of_chain([_base64(each.raw_bytes) for each in chain.certificates])
    if hint is None or public is None:
        raise RefusedError(
            "oms.signer",
            "it is signed with a certificate" if chain else "it is signed with a bare key",
            hint="name the roots that are trusted: --root CA.pem"
            if chain
            else "name the signer's public key: --key PUB.pem",
        )
    if hint.hint and hint.hint != public.fingerprint:
        raise RefusedError(
            "oms.signer",
            f"it is signed with another key: its fingerprint is {hint.hint!r:.80}, that of the "
            f"given key is {public.fingerprint}",
            hint="name the signer's own with --key PUB.pem; without it this keep's is taken",
        )
    return public


def _stated(found: _InToto, key: EcPublic) -> Statement:
    """Hold a statement against itself."""
    types = (found.type_, found.predicate_type)
    if types != (_STATEMENT_TYPE, _PREDICATE_TYPE) or len(found.subject) != 1:  # 4
        raise _no_statement(f"its types are {types!r:.160}, with {len(found.subject)} subjects")
    how, resources = found.predicate.serialization, found.predicate.resources
    if not 1 <= len(resources) <= RESOURCES_MAX or len(how.ignore_paths) > IGNORED_MAX:
        raise _no_statement("it lists nothing, or too much")
    shard_bytes = _shard_bytes(how)
    files = _files_of(resources, how.hash_type, shard_bytes)  # 5
    (subject,) = found.subject
    root = _root_of(each.digest for each in resources)
    if subject.digest.get(SHA256) != root:  # 4
        raise _no_statement("its root digest is not that of its list")
    return Statement(
        name=subject.name,
        root=root,
        algorithm=how.hash_type,
        shard_bytes=shard_bytes,
        # One that leads elsewhere ignores nothing, as with the public tool.
        ignored=tuple(each for each in how.ignore_paths if _is_path(each) and each != WHOLE),
        files=files,
        key=key.fingerprint,
    )


def _shard_bytes(how: _Serialization) -> int:
    """How long the pieces are that are listed; 0 for whole files."""
    if how.method not in (_FILES, _SHARDS) or how.hash_type not in _DIGEST_CHARS:
        raise _no_statement(f"it lists {how.method!r:.40} by {how.hash_type!r:.40}")
    if how.method == _FILES:
        return 0
    if not 1 <= how.shard_size <= _SHARD_BYTES_MAX or how.shard_size != int(how.shard_size):
        raise _no_statement("its shards have no size")
    return int(how.shard_size)


def _files_of(
    resources: Sequence[_Resource], hash_type: str, shard_bytes: int
) -> dict[str, tuple[Listed, ...]]:
    """What is listed, by path, the pieces of each file in order."""
    algorithm = f"{hash_type}-sharded-{shard_bytes}" if shard_bytes else hash_type
    found: dict[str, list[Listed]] = {}
    for each in resources:
        if each.algorithm != algorithm or not _is_hex(each.digest, _DIGEST_CHARS[hash_type]):
            raise _no_statement(f"{each.name!r:.80} has no digest by {algorithm!r:.40}")
        listed = _listed(each, is_shard=shard_bytes > 0)
        found.setdefault(listed.path, []).append(listed)
    for path, pieces in found.items():
        pieces.sort(key=lambda piece: piece.start)
        if len({piece.start for piece in pieces}) != len(pieces):
            raise _no_statement(f"{path!r:.80} is listed twice")
    if WHOLE in found and len(found) > 1:
        raise _no_statement("it lists one file and a folder")
    return {path: tuple(pieces) for path, pieces in found.items()}


def _listed(resource: _Resource, *, is_shard: bool) -> Listed:
    """The file, or the piece of one, that a name means."""
    path, start, end = resource.name, 0, -1
    if is_shard:
        path, *places = resource.name.rsplit(":", 2)
        if len(places) != 2 or not all(map(_is_number, places)):
            raise _no_statement(f"{resource.name!r:.80} is no shard of a file")
        start, end = map(int, places)
    if not _is_path(path):
        raise _no_statement(f"{path!r:.80} is no path below a folder")
    return Listed(path, resource.digest, start, end)


def _decoded(kind: type[R], raw: bytes, failure: Callable[[str], IntegrityError]) -> R:
    try:
        return from_json(kind, raw, what="it")
    except IntegrityError as error:
        raise failure(f"{error!s:.200}") from None


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _no_bundle("a field is not in base64") from None


def _is_hex(text: str, chars: int) -> bool:
    return len(text) == chars and set(text) <= set("0123456789abcdef")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 16


def _is_path(path: str) -> bool:
    """Whether a path stays below its folder, written in the one way; or is the folder itself."""
    if not 1 <= len(path) <= PATH_CHARS_MAX or "\0" in path:
        return False
    return path == WHOLE or not any(part in ("", ".", "..") for part in path.split("/"))


def _no_bundle(why: str) -> IntegrityError:
    return IntegrityError("oms.bundle", f"this is no signature of OMS: {why}")


def _no_statement(why: str) -> IntegrityError:
    return IntegrityError("oms.statement", f"what was signed is no statement of OMS v1.0: {why}")
