"""The tables `[[hosts]]`: other machines on which replicas run."""

from __future__ import annotations

import re
from collections.abc import Sequence

from modelkeep.core.host_names import is_host_name
from modelkeep.core.record import Record

HOSTS_MAX = 256
REPLICAS_MAX = 64
_ADDRESS = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):(?P<port>[0-9]{1,5})"
)


class HostSettings(Record, frozen=True):
    """A table `[[hosts]]` of modelkeep.toml.

    Attributes:
        name: the machine's, as its certificate has it: `modelkeep certificates host NAME`.
        address: where `modelkeep host` listens there, as `host:port`.
        models: names of the models of which replicas run there; none means every model.
        replicas: of each version that is served of them.
    """

    name: str
    address: str
    models: tuple[str, ...] = ()
    replicas: int = 1


def parsed_address(text: str) -> tuple[str, int] | None:
    """An address's host and port; None where it is none."""
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > 65_535:
        return None
    return found["host"].strip("[]"), int(found["port"])


def host_problems(hosts: Sequence[HostSettings]) -> list[tuple[bool, str]]:
    """What is wrong with `[[hosts]]`, each with whether it is."""
    names = [each.name for each in hosts]
    addresses = [parsed_address(each.address) for each in hosts]
    return [
        (len(hosts) > HOSTS_MAX, f"hosts: more than {HOSTS_MAX}"),
        (len(set(names)) != len(names), "hosts: two have one name"),
        (
            not all(map(is_host_name, names)),
            "hosts.name is lower-case letters, digits and hyphens, 63 at most",
        ),
        (not all(each and each[1] for each in addresses), "hosts.address is not host:port"),
        (
            any(not 1 <= each.replicas <= REPLICAS_MAX for each in hosts),
            f"hosts.replicas is not 1 to {REPLICAS_MAX}",
        ),
    ]
