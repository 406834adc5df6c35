"""Callers without patience: each call is sent once, and whatever is no answer is counted."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
import time
from collections import Counter
from urllib.parse import urlsplit

BODY = json.dumps(
    {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [1.0] * 64}]}
)
CALL_S = 20.0


class Callers:
    """Threads that call one model until the block ends.

    Attributes:
        versions: how often each version answered.
        failed: what was no answer.
        certificates: of the servers that were met, when every call makes a connection of its own.
    """

    def __init__(
        self, url, ca, key, *, count=3, is_fresh=False, model="digits", body=BODY, pause_s=0.0
    ):
        self.address = urlsplit(url)
        self.context = ssl.create_default_context(cafile=str(ca))
        self.headers = {"authorization": f"Bearer {key}"}
        self.is_fresh = is_fresh
        self.path = f"/v2/models/{model}/infer"
        self.body = body
        self.pause_s = pause_s
        self.versions = Counter()
        self.failed = []
        self.certificates = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(count)]

    @property
    def done(self):
        return sum(self.versions.values())

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(CALL_S * 2)

    def wait(self, calls, wait_s=30.0):
        """Until so many more calls were answered, or refused."""
        until = time.monotonic() + wait_s
        begun = self.done + len(self.failed)
        while self.done + len(self.failed) - begun < calls:
            assert time.monotonic() < until, (self.done, self.failed[:3])
            time.sleep(0.01)

    def _connected(self):
        return http.client.HTTPSConnection(
            self.address.hostname, self.address.port, context=self.context, timeout=CALL_S
        )

    def _call(self):
        connection = self._connected()
        while not self._stop.is_set():
            try:
                connection.request("POST", self.path, self.body, self.headers)
                if self.is_fresh:
                    raw = connection.sock.getpeercert(binary_form=True)
                    with self._lock:
                        self.certificates.add(raw)
                answer = connection.getresponse()
                got = json.loads(answer.read())
                if answer.status != 200:
                    raise AssertionError((answer.status, got))
                with self._lock:
                    self.versions[got["model_version"]] += 1
            except Exception as error:  # noqa: BLE001 - counted, whatever it is
                with self._lock:
                    self.failed.append(repr(error))
                connection.close()
                connection = self._connected()
            if self.is_fresh:
                connection.close()
                connection = self._connected()
            if self.pause_s:
                self._stop.wait(self.pause_s)
        with contextlib.suppress(OSError):
            connection.close()
