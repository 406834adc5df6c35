"""A keep whose backups lie in a bucket and over SFTP, on real servers, comes back from either."""

from __future__ import annotations

import shutil
from urllib.parse import quote

import pytest
from command import CHEAP, PASSPHRASE, Desk
from object_servers import running_s3
from sftp_server import running_sftp

from modelkeep.adapters.store_settings import StoreSettings
from modelkeep.core.record import as_plain
from modelkeep.sdk.keep import Keep


def address(settings: StoreSettings) -> str:
    """A store as it is given on a command line."""
    usual = as_plain(StoreSettings(label=""))
    facts = {
        key: value
        for key, value in as_plain(settings).items()
        if value != usual[key] and key not in ("label", "url")
    }
    return f"{settings.url}?" + "&".join(
        f"{key}={quote(str(value))}" for key, value in facts.items()
    )


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    with (
        running_s3(tmp_path_factory.mktemp("s3")) as s3,
        running_sftp(tmp_path_factory.mktemp("sftp")) as sftp,
    ):
        yield {
            "cloud": address(s3.settings("keeps/one", cache_mb=10, retries=2)),
            "shell": address(sftp.settings("one", retries=2)),
        }


@pytest.fixture
def desk(tmp_path, elsewhere):
    desk = Desk(tmp_path)
    desk.passphrase_file.write_text(PASSPHRASE)
    desk.passphrase_file.chmod(0o600)
    with Keep.create(desk.keep, passphrase=PASSPHRASE, stores=elsewhere, port=0, argon2=CHEAP):
        pass
    return desk


@pytest.mark.slow
def test_a_keep_comes_back_from_a_bucket_and_over_sftp(desk, elsewhere):
    desk.admit()
    assert [(each["store"], each["is_whole"]) for each in desk.json("backup")] == [
        ("cloud", True),
        ("shell", True),
    ]
    assert desk.json("check", "--read-data")["findings"] == []
    for label in elsewhere:
        result = desk.json("drill", "--from", label)["result"]
        assert (result["source"], result["missed"]) == (label, [])
    for label in elsewhere:
        shutil.rmtree(desk.keep)
        desk.run("recover", desk.keep, "--from", elsewhere[label], "--port", 0)
        assert [each["name"] for each in desk.json("models")] == ["digits"]
        assert desk.json("check", "--read-data")["findings"] == []
        assert all(each["is_whole"] for each in desk.json("backup"))
