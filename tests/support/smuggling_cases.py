"""Requests that two readers may cut differently: a corpus collected from public ones, as data.

Sources, whose facts (which bytes stand where) are carried here and whose code is not:

    smuggler   github.com/defparam/smuggler, configs/exhaustive.py: a header that hides
               `Transfer-Encoding: chunked`, beside a Content-Length
    desync     github.com/PortSwigger/http-request-smuggler, DesyncBox: the same idea, other hides
    garden     github.com/narfindustries/http-garden, TROPHIES.md: what real servers got wrong
    llhttp     github.com/nodejs/llhttp, test/request/*.md: what a strict parser refuses

A hide is tried both ways. CL.TE: by Content-Length all that follows is one body; who sees the
hidden header ends the body at the zero chunk, and `SMUGGLED` is the next request. TE.CL: by chunks
all is one body; who goes by Content-Length finds `SMUGGLED` behind four bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

TARGET = b"/v2/models/digits/infer"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"
EVERY_BYTE = (*range(0x01, 0x20), *range(0x7F, 0x100))
SPECIAL_BYTES = (0x00, 0x09, 0x0B, 0x0C, 0x0D, 0x7F)


@dataclass(frozen=True)
class Case:
    """One attack.

    Attributes:
        raw: all that is sent, but for the honest request that follows.
        answers: how many answers an exact reader gives to `raw` before it goes on to what follows;
            0 when the one right answer is a refusal and the end of the connection.
    """

    name: str
    raw: bytes
    answers: int = 0


def _hides() -> dict[str, bytes]:
    """Header lines that some readers take for chunked and others do not."""
    te = b"Transfer-Encoding"
    hides = {
        "smuggler-vanilla": CHUNKED,
        "smuggler-nameprefix1": b" " + CHUNKED,
        "smuggler-tabprefix1": te + b":\tchunked",
        "smuggler-tabprefix2": te + b"\t:\tchunked",
        "smuggler-spacejoin1": b"Transfer Encoding: chunked",
        "smuggler-underjoin1": b"Transfer_Encoding: chunked",
        "smuggler-smashed": b"Transfer Encoding:chunked",
        "smuggler-space1": te + b" : chunked",
        "smuggler-valueprefix1": te + b":  chunked",
        "smuggler-vertprefix1": te + b":\x0bchunked",
        "smuggler-commacow": CHUNKED + b", cow",
        "smuggler-cowcomma": te + b": cow, chunked",
        "smuggler-contentenc": b"Content-Encoding: chunked",
        "smuggler-linewrapped1": te + b":\n chunked",
        "smuggler-quoted": te + b': "chunked"',
        "smuggler-aposed": te + b": 'chunked'",
        "smuggler-lazygrep": te + b": chunk",
        "smuggler-sarcasm": b"TrAnSFer-EnCODinG: cHuNkeD",
        "smuggler-yelling": b"TRANSFER-ENCODING: CHUNKED",
        "smuggler-0dsuffix": CHUNKED + b"\r",
        "smuggler-tabsuffix": CHUNKED + b"\t",
        "smuggler-revdualchunk": te + b": cow\r\n" + CHUNKED,
        "smuggler-0dspam": b"Transfer\r-Encoding: chunked",
        "smuggler-nested": te + b": cow chunked bar",
        "smuggler-accentch": te + b": ch\x96nked",
        "smuggler-accentte": b"Transf\x82r-Encoding: chunked",
        "smuggler-x-rout": b"X:X\r" + CHUNKED,
        "smuggler-x-nout": b"X:X\n" + CHUNKED,
        "desync-nameprefix1": b"Foo: bar\r\n " + CHUNKED,
        "desync-nameprefix2": b"Foo: bar\r\n\t" + CHUNKED,
        "desync-nospace1": te + b":chunked",
        "desync-gareth1": te + b"\n : chunked",
        "desync-vertwrap": te + b": \n\x0bchunked",
        "desync-tabwrap": te + b": \r\n\tchunked",
        "desync-0dwrap": b"Foo: bar\r\n\r" + CHUNKED,
        "desync-0dspam": b"Tra\rnsfer-Encoding: chunked",
        "desync-connection": b"Connection: Transfer-Encoding\r\n" + CHUNKED,
        "desync-spjunk": te + b" x: chunked",
        "desync-backslash": b"Transfer\\Encoding: chunked",
        "desync-dualchunk": CHUNKED + b"\r\nTransfer-encoding: identity",
        "desync-bodysplit": b"Foo: barn\n\n" + CHUNKED,
        "desync-nested": te + b": identity, chunked, identity",
        "desync-encode": b"Transfer-%45ncoding: chunked",
        "garden-21": te + b": ,chunked",
        "garden-12": te + b": \xa0chunked\xa0",
        "garden-37": b"Transfer-\r\nEncoding: chunked",
        "llhttp-empty": te + b":",
        "llhttp-pigeons": te + b": pigeons",
        "llhttp-identity": te + b": identity",
        "own-twice": CHUNKED + b"\r\n" + CHUNKED,
        "own-chunked-twice": te + b": chunked, chunked",
        "own-parameter": te + b": chunked;q=1",
        "own-gzip": te + b": gzip",
    }
    for value in EVERY_BYTE:
        byte = bytes([value])
        hides[f"smuggler-midspace-{value:02x}"] = te + b":" + byte + b"chunked"
        hides[f"smuggler-postspace-{value:02x}"] = te + byte + b": chunked"
        hides[f"smuggler-prespace-{value:02x}"] = byte + CHUNKED
        hides[f"smuggler-endspace-{value:02x}"] = CHUNKED + byte
    for value in SPECIAL_BYTES:
        byte = bytes([value])
        hides[f"desync-spacefix1-{value}"] = te + b":" + byte + b"chunked"
        hides[f"desync-prefix1-{value}"] = te + b": " + byte + b"chunked"
        hides[f"desync-suffix1-{value}"] = CHUNKED + byte
    return hides


# Another header's name, allowed by RFC 9110's token: nobody may see chunks there, so the body ends
# by Content-Length, and only CL.TE can be judged (in TE.CL the second request is really meant).
_OTHER_NAMES = frozenset({"smuggler-underjoin1", "smuggler-contentenc", "desync-encode"})


def hidden_cases() -> list[Case]:
    """Every hide, both ways."""
    made = []
    for name, line in _hides().items():
        is_other = name in _OTHER_NAMES
        body = b"0\r\n\r\n" + SMUGGLED
        made.append(Case(f"{name}/CL.TE", _posted(line, len(body), body), int(is_other)))
        if not is_other:
            chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
            length = chunk.index(b"\r\n") + 2
            made.append(Case(f"{name}/TE.CL", _posted(line, length, chunk)))
    return made


def _posted(line: bytes, length: int, body: bytes) -> bytes:
    return _post(line, b"Content-Length: %d" % length) + body


def _post(*lines: bytes) -> bytes:
    head = (b"POST " + TARGET + b" HTTP/1.1", b"Host: a", *lines)
    return b"\r\n".join((*head, b"", b""))


def _get(*lines: bytes) -> bytes:
    return b"\r\n".join((b"GET /v2/health/live HTTP/1.1", b"Host: a", *lines, b"", b""))


def length_cases() -> list[Case]:
    """Content-Length that is read differently: garden 10, 16, 23, 26, 29, 32, 33, 38, 42."""
    bad = (
        b"+5", b"-5", b"-48", b"0x5", b"1_0", b"+1_0", b"5Z", b"5 5", b"5,5", b"5, 5", b"5;5",
        b"", b" ", b'"5"', b"5.0", b"5e0", b"\xb2", b"5\x00", b"5\x0b", b"\x0b5", b"5\xa0",
        b"\x855",
        b"99999999999999999999", b"18446744073709551621", b"0b101", b"0o5", b"five",
    )  # fmt: skip
    cases = [
        Case(f"length-{value!r}", _post(b"Content-Length: " + value) + b"hello") for value in bad
    ]
    pairs = ((b"5", b"6"), (b"6", b"5"), (b"5", b"5"), (b"0", b"5"), (b"5", b"0"), (b"", b"5"))
    for one, other in pairs:
        lines = (b"Content-Length: " + one, b"Content-Length: " + other)
        cases.append(Case(f"garden-23/{one!r}-{other!r}", _post(*lines) + b"hello"))
    # Zeros in front are allowed (RFC 9110, 8.6) and are no octal.
    cases.append(Case("garden-32/zeros", _post(b"Content-Length: 010") + b"0123456789", 1))
    return cases


def chunk_cases() -> list[Case]:
    """Chunks that are read differently: garden 1, 17, 22, 25, 31, 36, 39; llhttp's chunk sizes."""
    bad = (
        b"0_2e\r\n\r\n", b"0x1\r\na\r\n0\r\n\r\n", b"+1\r\na\r\n0\r\n\r\n", b"-1\r\na\r\n0\r\n\r\n",
        b" 1\r\na\r\n0\r\n\r\n", b"1 \r\na\r\n0\r\n\r\n", b"1\t\r\na\r\n0\r\n\r\n",
        b"\r\n\r\n", b"zz\r\n\r\n", b"1g\r\na\r\n0\r\n\r\n",
        b"2 erfrferferf\r\naa\r\n0 rrrr\r\n\r\n",
        b"5\r\r;ABCD\r\n34\r\nE\r\n0\r\n\r\n", b"1;a=b\r\rX\r\n0\r\n\r\n", b"2;\r\naa\r\n0\r\n\r\n",
        b"1\na\n0\n\n", b"1\r\na\n0\r\n\r\n", b"1\r\naX\r\n0\r\n\r\n", b"1\r\naXX0\r\n\r\n",
        b"1\r\na\r\r0\r\n\r\n", b"1;a\nb\r\na\r\n0\r\n\r\n", b"1;a\x00b\r\na\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\na\r\n0\r\n\r\n", b"10000000000000001\r\na\r\n0\r\n\r\n",
        b'5;a="b";c="d; e\r\nhello\r\n0\r\n\r\n', b"0\r\nX:POST / HTTP/1.1\n\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n", b"0\r\n bad: 1\r\n\r\n", b"0\r\nbad\r\n\r\n",
        b"0\rX\r\n\r\n", b"\xb2\r\naa\r\n0\r\n\r\n",
    )  # fmt: skip
    good = (
        b"5\r\nhello\r\n0\r\n\r\n", b"005\r\nhello\r\n000\r\n\r\n", b"A\r\n0123456789\r\n0\r\n\r\n",
        b"5;ilovew3;somuchlove=aretheseparametersfor\r\nhello\r\n0\r\n\r\n",
    )  # fmt: skip
    return [
        *(Case(f"chunks-{raw!r}", _post(CHUNKED) + raw) for raw in bad),
        *(Case(f"chunks-good-{raw!r}", _post(CHUNKED) + raw, 1) for raw in good),
    ]


