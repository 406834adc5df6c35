"""A small bucket over HTTP that does what a test tells it: the XML API of S3 and Google, and harm.

The real servers of `object_servers` prove that the adapter speaks the protocol; this one is slow,
wrong or hostile on demand. It is also what the adapter for Google was tried on: the emulators
that can be installed lack the XML API that the library writes with.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from object_servers import ObjectServer, protected

PAGE = 1000
S3_IDENTITY = '{"AccessKeyId": "testing", "SecretAccessKey": "canary-secret"}'


class Bucket:
    """What the server holds, and what is wrong with it.

    Attributes:
        fails_every: every so many-th request gets 500; 0 for none.
        lie: `longer`, `shorter`, `endless`, `unordered`, `huge`, `denied`, `locked`, `overwrites`,
            `silent`, or empty.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.fails_every = 0
        self.lie = ""
        self.requests: list[str] = []
        self.headers: list[str] = []
        self.hushed = threading.Event()
        self._count = itertools.count(1)
        self.lock = threading.Lock()

    def fails_now(self) -> bool:
        return bool(self.fails_every) and next(self._count) % self.fails_every == 0


@contextmanager
def running_bucket(folder: Path, *, kind: str = "s3") -> Iterator[tuple[ObjectServer, Bucket]]:
    """Start one, with a bucket named `keep`."""
    bucket = Bucket()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"bucket": bucket}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    identity = S3_IDENTITY
    if kind == "gs":
        identity = (
            f'{{"gcs_base_url": "{endpoint}", "disable_oauth": true, "client_email": "", '
            '"private_key": "", "private_key_id": ""}'
        )
    credentials = protected(folder / f"{kind}.json", identity)
    try:
        yield ObjectServer(url=f"{kind}://keep", endpoint=endpoint, credentials=credentials), bucket
    finally:
        bucket.hushed.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: Bucket
    timeout = 30

    def log_message(self, *_):
        pass

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix("/keep").removeprefix("/")

    def _begun(self) -> bool:
        bucket = self.bucket
        bucket.requests.append(f"{self.command} {self.path}")
        bucket.headers.append(str(self.headers))
        if bucket.lie == "silent":
            bucket.hushed.wait(20)
            self.close_connection = True
            return False
        if bucket.fails_now():
            self._body()
            self._answer(500, b"<Error><Code>InternalError</Code></Error>")
            return False
        if bucket.lie in ("denied", "locked"):
            self._body()
            reason = "AccessDenied" if bucket.lie == "denied" else "ObjectLocked"
            self._answer(403, f"<Error><Code>{reason}</Code></Error>".encode())
            return False
        return True

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status: int, body: bytes = b"", *, size: int | None = None, **more) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if size is None else size))
        self.send_header("ETag", '"etag"')
        self.send_header("Last-Modified", formatdate(usegmt=True))
        self.send_header("x-goog-generation", "1")
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_PUT(self):
        if not self._begun():
            return
        raw, key = self._body(), self._key()
        is_new = self.headers.get("If-None-Match") or self.headers.get("x-goog-if-generation-match")
        with self.bucket.lock:
            if is_new and key in self.bucket.objects and self.bucket.lie != "overwrites":
                self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
                return
            self.bucket.objects[key] = raw
        self._answer(200)

    def do_DELETE(self):
        if self._begun():
            found = self.bucket.objects.pop(self._key(), None)
            self._answer(204 if found is not None else 404)

    def do_HEAD(self):
        if self._begun():
            raw = self.bucket.objects.get(self._key())
            self._answer(404 if raw is None else 200, size=None if raw is None else len(raw))

    def do_GET(self):
        if not self._begun():
            return
        if "list-type" in self.path:
            self._list()
            return
        raw = self.bucket.objects.get(self._key())
        if raw is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        if self.bucket.lie == "huge":
            self._answer(200, raw, size=2**40)
            self.close_connection = True
            return
        asked = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", self.headers.get("Range") or "")
        if asked is None:
            self._answer(200, *self._lied(raw))
            return
        start = int(asked[1])
        if start >= len(raw):
            self._answer(416, b"<Error><Code>InvalidRange</Code></Error>")
            return
        end = min(int(asked[2] or len(raw) - 1) + 1, len(raw))
        told = f"bytes {start}-{end - 1}/{len(raw)}"
        self._answer(206, *self._lied(raw[start:end]), Content_Range=told)

    def _lied(self, raw: bytes) -> tuple[bytes, ...]:
        if self.bucket.lie == "longer":
            return (raw + b"x" * 10_000,)
        if self.bucket.lie == "shorter":
            return (raw[:-1],)
        return (raw,)

    def _list(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        after = query.get("continuation-token") or query.get("start-after") or ""
        prefix = query.get("prefix", "")
        if self.bucket.lie == "endless":
            found, is_more = [f"{prefix}same" for _ in range(PAGE)], True
        else:
            names = [each for each in self.bucket.objects if each.startswith(prefix)]
            found = [name for name in sorted(names) if name > after]
            found, is_more = found[:PAGE], len(found) > PAGE
        if self.bucket.lie == "unordered":
            found.reverse()
        told = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>{len(self.bucket.objects.get(name, b''))}"
            "</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>e</ETag></Contents>"
            for name in found
        )
        token = f"<NextContinuationToken>{found[-1]}</NextContinuationToken>" if is_more else ""
        body = f"<ListBucketResult>{told}{token}</ListBucketResult>"
        self._answer(200, body.encode(), Content_Type="application/xml")
