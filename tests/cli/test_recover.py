"""`modelkeep recover`: from one surviving store to the first correct answer, or a clear refusal."""

import json
import os
import shutil
import signal
import socket
import time

import numpy as np
import pytest
from command import Desk, Process, modelkeep, wait_until
from gateway_world import certificate
from onnx_models import trained_models, two_models

from modelkeep.sdk.client import Client


@pytest.fixture
def lost(one, tmp_path):
    """A keep that was backed up and then destroyed; its last checkpoint was saved elsewhere."""
    one.admit(2)
    one.run("alias", "digits:prod", "1")
    key = one.json("tokens", "new", "alice")["api_key"]
    one.run("backup")
    (tmp_path / "key").write_text(key)
    (tmp_path / "checkpoint.txt").write_text(one.run("ledger", "checkpoint").out)
    one.destroy()
    return one


def recover(desk, *words, wanted=0, source=None):
    own = ("recover", desk.keep, "--from", source or desk.offsite)
    return modelkeep(*own, "--passphrase-file", desk.passphrase_file, *words, wanted=wanted)


def refused(desk, *words, wanted, source=None):
    before = {path: raw for path, raw in desk.files().items() if desk.offsite in path.parents}
    found = recover(desk, *words, "--json", wanted=wanted, source=source)
    assert not (desk.keep / "modelkeep.toml").exists()
    now = {path: raw for path, raw in desk.files().items() if desk.offsite in path.parents}
    assert now == before
    return found.error["code"]


# ---- bringing it back ----------------------------------------------------------------------------


@pytest.mark.slow
def test_everything_comes_back_measured_and_written_down(lost, tmp_path):
    out = recover(lost, "--port", "0", "--expect", tmp_path / "checkpoint.txt", "--json")
    facts = out.json
    assert facts["event"] == "recovered"
    result = facts["result"]
    assert result["kind"] == "recovery"
    assert result["measure"]["freshness"] == "proven"
    assert 0 < result["measure"]["rto_s"] < result["objectives"]["rto_s_max"]
    assert result["missed"] == result["damaged"] == []
    assert result["probes"] == [{"model": "digits:1", "is_proven": True}]
    times = [lap["at_s"] for lap in result["laps"]]
    assert times == sorted(times)
    assert [(each["version"], each["aliases"]) for each in lost.json("models")] == [
        (1, ["prod"]),
        (2, []),
    ]
    for version, path in enumerate(two_models(), start=1):
        lost.run("restore", f"digits:{version}", "--to", tmp_path / f"{version}.onnx")
        assert (tmp_path / f"{version}.onnx").read_bytes() == path.read_bytes()
    assert all(each["is_whole"] for each in lost.json("ledger", "verify"))
    lost.run("ledger", "verify", "--expect", tmp_path / "checkpoint.txt")
    drill = lost.entries("drill.measured")[-1]["facts"]
    assert json.loads(drill["result"]) == result
    assert drill["met"] is True
    assert "ledger.resumed" in lost.kinds()
    probe = next(each for each in lost.json("tokens", "list") if each["principal"] != "alice")
    assert probe["revoked"] is True
    assert lost.json("status")["served"] is False
    lost.admit(1)
    assert lost.json("backup")[0]["is_whole"] is True
    assert lost.json("check", "--read-data")["findings"] == []


@pytest.mark.slow
def test_serving_goes_on_with_the_same_key_and_certificate_until_ctrl_c(lost, tmp_path, running):
    words = ("recover", lost.keep, "--from", lost.offsite, "--serve", "--json")
    process = running(Process(*words, "--passphrase-file", lost.passphrase_file))
    facts = process.event("recovered")
    key = (tmp_path / "key").read_text()
    data = trained_models()[0]
    with Client(server=facts["url"], api_key=key, ca=lost.keep / "ca.pem") as client:
        got = client.load_model("digits").evaluate(data.held_out, data.held_out_labels)
    assert abs(got.accuracy - trained_models()[1][0].accuracy) < 0.005
    process.interrupt()
    assert process.ended().status in (0, 130)
    assert process.left() == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["TERM", "KILL"])
def test_ending_the_command_ends_the_service_that_it_started(lost, running, number):
    words = ("recover", lost.keep, "--from", lost.offsite, "--serve", "--json")
    process = running(Process(*words, "--passphrase-file", lost.passphrase_file))
    process.event("recovered")
    os.kill(process.pid, number)
    wait_until(lambda: process.left() == [], 5)


