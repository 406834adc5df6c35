"""`modelkeep dependencies`: vulnerable, clean, or not assessed, and the exit status says which."""

import datetime
import json

import pytest
from command import Desk, modelkeep
from osv_records import exported, ranged, record

from modelkeep.adapters.installed_packages import installed_packages

NOW = datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
OLD = ranged(("introduced", "0"), ("fixed", "6.1"))
LOCK = "tornado==6.0 \\\n    --hash=sha256:" + "a1" * 32 + "\nnumpy==2.0\n"


@pytest.fixture
def osv(tmp_path):
    """An export in which one version of one package is affected."""
    return exported(tmp_path, record("tornado", OLD, modified=NOW, aliases=["CVE-2020-1"]))


def written(path, text):
    path.write_text(text)
    return path


def test_what_is_vulnerable_is_named_with_its_remedy(tmp_path, osv):
    lock = written(tmp_path / "requirements.lock", LOCK)
    said = modelkeep("dependencies", lock, "--advisories", osv, wanted=3)
    assert "tornado 6.0  vulnerable  GHSA-1, CVE-2020-1" in said.out
    assert "1 vulnerable, 1 clean, 0 not assessed; 1 advisories, the newest of" in said.out
    assert "numpy" not in said.out
    found = modelkeep("dependencies", lock, "--advisories", osv, "--json", wanted=3).json
    assert found["counts"] == {"vulnerable": 1, "clean": 1, "not_assessed": 0}
    assert (found["is_passed"], found["advisories"]) == (False, 1)
    package = found["packages"][0]
    assert (package["name"], package["standing"]) == ("tornado", "vulnerable")
    assert package["flaws"][0]["fixed"] == ["6.1"]
    assert package["place"] == "requirements.lock:1"


def test_all_clean_is_the_only_good_end(tmp_path, osv):
    clean = written(tmp_path / "requirements.txt", "tornado==6.1\nnumpy==2.0\n")
    said = modelkeep("dependencies", clean, "--advisories", osv, "--all")
    assert "numpy 2.0    clean  against 1 advisories" in said.out
    unpinned = written(tmp_path / "loose.txt", "tornado==6.1\nnumpy\n")
    said = modelkeep("dependencies", unpinned, "--advisories", osv, wanted=3)
    assert "numpy    not assessed  no single version is named" in said.out
    old = exported(tmp_path, record("tornado", OLD, modified="2020-01-01T00:00:00Z"))
    said = modelkeep("dependencies", clean, "--advisories", old, wanted=3)
    assert "0 clean, 2 not assessed" in said.out
    modelkeep("dependencies", clean, "--advisories", old, "--age-days-max", 36_500)


def test_what_is_tolerated_passes_until_its_date(tmp_path, osv):
    lock = written(tmp_path / "requirements.lock", LOCK)
    words = ("dependencies", lock, "--advisories", osv)
    one = '[[tolerated]]\nid = "CVE-2020-1"\nwhy = "no server here"\nuntil = 2999-01-31\n'
    lived = written(tmp_path / "tolerated.toml", one)
    said = modelkeep(*words, "--tolerate", lived)
    assert "tolerated: no server here (until 2999-01-31)" in said.out
    lived.write_text(one.replace("2999", "2020"))
    said = modelkeep(*words, "--tolerate", lived, wanted=3)
    assert "CVE-2020-1 since 2020-01-31 is tolerated no more" in said.err
    for wrong in (one.replace('why = "no server here"\n', ""), "count_min = 5\n" + one, "="):
        lived.write_text(wrong)
        error = modelkeep(*words, "--tolerate", lived, "--json", wanted=2).error
        assert error["code"] == "dependencies.tolerated"
    age = modelkeep(*words, "--age-days-max", 0, "--json", wanted=2).error
    assert age["code"] == "dependencies.age"


def test_the_keep_says_where_the_advisories_are_and_what_is_tolerated(tmp_path, osv):
    desk = Desk.made(tmp_path / "desk", second=False)
    tolerated = '[[advisories.tolerated]]\nid = "GHSA-1"\nwhy = "x"\nuntil = 2999-01-31\n'
    table = f'[advisories]\nfile = "{osv}"\n'
    desk.config.write_text(desk.config.read_text() + table + tolerated)
    lock = written(tmp_path / "requirements.lock", LOCK)
    modelkeep("--keep", desk.keep, "dependencies", lock)
    modelkeep("dependencies", lock, "--advisories", osv, wanted=3)
    error = modelkeep("dependencies", lock, "--json", wanted=2).error
    assert error["code"] == "dependencies.advisories"


def test_folders_bills_and_this_environment_are_assessed(tmp_path, osv):
    model = tmp_path / "model"
    (model / "code").mkdir(parents=True)
    (model / "weights.bin").write_bytes(b"\0")
    (model / "code" / "requirements.txt").write_text("-r ../../outside.txt\ntornado==6.0\n")
    (tmp_path / "outside.txt").write_text("numpy==2.0\n")
    env = "python: 3.11\ndependencies:\n- -r code/requirements.txt\n"
    (model / "python_env.yaml").write_text(env)
    words = ("--advisories", osv, "--json")
    found = modelkeep("dependencies", model, *words, wanted=3).json["packages"]
    assert sorted(each["name"] for each in found) == ["../../outside.txt", "tornado"]
    bill = tmp_path / "sbom.json"
    modelkeep("sbom", model / "code" / "requirements.txt", "--output", bill)
    found = modelkeep("dependencies", bill, *words, wanted=3).json["packages"]
    assert {each["name"] for each in found} == {"../../outside.txt", "tornado"}
    found = modelkeep("dependencies", *words, wanted=None).json["packages"]
    assert [each["name"] for each in found] == [each.name for each in installed_packages()]
    empty = written(tmp_path / "empty.txt", "# nothing\n")
    assert modelkeep("dependencies", empty, *words, wanted=2).error["code"] == "dependencies.none"


def test_a_file_that_leads_out_of_its_folder_shows_nothing_of_what_lies_there(tmp_path, osv):
    (tmp_path / "in").mkdir()
    written(tmp_path / "secret", "password\n")
    (tmp_path / "in" / "link.txt").symlink_to(tmp_path / "secret")
    text = f"-r ../secret\n-r {tmp_path}/secret\n-r link.txt\ntornado==6.1\n"
    lock = written(tmp_path / "in" / "r.txt", text)
    said = modelkeep("dependencies", lock, "--advisories", osv, wanted=3)
    assert "password" not in said.out + said.err
    assert said.out.count("lies outside of the folder, and is not followed") == 2


def test_a_folder_of_records_is_an_export_and_a_broken_one_is_none(tmp_path):
    lock = written(tmp_path / "requirements.lock", LOCK)
    folder = tmp_path / "osv"
    (folder / "PyPI").mkdir(parents=True)
    each = written(
        folder / "PyPI" / "GHSA-1.json", json.dumps(record("tornado", OLD, modified=NOW))
    )
    words = ("dependencies", lock, "--advisories", folder, "--json")
    assert modelkeep(*words, wanted=3).json["counts"]["vulnerable"] == 1
    each.write_text("{")
    assert modelkeep(*words, wanted=4).error["code"] == "advisories.record"
    words = ("dependencies", lock, "--advisories", tmp_path / "no", "--json")
    assert modelkeep(*words, wanted=5).error["code"] == "file.missing"
