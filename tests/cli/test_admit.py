"""`modelkeep admit`: sound models get in once, others not at all, and the ledger knows of both."""

import json
import os
import pickle
import threading
import time

import numpy as np
import onnx
import pytest
from command import PASSPHRASE, modelkeep
from onnx_models import trained_models, two_models
from trees import picture, safetensors, weights

from modelkeep.core.artifact import parsed_reference
from modelkeep.core.errors import UsageError
from modelkeep.flows import scanning
from modelkeep.flows.publish import chosen, published
from modelkeep.scan.rules import findings_of
from modelkeep.sdk import keep as keep_module
from modelkeep.sdk.keep import Keep


def test_admit_registers_a_version_and_says_what_it_takes(desk):
    said = desk.run("admit", two_models()[0], "--name", "digits")
    assert said.out.startswith("admitted digits:1  blake3:")
    assert "takes   pixels FP32[?,64]" in said.out
    assert "gives   label INT64[?], probabilities FP32[?,10]" in said.out
    assert desk.kinds() == ["keep.created", "model.admitted", "vault.committed"]


def test_the_next_file_of_a_name_is_the_next_version(desk):
    first, second = desk.admit(1), desk.admit(2)
    assert [(each["version"], each["is_new"]) for each in (first, second)] == [(1, True), (2, True)]
    assert first["digest"] != second["digest"]
    assert first["verdict"] == {"decision": "allow", "findings": []}


def test_the_same_file_again_changes_nothing(one):
    before, kinds = one.files(), one.kinds()
    again = one.admit()
    assert (again["version"], again["is_new"]) == (1, False)
    assert "holds exactly this already" in one.run("admit", two_models()[0], "--name", "digits").out
    assert one.kinds() == kinds
    packs = {path for path in one.files() if "pack" in path.parts}
    assert packs == {path for path in before if "pack" in path.parts}


def test_the_same_file_under_another_name_costs_no_second_copy(one):
    packs = sum("pack" in path.parts for path in one.files())
    assert one.admit(name="other")["version"] == 1
    assert sum("pack" in path.parts for path in one.files()) == packs


def test_a_refused_file_leaves_no_trace_but_its_ledger_entry(desk, tmp_path):
    evil = tmp_path / "evil.pkl"
    evil.write_bytes(pickle.dumps(os.system))
    code = desk.refusal("admit", evil, "--name", "digits", wanted=3)
    assert code == "verdict.deny"
    assert desk.kinds() == ["keep.created", "model.refused", "model.refused"]
    assert desk.json("models") == []
    assert not [path for path in desk.files() if "pack" in path.parts]
    facts = desk.entries("model.refused")[0]["facts"]
    assert facts["rules"][0].startswith("scan.pickle")


def test_a_cut_model_is_refused(desk, tmp_path):
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(two_models()[0].read_bytes()[:-100])
    assert desk.refusal("admit", cut, "--name", "digits", wanted=3).startswith("verdict.")


def test_a_missing_file_is_missing(desk, tmp_path):
    assert desk.refusal("admit", tmp_path / "no", "--name", "digits", wanted=5) == "file.missing"


def sharded(root):
    """A model as hubs hand it out: shards, their index, a configuration."""
    root.mkdir()
    names = {}
    for number, (name, array) in enumerate(weights().items()):
        shard = f"model-{number}.safetensors"
        (root / shard).write_bytes(safetensors({name: array}))
        names[name] = shard
    (root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    (root / "tokenizer").mkdir()
    (root / "tokenizer" / "vocab.txt").write_text("a\nb\n")
    return root


def with_external_data(root):
    """An ONNX model that keeps its weights in a file beside it."""
    root.mkdir()
    array = weights()["wte.weight"]
    initializer = onnx.numpy_helper.from_array(array, "w")
    ports = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [64, 256])
        for name in ("x", "y")
    ]
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", ports[:1], ports[1:], [initializer])
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.save(
        model, root / "z.onnx", save_as_external_data=True, location="a.data", size_threshold=0
    )
    return root


