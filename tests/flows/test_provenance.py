"""Provenance at admission: what must come with a model, and what is proven of it."""

import datetime
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import PASSPHRASE, Desk, modelkeep
from cryptography.hazmat.primitives.serialization import Encoding
from oms_tool import Authority, Signer
from osv_records import exported, ranged, record
from tensor_files import tensors, written

from modelkeep.config import parsed_config
from modelkeep.core.errors import ConfigError, KeepError, RefusedError
from modelkeep.core.record import replaced
from modelkeep.flows import provenance
from modelkeep.scan.admission_settings import AdmissionSettings, AdvisorySettings, Tolerated
from modelkeep.sdk.admissions import Admissions
from modelkeep.sdk.interop import Interop
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.proofs import Papers

CARD = 'licence = "MIT"\nrun = "run-7"\n\n[[datasets]]\nname = "digits"\n'
NOTHING, UNKNOWN = AdmissionSettings(), AdvisorySettings()


@dataclass
class Gate:
    """A keep that is open, for opening one costs more than all else here."""

    keep: Keep
    folder: Path

    def admit(self, path, name, *, policy=NOTHING, advisories=UNKNOWN, **more):
        """Admit under a policy; what comes with it is said by the names of `Papers`."""
        said = {each: more.pop(each) for each in ("card", "base") if each in more}
        self.keep.config = replaced(self.keep.config, admission=policy, advisories=advisories)
        return self.keep.admit(path, name=name, papers=Papers(**more), **said)

    def refused(self, path, name, **more):
        """The decision, the rule that it is for, and what is wanting besides."""
        with pytest.raises(RefusedError) as refusal:
            self.admit(path, name, **more)
        rule = refusal.value.message.rpartition("(")[2].partition(")")[0]
        return refusal.value.code.removeprefix("verdict."), rule

    def code(self, path, **more):
        with pytest.raises(KeepError) as refusal:
            self.admit(path, "nobody", **more)
        return refusal.value.code

    def entries(self, kind):
        return [entry for _, entry in self.keep.opened.history(0) if entry.kind == kind]


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    desk = Desk.made(tmp_path_factory.mktemp("provenance"), second=False)
    with Keep(desk.keep, passphrase=PASSPHRASE) as keep:
        yield Gate(keep, desk.folder)


@pytest.fixture
def model(tmp_path):
    """A folder of two shards."""
    folder = tmp_path / "llm"
    folder.mkdir()
    for at in (1, 2):
        written(folder / f"model-{at}.safetensors", tensors(at, items=64))
    return folder


@pytest.fixture
def maker(tmp_path):
    return Signer(tmp_path)


def key_of(pem):
    """How a policy names a key."""
    return "key:" + hashlib.sha256(pem.read_bytes()).hexdigest()


def digest_of(path):
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_nothing_is_demanded_and_nothing_is_said_where_there_is_no_policy(gate, model):
    before = len(gate.entries("model.provenance"))
    assert gate.admit(model, "plain").proven == {}
    assert len(gate.entries("model.provenance")) == before


def test_a_signature_is_verified_and_who_signed_is_in_the_ledger(gate, model, maker):
    bundle = maker.sign(model, model.parent / "llm.sig")
    papers = {"signature": bundle, "signed_by": (maker.public,)}
    proven = gate.admit(model, "signed", **papers).proven
    entry = gate.entries("model.provenance")[-1]
    assert entry.facts == {**proven, "model": "signed", "version": 1}
    assert (proven["signer"], proven["signature"]) == (key_of(maker.public), digest_of(bundle))
    kinds = [entry.kind for _, entry in gate.keep.opened.history(0)]
    at = len(kinds) - 1 - kinds[::-1].index("model.provenance")
    assert kinds[at - 1] == "model.admitted"
    assert not gate.admit(model, "signed", **papers).is_new
    assert gate.entries("model.provenance")[-1].facts == entry.facts


def test_a_bad_signature_is_denied_whatever_the_policy(gate, model, maker):
    bundle = maker.sign(model, model.parent / "llm.sig")
    papers = {"signature": bundle, "signed_by": (maker.public,)}
    shard = model / "model-1.safetensors"
    raw = shard.read_bytes()
    shard.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert gate.refused(model, "bad", **papers) == ("deny", "provenance.signature.bad")
    shard.write_bytes(raw)
    forged = json.loads(bundle.read_text())
    forged["dsseEnvelope"]["signatures"][0]["sig"] = "MEUCIQ=="
    bundle.write_text(json.dumps(forged))
    assert gate.refused(model, "bad", **papers) == ("deny", "provenance.signature.bad")
    bundle.write_text("{}")
    assert gate.refused(model, "bad", **papers) == ("deny", "provenance.signature.bad")
    assert all(each.name != "bad" for each in gate.keep.models())


