"""`[[hosts]]`: what it may say."""

import pytest

from modelkeep.adapters.host_settings import HostSettings, host_problems, parsed_address
from modelkeep.config import parsed_config
from modelkeep.core.errors import ConfigError

BARE = b'keep_id = "0123456789abcdef"\n[[stores]]\nlabel = "main"\npath = "stores/main"\n'
HOST = b'[[hosts]]\nname = "spare-1"\naddress = "10.0.0.7:9443"\n'


def wrong(*hosts):
    return [text for is_wrong, text in host_problems(hosts) if is_wrong]


def host(**given):
    return HostSettings(**{"name": "spare-1", "address": "10.0.0.7:9443", **given})


@pytest.mark.parametrize(
    "given",
    [{}, {"address": "[fd00::7]:9443", "replicas": 64}, {"name": "a", "models": ("m",)}],
)
def test_what_a_host_is_can_be_said(given):
    assert wrong(host(**given), host(name="b", address="spare.example:1")) == []


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"name": ""}, "hosts.name"),
        ({"name": "Spare"}, "hosts.name"),
        ({"name": "a.b"}, "hosts.name"),
        ({"name": "a" * 64}, "hosts.name"),
        ({"address": ""}, "hosts.address"),
        ({"address": "10.0.0.7"}, "hosts.address"),
        ({"address": "10.0.0.7:0"}, "hosts.address"),
        ({"address": "10.0.0.7:65536"}, "hosts.address"),
        ({"address": "tls://10.0.0.7:1"}, "hosts.address"),
        ({"replicas": 0}, "hosts.replicas"),
        ({"replicas": 65}, "hosts.replicas"),
    ],
)
def test_what_cannot_be_is_named(given, word):
    (text,) = wrong(host(**given))
    assert word in text


def test_two_hosts_have_two_names():
    assert "one name" in wrong(host(), host(address="10.0.0.8:9443"))[0]
    assert "more than" in wrong(*(host(name=f"h{each}") for each in range(257)))[0]


def test_an_address_is_a_host_and_a_port():
    assert parsed_address("[::1]:9000") == ("::1", 9000)
    assert parsed_address("spare.example:0") == ("spare.example", 0)
    assert parsed_address("a:1\n") is None


@pytest.mark.parametrize(
    "text",
    [
        HOST + b'model = "m"\n',
        b"[serve]\nreplicas = 0\n",
        HOST + b'[serve]\nreplicas = 0\nengine = "ray"\n',
    ],
    ids=["an unknown key", "nobody answers", "nothing in the cluster"],
)
def test_a_configuration_by_which_nothing_works_is_refused(text):
    with pytest.raises(ConfigError):
        parsed_config(BARE + text, what="it")


def test_replicas_may_run_elsewhere_only():
    config = parsed_config(BARE + HOST + b"[serve]\nreplicas = 0\n", what="it")
    assert (config.serve.replicas, config.hosts) == (0, (host(),))
