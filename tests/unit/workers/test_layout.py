"""How many replicas a model gets: as configured, or fewer where its policy says so."""

from dataclasses import replace

import pytest

from modelkeep.adapters.host_settings import HostSettings
from modelkeep.adapters.store_settings import StoreSettings
from modelkeep.config import Config
from modelkeep.core.artifact import Schema
from modelkeep.core.errors import UnavailableError
from modelkeep.core.policy import Policy
from modelkeep.flows.publish import Published
from modelkeep.flows.settings import ServeSettings
from modelkeep.workers.fleet import Version
from modelkeep.workers.layout import Layout, tcp_listener

MODEL = Published(
    name="m",
    version=2,
    schema=Schema(inputs=(), outputs=()),
    domain="default",
    is_batchable=True,
    is_default=True,
    policy=Policy(),
)


@pytest.mark.parametrize(("most", "wanted"), [(0, 4), (1, 1), (3, 3), (4, 4), (64, 4)])
def test_a_policy_may_lower_the_number_of_replicas_and_never_raises_it(most, wanted):
    said = []
    stores = (StoreSettings(label="main", path="a"),)
    config = Config(keep_id="0" * 16, stores=stores, serve=ServeSettings(replicas=4))
    layout = Layout(None, config, -1, None, warn=said.append)
    assert layout.replica_count(replace(MODEL, policy=Policy(replicas_max=most))) == wanted
    assert bool(said) == (wanted < 4)
    assert all(f"m:2 gets {wanted} of 4 replicas" in each for each in said)


@pytest.mark.parametrize(
    ("most", "others", "wanted"), [(0, 4, 3), (6, 4, 2), (4, 4, 0), (3, 4, 0), (9, 2, 3)]
)
def test_a_policy_bounds_the_replicas_on_other_hosts_too(most, others, wanted):
    stores = (StoreSettings(label="main", path="a"),)
    hosts = (
        HostSettings(name="a", address="a:1", replicas=2),
        HostSettings(name="b", address="b:1", models=("other",)),
        HostSettings(name="c", address="c:1", models=("other", "m")),
    )
    layout = Layout(None, Config(keep_id="0" * 16, stores=stores, hosts=hosts), -1, None)
    found = layout.places(Version(replace(MODEL, policy=Policy(replicas_max=most))), others)
    everywhere = [("a", 0), ("a", 1), ("c", 0)]
    assert [(host.name, number) for host, number in found] == everywhere[:wanted]


def test_a_host_that_is_not_this_machine_is_told_from_a_port_that_is_taken():
    with pytest.raises(UnavailableError) as elsewhere:
        tcp_listener("192.0.2.1", 0)  # kept for documentation (RFC 5737)
    assert "must be an address of this machine" in elsewhere.value.hint
    with tcp_listener("127.0.0.1", 0) as taken, pytest.raises(UnavailableError) as refused:
        tcp_listener("127.0.0.1", taken.getsockname()[1])
    assert "stop what listens there" in refused.value.hint
