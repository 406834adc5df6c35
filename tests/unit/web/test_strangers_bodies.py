"""Whoever has shown no key gets no room for a body, whatever the body's length is or is not."""

import pytest

from modelkeep.core.errors import LimitError
from modelkeep.web.messages import Request
from modelkeep.web.tokens import BODY_BYTES_MAX, TokenApplication
from modelkeep.web.v2 import V2Application

CHUNKED = {b"transfer-encoding": b"chunked"}
JSON = {b"content-type": b"application/json"}


def asked(application, method, url, **headers):
    request = Request("192.0.2.1")
    request.method, request.url = method, url
    request.headers.update(headers.get("headers", {}))
    application.begin(request)


def v2():
    return V2Application(None, tallies=None, exposition=bytes, metrics_type="t")


@pytest.mark.parametrize("url", [b"/v2/health/live", b"/v2/health/ready"])
@pytest.mark.parametrize("headers", [CHUNKED, {b"content-length": b"1"}], ids=["chunks", "length"])
def test_a_question_without_a_key_takes_no_body(url, headers):
    with pytest.raises(LimitError) as raised:
        asked(v2(), b"GET", url, headers=headers)
    assert raised.value.code == "limit.body"
    asked(v2(), b"GET", url, headers={b"content-length": b"0"})
    asked(v2(), b"GET", url)


@pytest.mark.parametrize(
    "headers",
    [CHUNKED, {b"content-length": b"%d" % (BODY_BYTES_MAX + 1)}],
    ids=["chunks", "length"],
)
def test_a_request_for_a_token_says_how_small_it_is(headers):
    tokens = TokenApplication(None, None, None)
    with pytest.raises(LimitError) as raised:
        asked(tokens, b"POST", b"/v1/token", headers=JSON | headers)
    assert raised.value.code == "limit.body"
    asked(tokens, b"POST", b"/v1/token", headers=JSON | {b"content-length": b"100"})
