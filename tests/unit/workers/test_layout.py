"""How many replicas a model gets: as configured, or fewer where its policy says so."""

from dataclasses import replace

import pytest

from modelkeep.adapters.store_settings import StoreSettings
from modelkeep.config import Config
from modelkeep.core.artifact import Schema
from modelkeep.core.policy import Policy
from modelkeep.flows.publish import Published
from modelkeep.flows.settings import ServeSettings
from modelkeep.workers.layout import Layout

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
    layout = Layout(None, None, config, None, -1, -1, warn=said.append)
    assert layout._replica_count(replace(MODEL, policy=Policy(replicas_max=most))) == wanted
    assert bool(said) == (wanted < 4)
    assert all(f"m:2 gets {wanted} of 4 replicas" in each for each in said)
