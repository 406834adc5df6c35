"""Every bound, at the bound and one past it."""

import pytest

from modelkeep.core.errors import KeepError
from modelkeep.gate.limits import demand_body_within, demand_head_within, demand_slot
from modelkeep.gate.settings import GateSettings

SETTINGS = GateSettings(body_bytes_max=10, header_bytes_max=20, calls_in_flight_max=3)


@pytest.mark.parametrize(
    ("demand", "largest", "code", "status"),
    [
        (demand_body_within, 10, "limit.body", 413),
        (demand_head_within, 20, "limit.header", 431),
        (demand_slot, 2, "gate.busy", 503),
    ],
)
def test_the_bound_holds_and_one_more_is_refused(demand, largest, code, status):
    demand(largest, SETTINGS)
    with pytest.raises(KeepError) as raised:
        demand(largest + 1, SETTINGS)
    assert (raised.value.code, raised.value.http_status) == (code, status)