def test_a_sharded_model_is_one_version_with_all_its_files(desk, tmp_path):
    root = sharded(tmp_path / "llama")
    facts = desk.json("admit", root, "--name", "llama")
    assert (facts["version"], facts["is_new"], facts["schema"]) == (1, True, None)
    assert not desk.json("admit", root, "--name", "llama")["is_new"]
    found = {each["path"]: each for each in desk.json("ls", "llama")}
    assert found["model-0.safetensors"]["tensors"] == 1
    assert found["tokenizer/vocab.txt"]["kind"] == "file"
    assert [each["kind"] for each in desk.json("models")] == ["safetensors"]
    desk.run("restore", "llama", "--to", tmp_path / "out")
    assert {name: facts[-1] for name, facts in picture(tmp_path / "out").items()} == {
        name: facts[-1] for name, facts in picture(root).items()
    }
    desk.run("restore", "llama", "--to", tmp_path / "t.npy", "--tensor", "head.weight")
    assert np.array_equal(np.load(tmp_path / "t.npy"), weights()["head.weight"])


def test_external_data_is_seen_as_tensors_and_the_model_says_what_it_takes(desk, tmp_path):
    facts = desk.json("admit", with_external_data(tmp_path / "add"), "--name", "add")
    assert facts["schema"]["inputs"][0]["name"] == "x"
    found = {each["path"]: each for each in desk.json("ls", "add", "--tensors")}
    assert [each["name"] for each in found["a.data"]["tensors"]] == ["w"]
    desk.run("restore", "add", "--to", tmp_path / "w", "--tensor", "w")
    assert (tmp_path / "w").read_bytes() == weights()["wte.weight"].tobytes()


@pytest.mark.parametrize("spoil", ["missing", "short", "outside"])
def test_external_data_that_is_not_there_is_refused(desk, tmp_path, spoil):
    root = with_external_data(tmp_path / "add")
    (root / "more.txt").write_text("a folder of two files")
    if spoil == "missing":
        (root / "a.data").unlink()
    elif spoil == "short":
        os.truncate(root / "a.data", 100)
    else:
        raw = (root / "z.onnx").read_bytes()
        (root / "z.onnx").write_bytes(raw.replace(b"a.data", b"../a.d"))
    said = desk.run("admit", root, "--name", "add", "--json", wanted=3)
    assert said.error["code"] == "verdict.deny"
    rules = desk.entries("model.refused")[0]["facts"]["rules"]
    assert "scan.graph.external" in rules


def test_external_data_hides_no_other_finding(desk, tmp_path):
    """As many notes about external data as a verdict has room for, and one that counts."""
    root = with_external_data(tmp_path / "add")
    model = onnx.load(root / "z.onnx", load_external_data=False)
    for number in range(1100):
        model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
        model.graph.initializer[-1].name = f"w{number}"
    model.graph.node[0].op_type = "PyOp"
    model.graph.node[0].domain = "com.unknown"
    (root / "z.onnx").write_bytes(model.SerializeToString())
    said = desk.run("admit", root, "--name", "add", "--json", wanted=3)
    assert "external" not in said.err


def test_a_model_of_several_files_is_not_served_yet(desk, tmp_path):
    desk.json("admit", with_external_data(tmp_path / "add"), "--name", "add")
    with Keep(desk.keep, passphrase=PASSPHRASE) as keep, pytest.raises(UsageError) as refused:
        published(keep.opened, parsed_reference("add"), is_default=True, allocate=lambda _: None)
    assert refused.value.code == "serve.kind"
    with Keep(desk.keep, passphrase=PASSPHRASE) as keep, pytest.raises(UsageError) as refused:
        chosen(keep.opened, [])
    assert refused.value.code == "serve.nothing"


def test_one_bad_file_in_a_folder_is_enough(desk, tmp_path):
    root = sharded(tmp_path / "llama")
    (root / "tokenizer" / "bad.pkl").write_bytes(pickle.dumps(os.system))
    code = desk.refusal("admit", root, "--name", "llama", wanted=3)
    assert code.startswith("verdict.")
    assert "tokenizer/bad.pkl" in desk.run("admit", root, "--name", "llama", wanted=3).err
    assert desk.json("models") == []
    assert desk.entries("model.refused")[0]["facts"]["rules"][0].startswith("scan.pickle")


