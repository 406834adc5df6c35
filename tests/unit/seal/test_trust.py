"""Whose signature counts: trusted signers, exact bytes, the artifact that was asked for."""

import pytest

from modelkeep.core.artifact import FileEntry, Manifest, TensorEntry
from modelkeep.core.errors import IntegrityError, MissingError, RefusedError
from modelkeep.core.record import from_msgpack, replaced, to_json, to_msgpack
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.kernels.digest import digest_of
from modelkeep.seal.envelope import Envelope, sealed
from modelkeep.seal.trust import demand_file, file_of, tensors_at, verified

SIGNER = Signer(Secret(b"s" * 32))
STRANGER = Signer(Secret(b"t" * 32))
RAW = b"the weights of a very small model"


def manifest(name="digits", version=1, domain="default"):
    tensors = (
        TensorEntry(name="w", dtype="FP32", shape=(2,), offset=4, length=8, digest=digest_of(b"")),
        TensorEntry(name="b", dtype="FP32", shape=(1,), offset=12, length=4, digest=digest_of(b"")),
    )
    entry = FileEntry(
        path="model.onnx", size_bytes=len(RAW), digest=digest_of(RAW), tensors=tensors
    )
    return Manifest(
        name=name, version=version, kind="onnx", domain=domain, admitted_ns=1, files=(entry,)
    )


def envelope(**changes):
    return replaced(sealed(manifest(), signer=SIGNER), **changes)


def proof_of(found, *, name="digits", version=1, trusted=(SIGNER.public,)):
    return verified(found, name=name, version=version, trusted=trusted)


def test_a_trusted_signature_over_what_was_asked_for_is_proof():
    found = envelope()
    proof = proof_of(found)
    assert proof.manifest == manifest()
    assert proof.digest == digest_of(found.manifest)
    assert proof.signer == SIGNER.public


def test_an_untrusted_signer_is_refused_however_right_the_signature():
    found = sealed(manifest(), signer=STRANGER)
    with pytest.raises(RefusedError) as refused:
        proof_of(found)
    assert refused.value.code == "seal.signer"
    assert proof_of(found, trusted=(SIGNER.public, STRANGER.public)).signer == STRANGER.public


@pytest.mark.parametrize("trusted", [(), [], frozenset()])
def test_an_empty_list_trusts_nobody(trusted):
    with pytest.raises(RefusedError):
        proof_of(envelope(), trusted=trusted)


def test_a_stranger_who_claims_to_be_trusted_is_found_out():
    lie = replaced(sealed(manifest(), signer=STRANGER), signer=SIGNER.public)
    with pytest.raises(IntegrityError) as refused:
        proof_of(lie)
    assert refused.value.code == "signature.bad"


@pytest.mark.parametrize(("name", "version"), [("digits", 2), ("other", 1), ("digits", 0), ("", 1)])
def test_swapped_manifests_are_noticed(name, version):
    with pytest.raises(IntegrityError) as refused:
        proof_of(envelope(), name=name, version=version)
    assert refused.value.code == "seal.identity"


def test_an_envelope_moved_to_another_domain_is_noticed():
    with pytest.raises(IntegrityError) as refused:
        proof_of(envelope(domain="other"))
    assert refused.value.code == "seal.identity"


def test_any_changed_byte_of_the_manifest_is_noticed():
    raw = envelope().manifest
    for at in range(len(raw)):
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        with pytest.raises(IntegrityError) as refused:
            proof_of(envelope(manifest=changed))
        assert refused.value.code == "signature.bad"


def test_any_changed_bit_of_the_signature_is_noticed():
    signature = envelope().signature
    for at in range(len(signature) * 8):
        changed = bytearray(signature)
        changed[at // 8] ^= 1 << (at % 8)
        with pytest.raises(IntegrityError):
            proof_of(envelope(signature=bytes(changed)))


def test_the_same_manifest_in_other_bytes_is_not_what_was_signed():
    raw = envelope().manifest
    with pytest.raises(IntegrityError):
        proof_of(envelope(manifest=raw.replace(b'":', b'": ')))


def test_a_signature_for_another_purpose_does_not_count():
    raw = to_json(manifest())
    for context in ("pack", "object/envelope", ""):
        with pytest.raises(IntegrityError):
            proof_of(envelope(signature=SIGNER.sign(raw, context=context)))


def test_signed_bytes_that_are_no_manifest_are_an_integrity_error():
    for raw in (b"", b"{}", b"[]", to_json({"name": "digits", "more": 1})):
        found = envelope(manifest=raw, signature=SIGNER.sign(raw, context="manifest"))
        with pytest.raises(IntegrityError) as refused:
            proof_of(found)
        assert refused.value.code == "record.json"


def test_an_envelope_comes_back_from_its_bytes():
    assert from_msgpack(Envelope, to_msgpack(envelope()), what="it") == envelope()


# ---- files and tensors ---------------------------------------------------------------------------


def test_a_file_is_the_one_that_was_signed_or_none():
    proof = proof_of(envelope())
    assert demand_file(proof, "model.onnx", memoryview(RAW)).size_bytes == len(RAW)
    for wrong in (b"", RAW[:-1], RAW + b"\0", RAW[:-1] + b"!"):
        with pytest.raises(IntegrityError) as refused:
            demand_file(proof, "model.onnx", memoryview(wrong))
        assert refused.value.code == "seal.digest"
    with pytest.raises(MissingError):
        demand_file(proof, "other.onnx", memoryview(RAW))


@pytest.mark.parametrize(
    ("offset", "length", "hit"),
    [
        (0, 4, ""),
        (0, 5, "w"),
        (4, 8, "w"),
        (11, 1, "w"),
        (11, 2, "w b"),
        (12, 1, "b"),
        (15, 1, "b"),
        (16, 100, ""),
        (0, 100, "w b"),
        (4, 0, ""),
    ],
)
def test_the_tensors_of_a_range_are_those_whose_bytes_it_touches(offset, length, hit):
    entry = file_of(manifest(), "model.onnx")
    assert " ".join(each.name for each in tensors_at(entry, offset, length)) == hit
