"""The table `[ray]`: where replicas run when `[serve] engine` is `ray`."""

from __future__ import annotations

import re

from modelkeep.core.record import Record, as_plain

CPUS_MAX = 256.0
_ADDRESS = re.compile(r"auto|(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):[0-9]{1,5}")
_RESOURCE = re.compile(r"|[A-Za-z][A-Za-z0-9_-]{0,63}")
_FILES = ("certificate", "key", "authority")


class RaySettings(Record, frozen=True):
    """Table `[ray]` of modelkeep.toml; it counts with `[serve] engine = "ray"`.

    Attributes:
        address: of the cluster's head as `host:port`; `auto` for the one that this machine is in.
            This machine has to be one of its nodes.
        cpus: that one replica claims of its node.
        resource: replicas run only on nodes with this resource of Ray; empty for any node.
        per_node_max: replicas of one version on one node; 0 for any number.
        certificate: PEM file with this node's certificate for Ray's own links, the same path as in
            the cluster's RAY_TLS_SERVER_CERT; empty for links without TLS.
        key: PEM file with its private key.
        authority: PEM file with the authority that signed the certificates of all nodes.
        token: file with the cluster's token, where Ray asks for one; empty for none.
    """

    address: str = "auto"
    cpus: float = 1.0
    resource: str = ""
    per_node_max: int = 0
    certificate: str = ""
    key: str = ""
    authority: str = ""
    token: str = ""


def ray_problems(ray: RaySettings) -> list[tuple[bool, str]]:
    """What is wrong with `[ray]`, each with whether it is."""
    plain = as_plain(ray)
    given = [bool(plain[name]) for name in _FILES]
    paths = [plain[name] for name in (*_FILES, "token")]
    return [
        (not _ADDRESS.fullmatch(ray.address), "ray.address is neither auto nor host:port"),
        (not 0 <= ray.cpus <= CPUS_MAX, f"ray.cpus is not 0 to {CPUS_MAX:.0f}"),
        (not _RESOURCE.fullmatch(ray.resource), "ray.resource is no name of a resource"),
        (not 0 <= ray.per_node_max <= 64, "ray.per_node_max is not 0 to 64"),
        (
            any(given) and not all(given),
            "ray.certificate, ray.key and ray.authority are given together or not at all",
        ),
        (
            any(path and not path.startswith("/") for path in paths),
            "ray: files are named by their whole path",
        ),
    ]


def ray_environment(ray: RaySettings) -> dict[str, str]:
    """What a process needs in its environment to speak to the cluster: paths, no secret."""
    environment = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_RECORD_ACTOR_TASK_LOGGING": "0"}
    if ray.certificate:
        environment |= {
            "RAY_USE_TLS": "1",
            "RAY_TLS_SERVER_CERT": ray.certificate,
            "RAY_TLS_SERVER_KEY": ray.key,
            "RAY_TLS_CA_CERT": ray.authority,
        }
    if ray.token:
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": ray.token}
    return environment