def test_what_lies_in_the_folder_and_is_not_signed_is_a_bad_signature(gate, model, maker):
    bundle = maker.sign(model, model.parent / "llm.sig")
    papers = {"signature": bundle, "signed_by": (maker.public,)}
    (model / "more.json").write_text("{}")
    assert gate.refused(model, "more", **papers) == ("deny", "provenance.signature.bad")
    (model / "more.json").unlink()
    (model / "link").symlink_to("model-1.safetensors")
    assert gate.refused(model, "more", **papers) == ("deny", "provenance.signature.bad")


def test_the_signature_may_lie_in_the_folder(gate, model, maker):
    bundle = maker.sign(model, model / "model.sig")
    done = gate.admit(model, "beside", signature=bundle, signed_by=(maker.public,))
    assert done.proven["signer"] == key_of(maker.public)
    assert all(each.severity == "note" for each in done.verdict.findings)
    assert "provenance.signature.partial" not in {each.rule for each in done.verdict.findings}


def test_a_signature_is_demanded_by_the_models_name(gate, model, maker):
    bundle = maker.sign(model, model.parent / "llm.sig")
    key = key_of(maker.public)
    policy = AdmissionSettings(signers=(key,), signature_required=("llm*",))
    assert gate.refused(model, "llm-1", policy=policy) == ("hold", "provenance.signature.missing")
    assert gate.admit(model, "other", policy=policy).version == 1
    papers = {"signature": bundle, "signed_by": (maker.public,)}
    assert gate.admit(model, "llm-1", policy=policy, **papers).proven["signer"] == key
    strict = replaced(policy, decision="deny")
    assert gate.refused(model, "llm-2", policy=strict)[0] == "deny"


def test_a_stranger_is_held_and_may_be_approved(gate, model, maker, tmp_path):
    policy = AdmissionSettings(signers=("key:" + "0" * 64,), signature_required=("*",))
    bundle = maker.sign(model, tmp_path / "llm.sig")
    papers = {"signature": bundle, "signed_by": (maker.public,)}
    assert gate.refused(model, "odd", policy=policy, **papers) == (
        "hold",
        "provenance.signer.untrusted",
    )
    Admissions(gate.keep).approve("odd", why="known to us", until="2999-01-31")
    assert gate.admit(model, "odd", policy=policy, **papers).approval
    (tmp_path / "other").mkdir()
    papers["signed_by"] = (Signer(tmp_path / "other").public,)
    named = gate.refused(model, "odd", policy=policy, **papers)
    assert named == ("hold", "provenance.signer.other")
    assert gate.code(model, signature=bundle) == "provenance.signature"
    assert gate.code(model, signed_by=(maker.public,)) == "provenance.signature"