@pytest.mark.slow
def test_people_see_every_step_and_both_figures(lost):
    said = recover(lost, "--port", "0", "--disaster-at", "2026-01-01T00:00:00Z", wanted=None)
    assert "ledger verified" in said.err
    assert "first correct answer" in said.err
    assert "RTO" in said.out
    assert "freshness unproven" in said.out
    assert "its canary answer is right" in said.out


@pytest.mark.slow
def test_a_missed_objective_is_exit_4_and_the_keep_is_back_all_the_same(one):
    one.configure("rto_s_max = 60.0", "rto_s_max = 0.001")
    one.run("backup")
    one.destroy()
    out = recover(one, "--port", "0", "--json", wanted=4).json
    assert out["result"]["missed"]
    assert one.entries("drill.measured")[-1]["facts"]["met"] is False
    assert len(one.json("models")) == 1


@pytest.mark.slow
def test_an_rpo_is_counted_to_the_disaster(lost):
    time.sleep(0.01)
    later = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    result = recover(lost, "--port", "0", "--disaster-at", later, "--json", wanted=4).json["result"]
    assert 3500 < result["measure"]["rpo_s"] < 3700


@pytest.mark.slow
def test_a_port_is_taken_from_the_command_however_the_configuration_writes_it(one):
    one.configure("port = 0", "port  =  9_443  # public")
    one.run("backup")
    one.destroy()
    url = recover(one, "--port", "0", "--json").json["url"]
    assert not url.endswith(":9443")


@pytest.mark.slow
def test_a_keep_whose_models_no_runtime_can_answer_for_comes_back(desk, tmp_path):
    np.save(tmp_path / "weights.npy", np.arange(1000, dtype=np.float32))
    desk.json("admit", tmp_path / "weights.npy", "--name", "weights")
    desk.run("backup")
    desk.destroy()
    recover(desk, "--port", "0", wanted=None)
    assert [each["name"] for each in desk.json("models")] == ["weights"]
    desk.run("restore", "weights", "--to", tmp_path / "out.npy")


@pytest.mark.slow
def test_what_was_admitted_after_the_last_backup_costs_only_itself(one, tmp_path):
    """The ledger reaches the second store within a second, the model only with a backup."""
    one.run("backup")
    one.admit(2)
    one.run("alias", "digits:prod", "2")
    one.destroy()
    facts = recover(one, "--port", "0", "--json", wanted=None).lines[-1]
    assert facts["result"]["probes"] == [{"model": "digits:1", "is_proven": True}]
    assert [each["version"] for each in one.json("models")] == [1]
    one.run("restore", "digits:1", "--to", tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == two_models()[0].read_bytes()
    assert one.admit(2)["is_new"] is True
    assert one.json("backup")[0]["is_whole"] is True
    assert one.json("check", "--read-data")["findings"] == []


@pytest.mark.slow
def test_a_copy_of_the_store_in_another_place_serves_as_well(lost, tmp_path):
    shutil.move(lost.offsite, tmp_path / "new-disk")
    recover(lost, "--port", "0", source=tmp_path / "new-disk")
    assert [each["label"] for each in lost.json("status")["stores"]] == ["main", "offsite"]
    assert lost.json("backup")[0]["is_whole"] is True


@pytest.mark.slow
def test_two_disasters_in_a_row_are_two_recoveries(lost, tmp_path):
    recover(lost, "--port", "0")
    lost.run("backup")
    checkpoint = tmp_path / "second.txt"
    checkpoint.write_text(lost.run("ledger", "checkpoint").out)
    lost.destroy()
    for saved in (tmp_path / "checkpoint.txt", checkpoint):
        result = recover(lost, "--port", "0", "--expect", saved, "--json").json["result"]
        assert result["measure"]["freshness"] == "proven"
        lost.run("backup")
        lost.destroy()


@pytest.mark.slow
def test_a_busy_port_costs_a_run_and_a_keep_that_was_used_since_is_a_keep(lost):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        recover(lost, "--port", port, wanted=6)
        (lost.keep / "photos").write_text("mine")
        recover(lost, "--port", port, wanted=6)
    assert (lost.keep / "pending").exists()
    assert len(lost.json("models")) == 2
    before = lost.files()
    assert recover(lost, "--json", wanted=2).error["code"] == "recover.exists"
    assert lost.files() == before
    assert not (lost.keep / "pending").exists()
    assert (lost.keep / "photos").read_text() == "mine"


@pytest.mark.slow
def test_a_store_in_the_target_survives_every_recovery_into_it(one, tmp_path):
    one.run("backup")
    one.destroy()
    usb = tmp_path / "usb"
    shutil.move(one.offsite, usb / "store")
    (usb / "photos").write_text("mine")
    before = {path: path.read_bytes() for path in usb.rglob("*") if path.is_file()}
    words = ("recover", usb, "--from", usb / "store", "--passphrase-file", one.passphrase_file)
    for _ in range(2):
        assert modelkeep(*words, "--json", wanted=2).error["code"] == "recover.inside"
    assert {path: path.read_bytes() for path in usb.rglob("*") if path.is_file()} == before


# ---- refusals ------------------------------------------------------------------------------------


def test_a_keep_that_is_there_is_never_replaced(one):
    one.run("backup")
    before = one.files()
    assert recover(one, "--json", wanted=2).error["code"] == "recover.exists"
    assert one.files() == before


def test_a_wrong_passphrase_opens_nothing(lost, tmp_path):
    (tmp_path / "wrong").write_text("not the passphrase")
    words = ("recover", lost.keep, "--from", lost.offsite, "--passphrase-file", tmp_path / "wrong")
    assert modelkeep(*words, "--json", wanted=3).error["code"] == "keys.passphrase"
    assert not lost.keep.exists()


def test_a_folder_that_is_no_store_holds_no_keep(lost, tmp_path):
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", tmp_path / "nowhere"):
        assert refused(lost, wanted=5, source=source) == "keep.none"


def test_a_store_that_lacks_the_expected_checkpoint_is_stale(one, tmp_path):
    one.run("backup")
    shutil.copytree(one.offsite, tmp_path / "stale")
    one.run("tokens", "new", "bob")
    saved = tmp_path / "checkpoint.txt"
    saved.write_text(one.run("ledger", "checkpoint").out)
    one.destroy()
    refused(one, "--expect", saved, wanted=4, source=tmp_path / "stale")


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"rubbish", b"\xff\xfe\n1\n\n", b"a\n1\nAAAA\n\n- a b\n"]
)
def test_a_checkpoint_that_is_rubbish_is_refused(lost, tmp_path, text):
    """An empty file is no expectation that was met: it is none that could be."""
    (tmp_path / "rubbish").write_bytes(text)
    words = ("--port", "0", "--expect", tmp_path / "rubbish")
    assert refused(lost, *words, wanted=4) == "recover.expected"


