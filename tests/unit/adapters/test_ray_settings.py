"""`[ray]`: what it may say, and that nothing secret gets into an environment."""

import pytest

from modelkeep.adapters.ray_settings import RaySettings, ray_environment, ray_problems

TOKEN = "/run/secrets/ray"  # noqa: S105 - a path
TLS = {"certificate": "/etc/ray/node.pem", "key": "/etc/ray/node.key", "authority": "/etc/ray/ca"}


def wrong(**given):
    return [text for is_wrong, text in ray_problems(RaySettings(**given)) if is_wrong]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"address": "10.0.0.7:6379"},
        {"address": "[fd00::7]:6379", "cpus": 0.0, "resource": "gpu-box", "per_node_max": 1},
        {**TLS, "token": TOKEN},
    ],
)
def test_what_a_cluster_needs_can_be_said(given):
    assert wrong(**given) == []


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"address": ""}, "ray.address"),
        ({"address": "ray://10.0.0.7:10001"}, "ray.address"),
        ({"address": "local"}, "ray.address"),
        ({"cpus": -1.0}, "ray.cpus"),
        ({"cpus": float("nan")}, "ray.cpus"),
        ({"cpus": 257.0}, "ray.cpus"),
        ({"resource": "a b"}, "ray.resource"),
        ({"per_node_max": 65}, "ray.per_node_max"),
        ({"certificate": "/a"}, "together"),
        ({**TLS, "key": "node.key"}, "whole path"),
        ({"token": "token"}, "whole path"),
    ],
)
def test_what_cannot_be_is_named(given, word):
    (text,) = wrong(**given)
    assert word in text


def test_a_process_is_told_paths_and_nothing_else():
    plain = ray_environment(RaySettings())
    assert "RAY_USE_TLS" not in plain
    whole = ray_environment(RaySettings(**TLS, token=TOKEN))
    assert whole["RAY_USE_TLS"] == "1"
    assert whole["RAY_AUTH_TOKEN_PATH"] == TOKEN
    assert {value for name, value in whole.items() if "TLS_" in name} == {*TLS.values()}