def line_cases() -> list[Case]:
    """Lines that are ended, named or begun in other ways: garden 2-9, 13-20, 24, 27-30, 34-40."""
    lines = (
        b"Header: v\x00\ralue", b"Header: va\rlue", b"Header: va\nlue", b"Test: a\x00b",
        b": ignored", b":", b"\xefoo: bar", b"no-colon", b"Content-Length 10", b"Fo@: x",
        b"Foo\x01test: x", b"name\r\n : value", b"Useless:\n\nGET /smuggled HTTP/1.1",
        b"Visible: :/\rSmuggled: :)",
        b"Content-Length\x85: 10", b"Content-Length : 5", b"Content-Length\t: 5", b"Host: b",
        b"\rZGET /smuggled HTTP/1.1: x", b"Foo: bar\r\n Content-Length: 38", b"a(b): c", b'"a": c',
        b"Connection\r\033\065\325eep-Alive", b"Upgrade: h2c\r\nConnection: Upgrade",
        b"Upgrade: websocket\r\nConnection: upgrade",
    )  # fmt: skip
    starts = (
        b"GET / HTTP/1.32", b"GET / HTTP/5.6", b"GET / HTTP/2.0", b"GET / HTTP/0.9", b"GET /",
        b"GET / HTTP/\r\r1.1", b"GET / HTTP/4294967295.255", b"GET /\nHTTP/1.1", b"GET / ICE/1.0",
        b"GET / IHTTP/1.0", b"PUT / RTSP/1.0", b"MKCOLA / HTTP/1.1", b"get / HTTP/1.1",
        b'G=":<>(e),[T];?" / HTTP/1.1',
        b"GET\t/ HTTP/1.1", b"GET /\x01 HTTP/1.1",
        b"GET /\x00 HTTP/1.1", b"\x00 / HTTP/1.1", b" GET / HTTP/1.1", b"GET / HTTP/1.1 ",
        b"GET / http/1.1", b"GET / HTTP/1,1", b"GET / HTTP/11", b"GET / HTTP/1.1\n",
    )  # fmt: skip
    return [
        *(Case(f"line-{line!r}", _get(line)) for line in lines),
        *(Case(f"start-{line!r}", line + b"\r\nHost: a\r\n\r\n") for line in starts),
        # Allowed (RFC 9112, 3): words of a request line may be parted by more than one space.
        Case("own-two-spaces", b"GET  /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 1),
        Case("own-no-host", b"GET / HTTP/1.1\r\n\r\n"),
        Case("own-space-before-host", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
        Case("own-lf-only", b"GET / HTTP/1.1\nHost: a\n\n"),
        Case("own-1.0-chunked", _post(CHUNKED).replace(b"1.1", b"1.0") + b"0\r\n\r\n"),
        Case("own-http2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        Case("own-connect", b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ]


def all_cases() -> list[Case]:
    """The whole corpus, in a fixed order."""
    return [*hidden_cases(), *length_cases(), *chunk_cases(), *line_cases()]