def test_what_the_signer_left_out_is_wanting_where_a_signature_is_demanded(gate, model, tmp_path):
    (model / "notes.json").write_text("{}")
    bundle, pem = tmp_path / "llm.sig", tmp_path / "keep.pem"
    Interop(gate.keep).oms_sign(model, bundle, ignore=["notes.json"])
    pem.write_bytes(Interop(gate.keep).oms_key().pem)
    papers = {"signature": bundle, "signed_by": (pem,)}
    findings = gate.admit(model, "part", **papers).verdict.findings
    assert "provenance.signature.partial" in {each.rule for each in findings}
    policy = AdmissionSettings(signers=(key_of(pem),), signature_required=("*",))
    found = gate.refused(model, "part-2", policy=policy, **papers)
    assert found == ("hold", "provenance.signature.partial")
    (model / "notes.json").unlink()
    (model / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    assert gate.admit(model, "part-2", policy=policy, **papers).version == 1
    (model / ".git").mkdir()
    (model / ".git" / "config").write_text("[core]\n")
    found = gate.refused(model, "part-3", policy=policy, **papers)
    assert found == ("hold", "provenance.signature.partial")


def test_certificates_and_their_roots_are_signers(gate, model, maker, tmp_path):
    authority = Authority.root()
    leaf = authority.issued("maker", maker.private.public_key(), is_authority=False)
    bundle = maker.certify(model, tmp_path / "llm.sig", [leaf, authority.certificate])
    root, other = tmp_path / "root.pem", tmp_path / "other.pem"
    root.write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    other.write_bytes(Authority.root("other").certificate.public_bytes(Encoding.PEM))
    name = "root:" + hashlib.sha256(authority.certificate.public_bytes(Encoding.DER)).hexdigest()
    policy = AdmissionSettings(signers=(name,), signature_required=("*",))
    papers = {"signature": bundle, "signed_by": (other, root)}
    assert gate.admit(model, "chained", policy=policy, **papers).proven["signer"] == name
    papers["signed_by"] = (other,)
    found = gate.refused(model, "chained", policy=policy, **papers)
    assert found == ("hold", "provenance.signer.other")


def test_a_detached_signature_proves_one_file(gate, model, tmp_path):
    shard, signature = model / "model-1.safetensors", tmp_path / "shard.sig"
    identity = tmp_path / "me.key"
    verifier = modelkeep("identity", "new", "--output", identity, "--json").json["verifier"]
    modelkeep("sign", shard, "--identity", identity, "--output", signature)
    found = gate.refused(shard, "one", signature=signature)
    assert found == ("hold", "provenance.signer.other")
    done = gate.admit(shard, "one", signature=signature, signed_by=(verifier,))
    assert done.proven["signer"] == verifier
    policy = AdmissionSettings(signers=(verifier,), signature_required=("one",))
    assert gate.admit(shard, "one", policy=policy, signature=signature).version == 1
    shard.write_bytes((model / "model-2.safetensors").read_bytes())
    found = gate.refused(shard, "one", policy=policy, signature=signature)
    assert found == ("deny", "provenance.signature.bad")
    assert gate.code(model, signature=signature) == "provenance.signature"


def test_expected_digests_are_held_against_the_files(gate, model):
    shard = model / "model-1.safetensors"
    digest = digest_of(shard)
    assert gate.admit(shard, "expected", expect=(digest,)).proven["expected"] == (digest,)
    own = gate.keep.manifest("expected").files[0].digest
    assert gate.admit(shard, "expected", expect=(own, digest)).version == 1
    named = f"model-1.safetensors={digest}"
    assert gate.admit(model, "expected-2", expect=(named,)).version == 1
    wrong = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    assert gate.refused(shard, "x", expect=(wrong,)) == ("deny", "provenance.digest")
    gone = f"model-9.safetensors={digest}"
    assert gate.refused(model, "x", expect=(gone,)) == ("deny", "provenance.digest")
    for bad in ("sha256:12", "crc32:" + "0" * 8, "x"):
        assert gate.code(shard, expect=(bad,)) == "provenance.expect"
    assert gate.code(model, expect=(digest,)) == "provenance.expect"


def test_a_card_must_say_what_the_policy_asks(gate, model, tmp_path):
    policy = AdmissionSettings(
        card_required=("licence", "base", "datasets", "run"),
        licences=("Apache-2.0", "MIT"),
        decision="deny",
    )
    with pytest.raises(RefusedError) as refusal:
        gate.admit(model, "carded", policy=policy)
    assert "licence, base, datasets, run" in refusal.value.message
    assert "also: it has no licence (provenance.licence)" in refusal.value.hint
    card = tmp_path / "card.toml"
    card.write_text(CARD)
    more = {"policy": policy, "card": card}
    assert gate.refused(model, "carded", **more) == ("deny", "provenance.card")
    assert gate.admit(model, "carded", base="llama:1", **more).version == 1
    for licence in ("GPL-3.0-only", "MIT AND GPL-3.0-only", "of my own making"):
        card.write_text(CARD.replace("MIT", licence))
        decision = gate.refused(model, "carded", base="llama:1", **more)
        assert decision == ("deny", "provenance.licence"), licence


def test_a_bill_of_materials_is_held_against_the_files_and_fills_the_card(gate, model, tmp_path):
    card, bom = tmp_path / "card.toml", tmp_path / "llm.cdx.json"
    card.write_text(CARD)
    gate.admit(model, "source", card=card)
    bom.write_bytes(Interop(gate.keep).bom("source"))
    policy = AdmissionSettings(card_required=("licence", "datasets"), licences=("MIT",))
    assert gate.refused(model, "told", policy=policy) == ("hold", "provenance.card")
    assert gate.admit(model, "told", policy=policy, boms=(bom,)).proven["boms"] == (digest_of(bom),)
    shown = gate.keep.manifest("told").card
    assert (shown.licence, shown.run) == ("MIT", "run-7")
    card.write_text(CARD.replace("MIT", "Apache-2.0"))
    decision = gate.refused(model, "told", boms=(bom,), card=card)
    assert decision == ("hold", "provenance.bom.contradiction")
    (model / "model-2.safetensors").unlink()
    assert gate.refused(model, "told", boms=(bom,)) == ("hold", "provenance.bom.file")
    written(model / "model-2.safetensors", tensors(5, items=64))
    assert gate.refused(model, "told", boms=(bom,)) == ("deny", "provenance.bom.digest")
    bom.write_text("{}")
    assert gate.code(model, boms=(bom,)) == "bom.form"


def test_what_a_model_wants_to_have_installed_is_assessed(gate, model):
    old = record("tornado", ranged(("introduced", "0"), ("fixed", "6.1")), modified=now())
    exported(gate.keep.folder.path, old)
    advisories = AdvisorySettings(file="all.zip")
    wants = model / "requirements.txt"
    wants.write_text("tornado==6.0\nnumpy>=1\n")
    assert gate.admit(model, "wants").verdict.decision == "allow"
    found = gate.refused(model, "wants-a", advisories=advisories)
    assert found == ("hold", "dependencies.vulnerable")
    wants.write_text("tornado==6.1\nnumpy>=1\n")
    done = gate.admit(model, "wants-b", advisories=advisories)
    assert "dependencies.unassessed" in {each.rule for each in done.verdict.findings}
    assert done.proven["packages"] == 2
    policy = AdmissionSettings(unassessed="hold")
    found = gate.refused(model, "wants-c", policy=policy, advisories=advisories)
    assert found == ("hold", "dependencies.unassessed")
    any_will_do = Tolerated(package="numpy", why="any will do", until=datetime.date(2999, 1, 31))
    lenient = AdvisorySettings(file="all.zip", tolerated=(any_will_do,))
    assert gate.admit(model, "wants-c", policy=policy, advisories=lenient).version == 1
    (gate.keep.folder.path / "all.zip").write_bytes(b"PK\x05\x06")
    assert gate.code(model, advisories=advisories) == "advisories.archive"


def test_lists_without_end_are_not_silently_left_out(gate, model, monkeypatch):
    monkeypatch.setattr(provenance, "_LISTS_MAX", 1)
    exported(gate.keep.folder.path, record("tornado", ranged(("introduced", "9")), modified=now()))
    for at in (1, 2):
        (model / f"requirements-{at}.txt").write_text(f"tornado=={at}\n")
    advisories, policy = AdvisorySettings(file="all.zip"), AdmissionSettings(unassessed="hold")
    found = gate.refused(model, "many", policy=policy, advisories=advisories)
    assert found == ("hold", "dependencies.unassessed")
    (model / "requirements-2.txt").unlink()
    assert gate.admit(model, "many", policy=policy, advisories=advisories).proven["packages"] == 1


def test_what_is_included_from_outside_of_the_model_is_refused_unread(gate, model, tmp_path):
    exported(gate.keep.folder.path, record("tornado", ranged(("introduced", "9")), modified=now()))
    (tmp_path / "outside.txt").write_text("tornado==1\n")
    (model / "requirements.txt").write_text("-r ../outside.txt\n-r /etc/hostname\n")
    advisories = AdvisorySettings(file="all.zip")
    with pytest.raises(RefusedError) as caught:
        gate.admit(model, "outside", advisories=advisories)
    assert "../outside.txt" in caught.value.message
    assert "tornado" not in str(caught.value)


def now():
    """This instant, as OSV writes one."""
    return datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(
    "text",
    [
        '[admission]\nsignature_required = ["*"]',
        '[admission]\nsigners = ["somebody"]',
        f'[admission]\nsigners = ["mkv1{"a" * 57}"]',
        '[admission]\nlicences = ["MIT OR Apache-2.0"]',
        '[admission]\ncard_required = ["colour"]',
        '[admission]\ndecision = "allow"',
        '[admission]\nunassessed = "deny"',
        "[advisories]\nage_s_max = 0.0",
        "[advisories]\ncount_min = 0",
        '[[advisories.tolerated]]\nwhy = "x"\nuntil = 2030-01-01',
        '[[advisories.tolerated]]\nid = "x"\nwhy = " "\nuntil = 2030-01-01',
        '[[advisories.tolerated]]\nid = "x"\nwhy = "x"\nuntil = "soon"',
    ],
)
def test_a_policy_that_says_nonsense_is_no_policy(text):
    base = 'keep_id = "0123456789abcdef"\n[[stores]]\nlabel = "main"\npath = "stores/main"\n'
    with pytest.raises(ConfigError):
        parsed_config((base + text).encode(), what="it")
