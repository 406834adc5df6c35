"""Goal: what somebody else made is let in as carefully as what is ours, and says who sent it."""

from dataclasses import replace

import pytest
from command import CHEAP, PASSPHRASE
from portable_files import SENDER, manifest_of, portable, table_of
from small_onnx import small_canary, small_onnx

from modelkeep.core.errors import KeepError, UnavailableError, UsageError
from modelkeep.core.policy import Output, Policy
from modelkeep.crypto.keytext import verifier_text
from modelkeep.crypto.secret import Secret
from modelkeep.flows.admit import admitted
from modelkeep.flows.scanning import HERE
from modelkeep.sdk import transfer
from modelkeep.sdk.contents import candidate_of
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.transfer import Transfer

DEEP = "a/b/c/d"
FILES = {f"{DEEP}/w.txt": b"weights"}
FOLDERS = ((".", 0o755), *(("/".join(DEEP.split("/")[:count]), 0o755) for count in range(1, 5)))
# Inside of the whole, and out of everything from the part on.
LINKS = ((f"{DEEP}/config.json", "../" * 4 + "etc/hostname"),)


@pytest.fixture
def keep(tmp_path):
    with Keep.create(tmp_path / "keep", passphrase=PASSPHRASE, port=0, argon2=CHEAP) as keep:
        yield keep


def taken_in(keep, tmp_path, *, links=(), **facts):
    manifest = manifest_of(FILES, **facts)
    table = table_of(manifest, FILES, folders=FOLDERS, links=links)
    (tmp_path / "m.model").write_bytes(portable(FILES, table=table))
    return Transfer(keep).take_in(
        tmp_path / "m.model",
        name="m",
        passphrase=Secret(b"correct horse battery staple"),
        signed_by=[verifier_text(SENDER.public)],
    )


def test_a_policy_of_a_sender_that_cannot_be_meant_is_refused(keep, tmp_path):
    policy = Policy(decimals=400, replicas_max=-3, output=Output.ROUNDED)
    with pytest.raises(UsageError) as refused:
        taken_in(keep, tmp_path, policy=policy)
    assert refused.value.code == "policy.bounds"
    assert not keep.models()


def test_a_part_of_an_imported_model_leads_nowhere_else(keep, tmp_path):
    taken_in(keep, tmp_path, links=LINKS)
    keep.restore("m", tmp_path / "whole")
    assert str((tmp_path / "whole" / LINKS[0][0]).readlink()) == LINKS[0][1]
    with pytest.raises(KeepError) as refused:
        keep.restore("m", tmp_path / "part", path=DEEP)
    assert refused.value.code == "restore.link"
    assert not (tmp_path / "part").exists()


def test_links_that_one_saved_oneself_come_back_in_a_part_as_they_were(keep, tmp_path):
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "host").symlink_to("/etc/hostname")
    (tmp_path / "tree" / "file").write_text("a file")
    keep.save(tmp_path / "tree", name="mine")
    keep.restore("mine", tmp_path / "part", path="sub")
    assert str((tmp_path / "part" / "host").readlink()) == "/etc/hostname"


def test_no_version_is_let_in_without_its_sender_on_record(keep, tmp_path):
    real = keep.opened.recorder
    writes = []

    class Watching:
        def record(self, entries):
            writes.append([each.kind for each in entries])
            return real.record(entries)

    keep.adopt(replace(keep.opened, recorder=Watching()))
    assert taken_in(keep, tmp_path).is_new
    assert ["model.admitted", "model.imported", "vault.committed"] in writes
    assert not taken_in(keep, tmp_path).is_new
    assert writes[-1] == ["model.imported"]


def test_what_is_taken_in_lies_in_memory_that_is_wiped(keep, tmp_path, monkeypatch):
    seen = []

    class Memory(transfer.OwnMemory):
        def close(self):
            seen.append(bytes(self.view))
            view = self.view[:]
            super().close()
            seen.append(bytes(view))

    monkeypatch.setattr(transfer, "OwnMemory", Memory)
    taken_in(keep, tmp_path)
    assert seen == [b"weights", bytes(7)]


def test_what_is_said_anew_of_the_same_bytes_is_a_new_version(keep, tmp_path):
    file = small_onnx(tmp_path / "m.onnx")
    assert keep.admit(file, name="m").is_new
    assert not keep.admit(file, name="m").is_new
    for said in ({"canary": small_canary()}, {"base": "m:1"}, {"note": "of today"}):
        assert keep.admit(file, name="m", **said).is_new, said
    said = keep.manifest("m:4")
    assert said.note == "of today"
    for again in ({}, {"note": "of today"}):
        assert not keep.admit(file, name="m", **again).is_new


def test_the_base_is_the_version_that_was_asked_for_however_long_it_takes(keep, tmp_path):
    one = small_onnx(tmp_path / "one.onnx")
    keep.admit(one, name="b")
    keep.admit(small_onnx(tmp_path / "two.onnx", added=2.0), name="b")
    keep.set_alias("b:prod", 1)
    asked = []

    def once_pruned():
        asked.append(keep.set_alias("b:prod", 2))
        if len(asked) == 1:
            raise UnavailableError("vault.pruned", "a prune took what was written")

    with candidate_of(one, keep.folder, print, name="m", base="b:prod") as candidate:
        config = keep.config
        slow = replace(candidate, demand_steady=once_pruned)
        admitted(
            keep,
            slow,
            vault=config.vault,
            scan=config.scan,
            scanner=HERE,
            admission=config.admission,
            assess=None,
            trial=None,
        )
    assert len(asked) == 2
    assert keep.manifest("m").base == "b:1"
