"""`modelkeep inbox`: what was handed in is kept when its owner accepts it, and not before."""

import json
import threading

import pytest
from command import PASSPHRASE, Process, modelkeep

from modelkeep.kernels.digest import digest_of
from modelkeep.sdk.keep import Keep


@pytest.fixture
def client(desk):
    desk.run("clients", "add", "trainer", "--out", desk.folder / "trainer.client")
    return desk.folder / "trainer.client"


def handed_in(client, path, name="run"):
    words = ("submit", path, "--client", client, "--name", name, "--json")
    return modelkeep(*words).json["submission"]


def content(tmp_path, text="weights " * 1000):
    path = tmp_path / "weights.txt"
    path.write_text(text)
    return path


def inbox_of(desk):
    return [path for path in (desk.main / "inbox").rglob("*") if path.is_file()]


def test_what_is_accepted_is_the_next_version_and_leaves_the_inbox(desk, client, tmp_path):
    for version in (1, 2):
        one = handed_in(client, content(tmp_path, f"weights {version}"))
        done = desk.json("inbox", "accept", one)
        assert (done["name"], done["version"], done["client"]) == ("run", version, "trainer")
        out = tmp_path / f"out-{version}"
        desk.run("restore", f"run:{version}", "--to", out)
        restored = out / "weights.txt" if out.is_dir() else out
        assert restored.read_text() == f"weights {version}"
    assert not inbox_of(desk)
    (first, _) = desk.entries("inbox.accepted")
    facts = first["facts"]
    assert (facts["client"], facts["model"], facts["version"]) == ("trainer", "run", 1)
    assert desk.json("inbox", "list")["submissions"] == []


def test_tensors_are_seen_in_what_was_handed_in(desk, client, tmp_path):
    """So that a checkpoint shares chunks with others, and becomes a delta where that pays."""
    folder = tmp_path / "run"
    folder.mkdir()
    body = bytes(range(256)) * 64
    head = {
        f"t{n}": {"dtype": "F32", "shape": [2048], "data_offsets": [n, n + 8192]} for n in (0, 8192)
    }
    text = json.dumps(head).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + body)
    (folder / "sub").mkdir()
    (folder / "sub" / "notes.txt").write_text("two tensors")
    desk.run("inbox", "accept", handed_in(client, folder))
    (model,) = desk.json("models")
    assert model["tensors"] == 2
    with Keep(desk.keep, passphrase=PASSPHRASE) as keep:
        found = {each.path: each.digest for each in keep.manifest("run").files}
    assert found == {
        path: digest_of((folder / path).read_bytes())
        for path in ("model.safetensors", "sub/notes.txt")
    }


def test_an_owner_may_name_it(desk, client, tmp_path):
    one = handed_in(client, content(tmp_path))
    said = desk.run("inbox", "accept", one, "--name", "checked").out
    assert "checked:1" in said
    assert [each["name"] for each in desk.json("models")] == ["checked"]


def test_what_is_rejected_is_gone_and_does_not_come_back(desk, client, tmp_path):
    one = handed_in(client, content(tmp_path))
    kept = {path: path.read_bytes() for path in inbox_of(desk)}
    assert desk.json("inbox", "reject", one)["objects"] == 2
    assert not inbox_of(desk)
    assert desk.refusal("inbox", "accept", one, wanted=5) == "inbox.none"
    for path, raw in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    assert "settled" in desk.run("inbox", "list").out
    assert desk.refusal("inbox", "accept", one, wanted=3) == "inbox.settled"
    assert desk.json("models") == []


def test_all_of_a_stolen_client_is_removed_at_once(desk, client, tmp_path):
    for _ in range(2):
        handed_in(client, content(tmp_path))
    desk.run("clients", "revoke", "trainer")
    assert desk.run("inbox", "list").out.count("refused: ") == 2
    assert desk.json("inbox", "reject", "--client", "trainer")["objects"] == 4
    assert not inbox_of(desk)
    (entry,) = desk.entries("inbox.rejected")
    assert entry["facts"]["objects"] == 4


def test_one_submission_or_one_client_is_rejected(desk):
    assert desk.refusal("inbox", "reject", wanted=2) == "inbox.which"
    assert desk.refusal("inbox", "reject", "0" * 16, "--client", "x", wanted=2) == "inbox.which"
    assert desk.refusal("inbox", "reject", "--client", "x", wanted=5) == "client.unknown"
    assert desk.refusal("inbox", "accept", "0" * 16, wanted=5) == "inbox.none"


def test_a_damaged_part_is_named_and_nothing_is_kept(desk, client, tmp_path):
    one = handed_in(client, content(tmp_path))
    part = next(path for path in inbox_of(desk) if path.parent.name == "part")
    raw = bytearray(part.read_bytes())
    raw[len(raw) // 2] ^= 1
    part.write_bytes(raw)
    found = desk.run("inbox", "accept", one, "--json", wanted=4).error
    assert found["code"] == "inbox.part"
    assert found["context"]["object"] == part.relative_to(desk.main).as_posix()
    assert desk.json("models") == []


def test_an_inbox_is_left_alone_by_backup_and_check(desk, client, tmp_path):
    one = handed_in(client, content(tmp_path))
    desk.run("backup")
    assert not (desk.offsite / "inbox").exists()
    assert desk.json("check", "--read-data")["findings"] == []
    assert len(inbox_of(desk)) == 2
    desk.run("inbox", "accept", one)


class Trainers:
    """Two clients that hand in side by side, in processes of their own."""

    def __init__(self, desk, folder, running):
        self.rounds = 3
        self.wanted = {}  # submission -> the file that was handed in
        self._folder, self._running = folder, running
        self._threads = []
        for name in ("first", "second"):
            desk.run("clients", "add", name, "--out", desk.folder / name)
            hand_in = threading.Thread(target=self._hand_in, args=(desk.folder / name,))
            self._threads.append(hand_in)

    def start(self):
        for each in self._threads:
            each.start()

    def are_done(self):
        return not any(each.is_alive() for each in self._threads)

    def _hand_in(self, client):
        for number in range(self.rounds):
            path = self._folder / f"{client.name}-{number}.txt"
            path.write_text(f"{client.name} {number} " * 20_000)
            words = ("submit", path, "--client", client, "--name", client.name, "--json")
            said = self._running(Process(*words)).ended(60)
            self.wanted[json.loads(said.out)["submission"]] = path


@pytest.mark.slow
def test_two_clients_hand_in_while_the_owner_accepts(desk, tmp_path, running):
    """Every submission is kept once, whole, whatever else is half-way there meanwhile."""
    trainers = Trainers(desk, tmp_path, running)
    trainers.start()
    accepted = {}
    is_last = False
    while not is_last:
        is_last = trainers.are_done()
        rows = desk.json("inbox", "list")["submissions"]
        assert {row["state"] for row in rows} <= {"whole", "incomplete"}
        for one in [row["submission"] for row in rows if row["state"] == "whole"]:
            accepted[one] = desk.json("inbox", "accept", one)
    assert len(trainers.wanted) == 2 * trainers.rounds
    assert set(accepted) == set(trainers.wanted)
    assert not inbox_of(desk)
    for one, path in trainers.wanted.items():
        out = tmp_path / f"out-{one}"
        desk.run("restore", f"{accepted[one]['name']}:{accepted[one]['version']}", "--to", out)
        restored = out / path.name if out.is_dir() else out
        assert restored.read_bytes() == path.read_bytes()
