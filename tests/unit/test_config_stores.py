"""[[stores]]: one place each, whom to trust there, and no secret in an address."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.adapters.store_settings import (
    StorePlace,
    StoreSettings,
    given_store,
    parsed_place,
)
from modelkeep.config import new_config_text, parsed_config, parsed_store
from modelkeep.core.errors import ConfigError, KeepError
from modelkeep.ports.keyholder import Means
from modelkeep.sdk.restoration import UNCONFIRMED, Plan, _config_text
from modelkeep.wiring import encodings_of

KEEP_ID = "0123456789abcdef"
MAIN = '[[stores]]\nlabel = "main"\npath = "stores/main"\n'
KEY = 'credentials = "file:/etc/keep/key"\n'
PIN = 'known_hosts = "/etc/keep/known_hosts"\n'


def parsed(more, first=MAIN):
    text = f'keep_id = "{KEEP_ID}"\n{first}[[stores]]\nlabel = "off"\n{more}'
    return parsed_config(text.encode(), what="modelkeep.toml").stores[-1]


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://bucket", {"kind": "s3", "bucket": "bucket"}),
        ("s3://a.b-c/keep/One", {"kind": "s3", "bucket": "a.b-c", "prefix": "keep/One"}),
        ("gs://bucket/p/", {"kind": "gs", "bucket": "bucket", "prefix": "p"}),
        ("az://account/box/p", {"kind": "az", "host": "account", "bucket": "box", "prefix": "p"}),
        (
            "sftp://me@nas:2022/srv/keep",
            {"kind": "sftp", "user": "me", "host": "nas", "port": 2022, "folder": "/srv/keep"},
        ),
        (
            "sftp://me@[::1]/~/keep",
            {"kind": "sftp", "user": "me", "host": "[::1]", "port": 22, "folder": "~/keep"},
        ),
    ],
)
def test_an_address_has_parts(url, place):
    assert parsed_place(url) == StorePlace(**place)


@pytest.mark.parametrize(
    "url",
    [
        "s3://KEY:SECRET@bucket",
        "s3://bucket/../other",
        "s3://bucket//x",
        "s3://bucket/?secret=x",
        "S3://bucket",
        "http://bucket",
        "sftp://nas/keep",
        "sftp://me:password@nas/keep",
        "sftp://me@nas",
        "sftp://me@nas:99999/keep",
        "sftp://me@nas/../keep",
        "az://account",
        "file:///etc",
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated(url):
    with pytest.raises(ConfigError, match=r"store\.url") as refused:
        parsed(f'url = "{url}"\n{KEY}')
    assert url not in str(refused.value.as_facts())


@pytest.mark.parametrize(
    "more",
    [
        "",
        f'path = "x"\nurl = "s3://bucket"\n{KEY}',
        f'path = "x"\n{KEY}',
        'path = "x"\nregion = "eu-west-1"\n',
        'path = "x"\nencoding = "best"\n',
        'path = "x"\nretries = 21\n',
        'path = "x"\nretries = -1\n',
        'path = "x"\ntimeout_s = 0.0\n',
        'path = "x"\ntimeout_s = nan\n',
        'path = "x"\ncache_mb = -1\n',
        'path = "x"\nbytes_per_s = -1\n',
        'url = "s3://bucket"\n',
        f'url = "s3://bucket"\nregion = "EU west"\n{KEY}',
        f'url = "gs://bucket"\nregion = "eu"\n{KEY}',
        f'url = "s3://bucket"\nendpoint = "minio:9000"\n{KEY}',
        f'url = "s3://bucket"\nendpoint = "http://minio:9000"\n{KEY}',
        f'url = "s3://bucket"\nendpoint = "http://127.0.0.1.evil.org"\n{KEY}',
        f'url = "s3://bucket"\nendpoint = "https://me:secret@minio"\n{KEY}',
        f'url = "s3://bucket"\n{KEY}{PIN}',
        f'url = "sftp://me@nas/keep"\n{KEY}',
        f'url = "sftp://me@nas/keep"\n{KEY}known_hosts = "known_hosts"\n',
        f'url = "sftp://me@nas/keep"\n{KEY}known_hosts = "SHA256:short"\n',
        f'url = "sftp://me@nas/keep"\ncredentials = "ambient"\n{PIN}',
        f'url = "sftp://me@nas/keep"\nendpoint = "https://x"\n{KEY}{PIN}',
        f'url = "sftp://me@nas/keep"\nallow_http = true\n{KEY}{PIN}',
    ],
)
def test_a_store_that_cannot_be_is_refused(more):
    with pytest.raises(ConfigError, match=r"config\.value"):
        parsed(more)


@pytest.mark.parametrize(
    "more",
    [
        'path = "x"\nencoding = "fast"\nbytes_per_s = 1000\n',
        f'url = "s3://bucket"\nregion = "eu-west-1"\n{KEY}',
        'url = "s3://bucket"\ncredentials = "ambient"\n',
        f'url = "s3://bucket"\nendpoint = "http://127.0.0.1:9000"\n{KEY}',
        f'url = "s3://bucket"\nendpoint = "http://[::1]:9000"\n{KEY}',
        f'url = "s3://bucket"\nendpoint = "http://minio:9000"\nallow_http = true\n{KEY}',
        f'url = "az://account/box"\nendpoint = "https://localhost:10000/account"\n{KEY}',
        f'url = "sftp://me@nas/keep"\n{KEY}{PIN}',
        f'url = "sftp://me@nas/keep"\n{KEY}known_hosts = "SHA256:{"A" * 43}"\n',
    ],
)
def test_a_store_that_can_be_is_accepted(more):
    assert parsed(more).label == "off"


@pytest.mark.parametrize("text", ["env:KEY", "AKIA123/secret", "https://vault"])
def test_a_secret_in_the_place_of_its_reference_is_refused_and_not_repeated(text):
    with pytest.raises(ConfigError, match=r"reference\.") as refused:
        parsed(f'url = "s3://bucket"\ncredentials = "{text}"\n')
    assert text not in str(refused.value.as_facts())


def test_the_first_store_is_a_folder():
    first = f'[[stores]]\nlabel = "main"\nurl = "s3://bucket"\n{KEY}'
    with pytest.raises(ConfigError, match="the first store is a folder"):
        parsed('path = "x"\n', first)


def test_the_first_store_is_fast_and_the_others_small_unless_told_otherwise():
    stores = [
        StoreSettings(label="a", path="a"),
        StoreSettings(label="b", path="b"),
        StoreSettings(label="c", path="c", encoding="fast"),
    ]

    def encodings(*settings):
        text = new_config_text(
            keep_id=KEEP_ID, stores=settings, host="::1", port=0, source="passphrase"
        )
        return encodings_of(parsed_config(text.encode(), what="x"))

    assert encodings(*stores) == {"a": "fast", "b": "small", "c": "fast"}
    assert encodings(StoreSettings(label="a", path="a", encoding="small")) == {"a": "small"}


def test_what_is_written_of_a_store_is_read_back():
    store = StoreSettings(
        label="off",
        url="s3://bucket/keep",
        endpoint="http://minio:9000",
        credentials='exec:/usr/bin/secret "two words"',
        allow_http=True,
        retries=0,
        timeout_s=7.5,
        cache_mb=100,
    )
    text = new_config_text(
        keep_id=KEEP_ID,
        stores=(StoreSettings(label="main", path="m"), store),
        host="::1",
        port=0,
        source="passphrase",
    )
    assert parsed_config(text.encode(), what="x").stores[1] == store


def test_a_store_is_given_in_one_line_or_one_file():
    wanted = StoreSettings(
        label="off", url="s3://b-1/p", region="eu-west-1", credentials="file:/k y", retries=2
    )
    line = "s3://b-1/p?region=eu-west-1&credentials=file:/k%20y&retries=2"
    assert given_store("off", line) == wanted
    lines = 'label = "off"\nurl = "s3://b-1/p"\nregion = "eu-west-1"\ncredentials = "file:/k y"\n'
    assert parsed_store((lines + "retries = 2").encode(), what="off.toml") == wanted
    assert given_store("off", "/mnt/off?site") == StoreSettings(label="off", path="/mnt/off?site")


@pytest.mark.parametrize(
    "query",
    [
        "region=a&region=b",
        "path=/x",
        "label=x",
        "url=x",
        "unknown=1",
        "retries=two",
        "retries=",
        "",
    ],
)
def test_options_that_are_none_are_refused(query):
    with pytest.raises(ConfigError):
        given_store("off", f"s3://bucket?{query}")


@given(st.text(max_size=80))
def test_no_text_raises_anything_but_our_errors(text):
    for each in (
        text,
        f"s3://{text}",
        f"sftp://me@nas/x?{text}",
        f"s3://bucket?credentials={text}",
    ):
        with contextlib.suppress(KeepError):
            given_store("off", each)
        with contextlib.suppress(KeepError):
            parsed_store(each.encode(errors="replace"), what="x")


def test_a_recovered_configuration_runs_no_program_for_credentials(tmp_path):
    """What a store says of the others is data until a person has confirmed it."""
    text = (
        f'keep_id = "{KEEP_ID}"\n{MAIN}'
        '[[stores]]\nlabel = "a"\nurl = "s3://bucket-a"\ncredentials = "exec:/bin/evil a"\n'
        '[[stores]]\nlabel = "b"\nurl = "s3://bucket-b"\ncredentials = "exec:/bin/evil b"\n'
        '[keys]\nsource = "passphrase"\n[serve]\nport = 8443\n'
    ).encode()
    config = parsed_config(text, what="x")
    survivor = given_store("survivor", "s3://bucket-a?credentials=file:/k")
    plan = Plan(target=tmp_path, source=survivor, means=Means(source="passphrase"))
    after = parsed_config(_config_text(plan, config, text), what="x")
    assert [each.credentials for each in after.stores] == ["", "file:/k", UNCONFIRMED]
    assert b"exec:" not in _config_text(plan, config, text)
