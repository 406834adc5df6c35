"""`POST /v1/token`: a short-lived bearer token for the password of a service account.

OAuth 2.0 (RFC 6749): grant `client_credentials` (section 4.4; the secret in HTTP Basic or in the
body) and `password` (section 4.3), as a form, or the same names as a JSON object. Answers are those
of sections 5.1 and 5.2. A refusal says nothing that tells an account from none: it is counted like
any refusal before authentication. A token leaves when the record of its issue is durable.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote_plus

from modelkeep.core.errors import IntegrityError, KeepError, LimitError, MissingError, UsageError
from modelkeep.core.record import Record, parsed_json, to_json
from modelkeep.crypto.secret import Secret
from modelkeep.flows.call import Call
from modelkeep.flows.login import Granted, Login
from modelkeep.flows.serve import Serving
from modelkeep.gate.identity_token import invalid
from modelkeep.gate.passage import Step
from modelkeep.ports.clock import Clock
from modelkeep.web.messages import Request, Response, path_of

TOKEN_PATH = b"/v1/token"
# A name has 200 characters at most and a password 1,024 bytes; encoded three times as many.
BODY_BYTES_MAX = 8 * 1024
FIELDS_MAX = 16
_FORM = b"application/x-www-form-urlencoded"
_JSON = b"application/json"
_HEADER = b"content-type: application/json\r\npragma: no-cache\r\n"
_BASIC = b'www-authenticate: Basic realm="modelkeep", charset="UTF-8"\r\n'
_GRANTS = {
    "client_credentials": ("client_id", "client_secret"),
    "password": ("username", "password"),
}


class TokenBody(Record, frozen=True):
    """An answer (RFC 6749, section 5.1)."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str


class RefusalBody(Record, frozen=True):
    """A refusal (RFC 6749, section 5.2)."""

    error: str
    error_description: str


class _Wanted(Record, frozen=True):
    """What a request asks for."""

    grant: str
    name: str
    password: str
    scopes: tuple[str, ...] | None
    is_basic: bool


class TokenApplication:
    """The endpoint for tokens.

    Args:
        serving: records what is given and counts what is not.
    """

    paths = (TOKEN_PATH,)

    def __init__(self, serving: Serving, login: Login, clock: Clock) -> None:
        self._serving = serving
        self._login = login
        self._clock = clock

    def begin(self, request: Request) -> None:
        """Judge a head: path, method, media type, size.

        Raises:
            MissingError: `route.missing`.
            UsageError: `route.method` or `media.type`.
            LimitError: `limit.body`.
        """
        if path_of(request.url) != TOKEN_PATH:
            raise MissingError("route.missing", "there is nothing here", hint="try /v1/token")
        if request.method != b"POST":
            raise UsageError(
                "route.method", "this path takes POST only", hint="use POST", allow="POST"
            )
        if _media(request) not in (_FORM, _JSON):
            raise UsageError(
                "media.type",
                "the body is neither a form nor JSON",
                hint="send `Content-Type: application/x-www-form-urlencoded`",
            )
        if b"transfer-encoding" in request.headers:  # nobody is known yet: no room without a bound
            raise LimitError(
                "limit.body",
                "the length of the body is not said",
                hint="send Content-Length",
                bytes_max=BODY_BYTES_MAX,
            )
        length = request.headers.get(b"content-length", b"0")
        _demand_small(int(length) if length.isdigit() and len(length) < 20 else 0)

    async def respond(self, request: Request) -> Response:
        """Answer a request, or explain why not."""
        arrived_ns = self._clock.now_ns()
        wanted: _Wanted | None = None
        try:
            if request.refusal is not None:
                raise request.refusal
            wanted = _wanted(request)
            granted = await self._login.granted(
                wanted.name,
                Secret(wanted.password.encode()),
                address=request.address,
                scopes=wanted.scopes,
            )
        except KeepError as error:
            self._serving.turn_away(error, request.address)
            return _refused(error, wanted)
        return await self._sent(granted, request, arrived_ns)

    async def _sent(self, granted: Granted, request: Request, arrived_ns: int) -> Response:
        """Record the issue, then hand the token out."""
        call = Call(granted.principal, arrived_ns, address=request.address)
        for step in (Step.JUDGE, Step.ANSWER, Step.CLEAR):
            call.passage.step(step)
        body = to_json(
            TokenBody(
                access_token=granted.token.decode(),
                token_type="Bearer",  # noqa: S106 - its kind
                expires_in=granted.lifetime_s,
                scope=" ".join(granted.principal.scopes),
            )
        )
        try:
            position = await self._serving.recorded(call, b"", sent=body)
        except KeepError as error:  # the journal failed: nothing leaves
            return _refused(error, None)
        call.passage.step(Step.SEND)
        receipt = b"modelkeep-receipt: %b:%d\r\n" % (self._serving.log_name, position)
        return Response(200, _HEADER + receipt, body)


