"""`modelkeep identity new`: the private half in a file of its own, the public half printed."""

from command import modelkeep


def test_the_private_half_stays_in_its_file(tmp_path):
    path = tmp_path / "me.key"
    said = modelkeep("identity", "new", "--output", path)
    text = path.read_text()
    secret = next(line for line in text.splitlines() if not line.startswith("#"))
    assert secret.startswith("MODELKEEP-SECRET-KEY-1")
    assert secret not in said.out + said.err
    assert path.stat().st_mode & 0o777 == 0o600
    keys = [line for line in said.out.splitlines() if not line.startswith("#")]
    assert [key[:4] for key in keys] == ["mkr1", "mkv1"]
    assert all(key in text for key in keys)


def test_programs_get_both_public_keys(tmp_path):
    said = modelkeep("identity", "new", "--output", tmp_path / "me.key", "--json").json
    assert said["file"] == str(tmp_path / "me.key")
    assert said["recipient"].startswith("mkr1")
    assert said["verifier"].startswith("mkv1")


def test_an_identity_is_never_replaced(tmp_path):
    path = tmp_path / "me.key"
    modelkeep("identity", "new", "--output", path)
    before = path.read_bytes()
    found = modelkeep("identity", "new", "--output", path, "--json", wanted=2)
    assert found.error["code"] == "file.exists"
    assert "--force" not in found.error["hint"]  # which there is none of
    assert path.read_bytes() == before


def test_two_identities_differ(tmp_path):
    one, two = (
        modelkeep("identity", "new", "--output", tmp_path / name, "--json").json for name in "ab"
    )
    assert one["recipient"] != two["recipient"]
    assert one["verifier"] != two["verifier"]
