"""Stores in buckets keep the promises of the port, on servers that speak the real protocols."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from bucket_server import running_bucket
from object_servers import protected, running_azure, running_s3, s3_client

from modelkeep.adapters.stores import opened_store
from modelkeep.core.errors import (
    ConfigError,
    IntegrityError,
    KeepError,
    UnavailableError,
)
from modelkeep.testing.store_contract import StoreContract

COUNTER = itertools.count()


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def azure(tmp_path_factory):
    with running_azure(tmp_path_factory.mktemp("azure")) as server:
        yield server


class TestS3(StoreContract):
    @pytest.fixture
    def store(self, s3):
        return opened_store(s3.settings(f"contract/{next(COUNTER)}"))


class TestS3WithoutPrefixAndWithEveryWrapper(StoreContract):
    @pytest.fixture
    def store(self, s3, tmp_path):
        name = f"bucket-{next(COUNTER)}"
        client = s3_client(s3.endpoint)
        client.create_bucket(Bucket=name)
        client.close()
        settings = s3.settings("", url=f"s3://{name}", retries=2, cache_mb=1, bytes_per_s=10**9)
        store = opened_store(settings, keep_id="0123456789abcdef", cache=tmp_path)
        store._guard.is_ours = True
        return store


class TestAzure(StoreContract):
    @pytest.fixture
    def store(self, azure):
        return opened_store(azure.settings(f"contract/{next(COUNTER)}"))


class TestGoogleOnOurOwnServer(StoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        with running_bucket(tmp_path, kind="gs") as (server, _):
            yield opened_store(server.settings("contract"))


# ---- S3, on moto -----------------------------------------------------------------------------


def test_a_listing_goes_on_beyond_a_page(s3):
    store = opened_store(s3.settings("pages"))
    names = [f"tile/{number // 100:03d}/{number:05d}" for number in range(2100)]
    for name in names:
        s3.backend.put_object("keep", f"pages/{name}", b"12")
    assert [each.name for each in store.list("")] == names
    assert len(list(store.list("tile/01"))) == 1000
    assert len(list(store.list("tile/007/0070"))) == 10


def test_objects_of_others_are_neither_listed_nor_in_the_way(s3):
    store = opened_store(s3.settings("shared"))
    store.put("a", b"1")
    client = s3_client(s3.endpoint)
    for key in ("shared/Photo.JPG", "shared/.hidden", "shared-b/a", "shared/a b"):
        client.put_object(Bucket="keep", Key=key, Body=b"")
    client.close()
    assert [each.name for each in store.list("")] == ["a"]


def test_of_two_writers_the_first_one_stays(s3):
    first, second = (opened_store(s3.settings("race")) for _ in range(2))
    first.put("head/000000000001", b"first")
    with pytest.raises(IntegrityError, match=r"store\.exists"):
        second.put("head/000000000001", b"second")
    assert second.get("head/000000000001") == b"first"


def test_what_object_lock_holds_is_there_behind_the_mark_of_its_deletion(s3):
    """S3 answers a deletion with a mark: the versions stay until their retention ends.

    The retention is set by hand: with one of the bucket moto wants a header that S3 does not.
    """
    client = s3_client(s3.endpoint)
    store = opened_store(s3.settings("", url="s3://locked/keep"))
    store.put("object", b"bytes")
    until = datetime.now(UTC) + timedelta(days=1)
    retention = {"Mode": "COMPLIANCE", "RetainUntilDate": until}
    client.put_object_retention(Bucket="locked", Key="keep/object", Retention=retention)
    store.delete("object")
    assert store.stat("object") is None
    found = client.list_object_versions(Bucket="locked", Prefix="keep/object")
    version = found["Versions"][0]["VersionId"]
    with pytest.raises(client.exceptions.ClientError):
        client.delete_object(Bucket="locked", Key="keep/object", VersionId=version)
    mark = found["DeleteMarkers"][0]["VersionId"]
    client.delete_object(Bucket="locked", Key="keep/object", VersionId=mark)
    client.close()
    assert store.get("object") == b"bytes"


def test_the_environment_has_no_say(s3, monkeypatch):
    for name, value in {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_ENDPOINT": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "environment",
        "AWS_SECRET_ACCESS_KEY": "environment",
        "AWS_SESSION_TOKEN": "environment",
        "AWS_REGION": "nowhere-1",
        "AWS_SKIP_SIGNATURE": "true",
    }.items():
        monkeypatch.setenv(name, value)
    store = opened_store(s3.settings("environment"))
    store.put("object", b"bytes")
    assert store.get("object") == b"bytes"


# ---- wrong, slow and hostile servers ---------------------------------------------------------


@pytest.fixture
def place(tmp_path):
    with running_bucket(tmp_path) as (server, bucket):
        yield server, bucket


def code_of(call):
    with pytest.raises(KeepError) as failed:
        call()
    assert failed.value.message.startswith("remote: ")
    assert "canary-secret" not in str(failed.value.as_facts())
    return failed.value.code


def test_a_server_that_overwrites_is_refused(place):
    server, bucket = place
    bucket.lie = "overwrites"
    assert code_of(lambda: opened_store(server.settings("a")).put("head", b"1")) == (
        "store.conditional"
    )


@pytest.mark.parametrize("lie", ["longer", "shorter"])
def test_a_server_that_sends_too_much_or_too_little_changes_no_length(place, lie):
    server, bucket = place
    store = opened_store(server.settings("a"))
    store.put("object", b"0123456789" * 1000)
    bucket.lie = lie
    for start, length in ((0, 100), (5, 10), (0, None)):
        with contextlib.suppress(UnavailableError):
            assert len(store.get("object", start=start, length=length)) <= (length or 20_000)
    target = bytearray(50)
    with pytest.raises(UnavailableError):
        store.get_into("object", 0, memoryview(target))


def test_a_server_that_announces_a_terabyte_is_not_believed(place):
    server, bucket = place
    store = opened_store(server.settings("a", timeout_s=5.0))
    store.put("object", b"bytes")
    bucket.lie = "huge"
    assert code_of(lambda: store.get("object")) == "store.size"


@pytest.mark.parametrize("lie", ["endless", "unordered"])
def test_a_listing_without_order_or_end_is_cut_off(place, lie):
    server, bucket = place
    store = opened_store(server.settings("a"))
    for name in ("b", "c", "d"):
        store.put(name, b"")
    bucket.lie = lie
    assert code_of(lambda: list(store.list(""))) == "store.listing"


def test_a_server_that_says_nothing_costs_its_time_and_no_more(place):
    server, bucket = place
    store = opened_store(server.settings("a", timeout_s=0.3))
    bucket.lie = "silent"
    started = time.monotonic()
    assert code_of(lambda: store.get("object")) == "store.read"
    assert code_of(lambda: store.put("object", b"")) == "store.write"
    assert time.monotonic() - started < 5


def test_who_is_not_permitted_is_told_so(place):
    server, bucket = place
    store = opened_store(server.settings("a", retries=3))
    bucket.lie = "denied"
    for call in (
        lambda: store.get("object"),
        lambda: store.stat("object"),
        lambda: store.put("object", b""),
        lambda: store.delete("object"),
        lambda: list(store.list("")),
    ):
        bucket.requests.clear()
        assert code_of(call) == "store.denied"
        assert len(bucket.requests) == 1  # a refusal is not tried again


def test_a_locked_object_says_that_it_is(tmp_path):
    with running_bucket(tmp_path, kind="gs") as (server, bucket):
        store = opened_store(server.settings("a"))
        store.put("object", b"bytes")
        bucket.lie = "locked"
        assert code_of(lambda: store.delete("object")) == "store.locked"


def test_a_server_that_fails_one_call_in_three_ends_in_success(place):
    server, bucket = place
    store = opened_store(server.settings("a", retries=8))
    object.__setattr__(store, "_sleep", lambda _: None)
    bucket.fails_every = 3
    names = [f"object/{number:02d}" for number in range(20)]
    for name in names:
        store.put(name, name.encode())
    assert [each.name for each in store.list("")] == names
    assert [store.get(name) for name in names] == [name.encode() for name in names]
    assert all(store.stat(name) for name in names)


def test_without_retries_a_failure_is_an_error_and_no_loss(place):
    server, bucket = place
    store = opened_store(server.settings("a"))
    store.put("object", b"bytes")
    bucket.fails_every = 1
    assert code_of(lambda: store.put("other", b"bytes")) == "store.write"
    assert code_of(lambda: store.get("object")) == "store.read"
    assert code_of(lambda: list(store.list(""))) == "store.read"
    bucket.fails_every = 0
    assert store.get("object") == b"bytes"


# ---- who we are ------------------------------------------------------------------------------


def test_the_secret_is_in_no_request_and_no_error(place):
    server, bucket = place
    store = opened_store(server.settings("a"))
    store.put("object", b"bytes")
    assert "canary-secret" not in "".join(bucket.headers + bucket.requests)
    assert "AWS4-HMAC-SHA256" in bucket.headers[0]


def test_credentials_are_not_read_before_they_are_needed(place, tmp_path):
    server, _ = place
    missing = f"file:{tmp_path}/none"
    store = opened_store(server.settings("a", credentials=missing))
    with pytest.raises(KeepError):
        store.get("object")


@pytest.mark.parametrize("text", ["{}", "no json", '{"AccessKeyId": "a"}', "[]"])
def test_credentials_of_another_form_are_an_error(place, tmp_path, text):
    server, _ = place
    path = protected(tmp_path / "other.json", text)
    store = opened_store(server.settings("a", credentials=f"file:{path}"))
    with pytest.raises(KeepError):
        store.get("object")


def test_a_session_token_goes_along(place, tmp_path):
    server, bucket = place
    facts = {"AccessKeyId": "a", "SecretAccessKey": "b", "SessionToken": "session"}
    path = protected(tmp_path / "session.json", json.dumps(facts))
    opened_store(server.settings("a", credentials=f"file:{path}")).put("object", b"")
    assert "x-amz-security-token: session" in bucket.headers[0].lower()


def test_the_machines_own_role_is_no_key_from_the_environment(place, monkeypatch):
    server, _ = place
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    store = opened_store(server.settings("a", credentials="ambient"))
    with pytest.raises(ConfigError, match=r"store\.environment"):
        store.get("object")


def test_a_server_elsewhere_that_is_not_reached_is_unavailable(place):
    server, _ = place
    store = opened_store(server.settings("a", endpoint="http://127.0.0.1:1"))
    assert code_of(lambda: store.get("object")) == "store.read"