def _wanted(request: Request) -> _Wanted:
    """What a request asks for.

    Raises:
        UsageError: `token.request`, `token.grant` or `auth.invalid`.
        LimitError: `limit.body`.
    """
    body = bytes(request.body)
    _demand_small(len(body))
    said = _form(body) if _media(request) == _FORM else _json(body)
    grant = said.get("grant_type", "")
    names = _GRANTS.get(grant)
    if names is None:
        raise UsageError("token.grant", "grant_type is neither `client_credentials` nor `password`")
    name, password = said.get(names[0], ""), said.get(names[1], "")
    basic = _basic(request.headers.get(b"authorization"))
    if basic is not None and grant == "client_credentials":
        if name or password:
            raise UsageError("token.request", "credentials are given twice")
        name, password = basic
    elif basic is not None:
        raise UsageError("token.request", "with grant_type `password` no header is needed")
    if not name or not password:
        raise UsageError("token.request", f"{names[0]} or {names[1]} is missing")
    scope = said.get("scope")
    return _Wanted(
        grant=grant,
        name=name,
        password=password,
        scopes=None if scope is None else tuple(scope.split()),
        is_basic=basic is not None,
    )


def _form(body: bytes) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(
            body.decode(),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError:
        raise UsageError("token.request", "the body is no form") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UsageError("token.request", "a name stands twice")
    return found


def _json(body: bytes) -> Mapping[str, str]:
    try:
        found = parsed_json(body, what="the body")
    except IntegrityError:
        raise UsageError("token.request", "the body is no JSON") from None
    is_flat = isinstance(found, dict) and all(isinstance(each, str) for each in found.values())
    if not is_flat or len(found) > FIELDS_MAX:
        raise UsageError("token.request", "the body is no JSON object of texts")
    return {str(name): str(value) for name, value in found.items()}


def _basic(authorization: bytes | None) -> tuple[str, str] | None:
    """Name and password of HTTP Basic, each encoded as in a form (RFC 6749, section 2.3.1).

    Raises:
        UsageError: `token.request`.
    """
    if authorization is None:
        return None
    scheme, _, encoded = authorization.partition(b" ")
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    name, colon, password = text.partition(":")
    if scheme.lower() != b"basic" or not colon:
        raise UsageError("token.request", "the header Authorization is not of the form Basic")
    try:
        return unquote_plus(name, errors="strict"), unquote_plus(password, errors="strict")
    except UnicodeDecodeError:
        raise invalid("basic") from None


def _media(request: Request) -> bytes:
    media = request.headers.get(b"content-type", _JSON)
    return media.partition(b";")[0].strip().lower()


def _demand_small(size_bytes: int) -> None:
    """Go on only with a small body.

    Raises:
        LimitError: `limit.body`.
    """
    if size_bytes > BODY_BYTES_MAX:
        raise LimitError(
            "limit.body",
            f"the body is larger than {BODY_BYTES_MAX} bytes",
            bytes_max=BODY_BYTES_MAX,
        )


def _refused(error: KeepError, wanted: _Wanted | None) -> Response:
    """A refusal in the words of RFC 6749, section 5.2."""
    status, headers, said = error.http_status, _HEADER, "invalid_request"
    if error.code == "auth.scope":
        status, said = 400, "invalid_scope"
    elif error.code.startswith("auth.") and wanted is not None and wanted.grant == "password":
        status, said = 400, "invalid_grant"
    elif error.code.startswith("auth."):
        status, said = 401, "invalid_client"
        headers += _BASIC
    elif error.code == "token.grant":
        said = "unsupported_grant_type"
    elif error.code == "route.method":
        headers += b"allow: POST\r\n"
    elif status in (429, 503):
        said = "temporarily_unavailable"
        headers += b"retry-after: %d\r\n" % int(error.context.get("retry_after_s", 1))
    return Response(
        status, headers, to_json(RefusalBody(error=said, error_description=error.message))
    )