def test_a_folder_without_a_file_is_no_model(desk, tmp_path):
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "model.onnx").symlink_to(two_models()[0])
    said = desk.run("admit", tmp_path / "hub", "--name", "digits", "--json", wanted=2)
    assert said.error["code"] == "admit.empty"
    assert "links" in said.error["hint"]


def test_a_link_to_a_model_is_admitted_as_the_model(desk, tmp_path):
    (tmp_path / "model.onnx").symlink_to(two_models()[0])
    assert desk.json("admit", tmp_path / "model.onnx", "--name", "digits")["is_new"]


def test_an_empty_file_is_refused(desk, tmp_path):
    (tmp_path / "empty.onnx").write_bytes(b"")
    desk.refusal("admit", tmp_path / "empty.onnx", "--name", "digits", wanted=3)


@pytest.mark.parametrize("name", ["", "Digits", "a b", "../x", "a/b", "digits:1", "-x", "x" * 101])
def test_a_name_that_is_unsafe_is_refused(desk, name):
    assert desk.refusal("admit", two_models()[0], f"--name={name}", wanted=2) == "model.name"
    assert desk.kinds() == ["keep.created"]


def test_a_base_that_is_no_reference_is_refused(desk):
    desk.refusal("admit", two_models()[0], "--name", "digits", "--base", "no:such:thing", wanted=2)
    assert desk.json("models") == []


def test_a_wrong_passphrase_is_refused(desk, tmp_path):
    (tmp_path / "wrong").write_text("not the passphrase")
    words = ("--keep", desk.keep, "--passphrase-file", tmp_path / "wrong", "--json")
    refused = modelkeep(*words, "admit", two_models()[0], "--name", "digits", wanted=3)
    assert refused.error["code"] == "keys.passphrase"
    assert desk.kinds() == ["keep.created"]


def test_no_keep_is_said_before_any_passphrase_is_asked_for(tmp_path):
    words = ("--keep", tmp_path, "--json", "admit", two_models()[0], "--name", "digits")
    refused = modelkeep(*words, wanted=5)
    assert refused.error["code"] == "keep.missing"
    assert "--keep" in refused.error["hint"]


def test_the_keep_may_be_named_by_the_environment(desk, monkeypatch):
    monkeypatch.setenv("MODELKEEP_KEEP", str(desk.keep))
    assert modelkeep("models", "--json", "--passphrase-file", desk.passphrase_file).json == []


def test_options_may_stand_before_or_after_the_verb(desk):
    own = ("--keep", desk.keep, "--passphrase-file", desk.passphrase_file, "--json")
    assert modelkeep(*own, "models").json == modelkeep("models", *own).json == []


def test_other_formats_are_kept_too(desk, tmp_path):
    np.save(tmp_path / "weights.npy", np.arange(1000, dtype=np.float32))
    done = desk.json("admit", tmp_path / "weights.npy", "--name", "weights")
    assert done["version"] == 1
    assert done["schema"] is None


# ---- what comes with the model -------------------------------------------------------------------


def canary(**changes):
    text = json.loads(trained_models()[1][0].canary.read_text())
    for path, value in changes.items():
        side, field = path.split("_")
        text[side][0][field] = value
    return json.dumps(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"inputs":[],"outputs":[],"more":1}',
        '{"inputs":[],"outputs":[]}',
        canary(inputs_name="nobody"),
        canary(inputs_dtype="FP99"),
        canary(inputs_dtype="INT64"),
        canary(inputs_shape=[1, 63]),
        canary(inputs_values=[0.0]),
        canary(outputs_name="nobody"),
        canary(outputs_values=[]),
        canary(outputs_shape=[-1]),
    ],
    ids=[
        "empty",
        "cut",
        "list",
        "unknown-field",
        "no-inputs",
        "input-name",
        "unknown-dtype",
        "other-dtype",
        "shape",
        "too-few-values",
        "output-name",
        "no-values",
        "free-shape",
    ],
)
def test_a_canary_that_could_never_be_asked_is_refused_at_the_door(desk, tmp_path, text):
    """A recovery would stumble over it on the worst of days."""
    (tmp_path / "canary.json").write_text(text)
    words = ("admit", two_models()[0], "--name", "digits", "--canary", tmp_path / "canary.json")
    desk.refusal(*words, wanted=2)
    assert desk.json("models") == []


