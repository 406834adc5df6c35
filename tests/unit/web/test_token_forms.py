"""What is asked at `/v1/token`: any body is a request, or refused in the words of the standard."""

import base64
import contextlib
from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import UsageError
from modelkeep.web.messages import Request
from modelkeep.web.tokens import _wanted

FORM, JSON = b"application/x-www-form-urlencoded", b"application/json"


def wanted(body, media=FORM, authorization=None):
    request = Request("192.0.2.1")
    request.headers[b"content-type"] = media
    if authorization is not None:
        request.headers[b"authorization"] = authorization
    request.content.add(body)
    return _wanted(request)


@given(
    body=st.binary(max_size=200)
    | st.text(max_size=60).map(lambda text: b"grant_type=password&username=" + text.encode()),
    media=st.sampled_from([FORM, JSON]),
    authorization=st.none() | st.binary(max_size=60).map(lambda raw: b"Basic " + raw),
)
def test_any_body_is_a_request_or_refused(body, media, authorization):
    with contextlib.suppress(UsageError):
        found = wanted(body, media, authorization)
        assert found.grant in ("client_credentials", "password")
        assert found.name
        assert found.password


@given(name=st.text(min_size=1, max_size=40), password=st.text(min_size=1, max_size=40))
def test_names_and_passwords_arrive_as_they_were_sent(name, password):
    with contextlib.suppress(UnicodeEncodeError):  # half a surrogate pair is no text
        fields = {"grant_type": "password", "username": name, "password": password}
        found = wanted(urlencode(fields).encode())
        assert (found.name, found.password) == (name, password)
        pair = f"{quote_plus(name)}:{quote_plus(password)}".encode()
        header = b"basic " + base64.b64encode(pair)
        found = wanted(b"grant_type=client_credentials", authorization=header)
        assert (found.name, found.password) == (name, password)


@pytest.mark.parametrize("scheme", [b"Bearer eyJ", b"Basic", b"Basic !!", b"Basic YQ=="])
def test_another_header_is_no_login(scheme):
    with pytest.raises(UsageError):
        wanted(b"grant_type=client_credentials", authorization=scheme)
