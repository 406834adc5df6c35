"""Goal: what a gateway remembers of paths is of permitted calls only, and bounded by its models."""

from types import SimpleNamespace

import pytest

from modelkeep.adapters.system import SystemClock, SystemEntropy
from modelkeep.core.artifact import Port, Schema
from modelkeep.core.errors import KeepError
from modelkeep.flows.call import Served
from modelkeep.flows.serve import Serving
from modelkeep.gate.authn import Keyring, new_token
from modelkeep.gate.schema import SchemaCheck
from modelkeep.gate.settings import GateSettings
from modelkeep.gate.traffic import ModelTable
from modelkeep.watch.tally import Tally
from modelkeep.web.messages import Request
from modelkeep.web.v2 import V2Application

SCHEMA = Schema(
    inputs=(Port(name="x", dtype="INT8", shape=(-1,)),),
    outputs=(Port(name="y", dtype="INT8", shape=(-1,)),),
)
PATH = b"/v2/models/m/infer"


class Desk:
    """An application whose routes are looked at; nothing is answered here."""

    def __init__(self):
        drawn = [new_token(SystemEntropy(), principal="p", scopes=(f"infer:{m}",)) for m in "mo"]
        self.keys = [b"Bearer " + key.reveal() for key, _ in drawn]
        serving = Serving(
            table=ModelTable([Served("m", 1, SchemaCheck(SCHEMA))], {"m": 1}),
            replicas=SimpleNamespace(),
            log=SimpleNamespace(name="g"),
            meters=SimpleNamespace(),
            settings=GateSettings(),
            clock=SystemClock(),
            entropy=SystemEntropy(),
            commitment_key=bytes(32),
        )
        serving.keyring = Keyring([token for _, token in drawn])
        self.application = V2Application(
            serving, tallies=lambda _model, _version: Tally(), exposition=bytes, metrics_type="t"
        )

    def asks(self, url, authorization=None):
        request = Request("192.0.2.1")
        request.method, request.url = b"POST", url
        if authorization is not None:
            request.headers[b"authorization"] = authorization
        self.application.begin(request)

    @property
    def kept(self):
        return [url for _, url in self.application._routes]


@pytest.mark.parametrize("who", ["stranger", "somebody else's key"])
def test_a_path_that_is_not_permitted_is_not_remembered(who):
    desk = Desk()
    authorization = None if who == "stranger" else desk.keys[1]
    for url in (PATH, b"/v2/models/m/versions/1/infer", PATH + b"?a=1"):
        with pytest.raises(KeepError):
            desk.asks(url, authorization)
    assert desk.kept == []


def test_a_permitted_path_is_remembered_once_and_without_queries():
    desk = Desk()
    desk.asks(PATH, desk.keys[0])
    for number in range(100):
        desk.asks(PATH + b"?%d" % number, desk.keys[0])
    assert desk.kept == [PATH]