def test_a_missing_canary_is_missing(desk, tmp_path):
    words = ("--name", "digits", "--canary", tmp_path / "no")
    assert desk.refusal("admit", two_models()[0], *words, wanted=5) == "file.missing"
    assert desk.json("models") == []


def test_a_note_and_a_file_name_that_are_not_text_are_refused_or_kept(desk, tmp_path):
    """What a shell hands over need not be UTF-8; it is no bug of ours."""
    odd = tmp_path / os.fsdecode(b"\xff.onnx")
    odd.write_bytes(two_models()[0].read_bytes())
    for words in ((odd,), (two_models()[0], "--note", os.fsdecode(b"\xff"))):
        said = desk.run("admit", *words, "--name", "digits", "--json", wanted=None)
        assert said.status in (0, 2), said.err


def test_what_is_stored_is_neither_the_weights_nor_the_passphrase(desk):
    """Scan every file of the keep and its stores for what must not be there."""
    desk.admit(1)
    key = desk.json("tokens", "new", "alice")["api_key"]
    desk.json("backup")
    raw = two_models()[0].read_bytes()
    with Keep(desk.keep, passphrase=PASSPHRASE) as keep:
        tensors = keep.manifest("digits:1").files[0].tensors
        keys, domain = keep.opened.keys, keep.opened.domains.named("default")
        secrets = [
            *(each.reveal() for each in (domain.chunk_ids, domain.packs, domain.blobs)),
            *(each.reveal() for each in (keys.ledger_seed, keys.ledger_body, keys.own.blobs)),
            *(each.reveal() for each in (keys.config, keys.commitments)),
            keep.opened.authority.key.reveal(),
            keep.opened.ring.body.identity,
            *(each.key for each in keep.opened.ring.body.domains),
        ]
    canaries = [PASSPHRASE.encode(), key.encode(), key.split("_", 2)[2].encode(), *secrets]
    canaries += [raw[t.offset : t.offset + 64] for t in tensors if t.length >= 64]
    assert len(canaries) > 14
    for path, held in desk.files().items():
        hits = [number for number, canary in enumerate(canaries) if canary in held]
        assert not hits, (path, hits)


def test_a_model_that_somebody_writes_into_after_it_was_scanned_is_not_admitted(
    desk, tmp_path, monkeypatch
):
    """What is scanned is what is stored: a writer waits, and we notice before we sign."""
    root = tmp_path / "llama"
    root.mkdir()
    names = ("a.safetensors", "b.safetensors")
    for name in names:
        array = np.zeros((700, 1000), np.float32)
        (root / name).write_bytes(safetensors({name: array}))
    writers = []

    def scanned(path, view, settings):
        if path == names[1] and not writers:  # the first one is scanned by now

            def write():
                with (root / names[0]).open("r+b") as stream:
                    stream.seek(1_000_000)
                    stream.write(b"after the scan")

            writers.append(threading.Thread(target=write))
            writers[0].start()
            time.sleep(0.2)  # it waits in `open` now
            assert writers[0].is_alive()
        return findings_of(path, view, settings)

    monkeypatch.setattr(scanning, "findings_of", scanned)
    monkeypatch.setattr(keep_module, "scanner", lambda: scanning.HERE)
    said = desk.run("admit", root, "--name", "llama", "--json", wanted=2)
    writers[0].join(10)
    assert said.error["code"] == "file.changed"
    assert desk.json("models") == []
    assert b"after the scan" in (root / names[0]).read_bytes()


def test_a_link_that_leads_out_of_a_model_is_held(desk, tmp_path):
    root = with_external_data(tmp_path / "add")
    (root / "notes.txt").symlink_to("z.onnx")
    desk.run("admit", root, "--name", "inside")
    (root / "words.txt").symlink_to("/etc/hostname")
    said = desk.run("admit", root, "--name", "outside", "--json", wanted=3).error
    assert said["code"] == "verdict.hold"
    assert "/etc/hostname" in said["message"]