def test_another_keeps_checkpoint_is_refused(lost, tmp_path):
    other = Desk.made(tmp_path / "other")
    (tmp_path / "theirs").write_text(other.run("ledger", "checkpoint").out)
    assert refused(lost, "--expect", tmp_path / "theirs", wanted=4) == "recover.expected"


def test_a_missing_checkpoint_is_missing(lost, tmp_path):
    assert refused(lost, "--expect", tmp_path / "no", wanted=5) == "file.missing"


@pytest.mark.parametrize("at", ["yesterday", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00", ""])
def test_a_time_without_a_meaning_is_refused(lost, at):
    assert refused(lost, f"--disaster-at={at}", wanted=2) == "recover.time"


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_is_none_is_refused(lost, port):
    assert refused(lost, f"--port={port}", wanted=2) == "config.value"


def test_a_damaged_ledger_is_located_and_not_believed(lost):
    """In every copy of the entries that the store keeps: one that is superseded costs nothing."""
    for leaf in lost.offsite.glob("ledger/*/tile/entries/**/*"):
        if leaf.is_file():
            raw = leaf.read_bytes()
            leaf.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert refused(lost, "--port", "0", wanted=4).startswith("ledger.")


@pytest.mark.slow
def test_a_recovery_that_fails_can_be_run_again(lost, tmp_path):
    (tmp_path / "rubbish").write_bytes(b"rubbish")
    refused(lost, "--expect", tmp_path / "rubbish", wanted=4)
    recover(lost, "--port", "0")
    assert len(lost.json("models")) == 2


# ---- a certificate of the operator's own ---------------------------------------------------------


@pytest.mark.slow
def test_a_service_with_a_given_certificate_for_other_names_is_probed_all_the_same(one):
    pem, both = certificate("keep.example", address="10.0.0.7", ends_days=90)
    chain, key = one.folder / "chain.pem", one.folder / "key.pem"
    key.touch(mode=0o600)
    chain.write_bytes(pem)
    key.write_bytes(both.removeprefix(pem))
    one.configure("replicas = 2", f"replicas = 1\ncertificate = '{chain}'\nkey = 'file:{key}'")
    one.run("backup")
    one.destroy()
    chain.rename(chain.with_suffix(".away"))
    late = recover(one, "--port", "0", wanted=5)
    assert "[file.missing]" in late.err
    assert f"`modelkeep --keep {one.keep} serve`" in late.err
    chain.with_suffix(".away").rename(chain)
    (probe,) = recover(one, "--port", "0", "--json").json["result"]["probes"]
    assert probe == {"model": "digits:1", "is_proven": True}
