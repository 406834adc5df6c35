"""Real servers that a store may lie on, for a test session, on free ports of this machine.

S3: moto's server (PyPI), in this process. Azure: azurite (npm), where `azurite-blob` is on the
PATH. Google Cloud Storage has none: fake-gcs-server and gcp-storage-emulator lack the XML API that
obstore writes with, so `bucket_server` stands in.
"""

from __future__ import annotations

import json
import logging
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modelkeep.adapters.store_settings import StoreSettings

START_S = 20.0
MOTO_ACCOUNT = "123456789012"
AZURITE_ACCOUNT = "devstoreaccount1"
# Known to everybody: https://learn.microsoft.com/azure/storage/common/storage-use-azurite
AZURITE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


@dataclass(frozen=True)
class ObjectServer:
    """A server with an empty bucket, and settings for stores in it."""

    url: str
    endpoint: str
    credentials: Path
    backend: Any = None  # moto's, for what is too slow over HTTP

    def settings(self, prefix: str, **changes) -> StoreSettings:
        facts = {
            "label": "remote",
            "url": f"{self.url}/{prefix}",
            "endpoint": self.endpoint,
            "credentials": f"file:{self.credentials}",
            "retries": 0,
            "timeout_s": 20.0,
        }
        return StoreSettings(**facts | changes)


def protected(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


@contextmanager
def running_s3(folder: Path) -> Iterator[ObjectServer]:
    """moto, with a bucket named `keep` and one with object lock named `locked`."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        identity = {"AccessKeyId": "testing", "SecretAccessKey": "canary-secret"}
        client = s3_client(endpoint)
        client.create_bucket(Bucket="keep")
        client.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
        client.close()
        path = protected(folder / "aws.json", json.dumps(identity))
        backend = pytest.importorskip("moto.backends").get_backend("s3")[MOTO_ACCOUNT]["aws"]
        yield ObjectServer("s3://keep", endpoint, path, backend)
    finally:
        server.stop()


def s3_client(endpoint):
    import boto3  # noqa: PLC0415 - a test's own eyes

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",  # noqa: S106 - moto takes any
        region_name="us-east-1",
    )


@contextmanager
def running_azure(folder: Path) -> Iterator[ObjectServer]:
    """azurite, with a container named `keep`."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite-blob is not on the PATH (npm install -g azurite)")
    port = free_port()
    words = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent"]
    words += ["--skipApiVersionCheck", "--inMemoryPersistence"]
    endpoint = f"http://127.0.0.1:{port}/{AZURITE_ACCOUNT}"
    with _running(words, folder, port):
        _azure_container(endpoint)
        path = protected(folder / "azure.key", AZURITE_KEY)
        yield ObjectServer(url=f"az://{AZURITE_ACCOUNT}/keep", endpoint=endpoint, credentials=path)


def _azure_container(endpoint: str) -> None:
    """Make a container; the shared key's signature as Microsoft describes it."""
    import base64  # noqa: PLC0415
    import hashlib  # noqa: PLC0415
    import hmac  # noqa: PLC0415
    from email.utils import formatdate  # noqa: PLC0415

    date = formatdate(usegmt=True)
    told = f"x-ms-date:{date}\nx-ms-version:2021-08-06\n"
    resource = f"/{AZURITE_ACCOUNT}/{AZURITE_ACCOUNT}/keep\nrestype:container"
    text = "PUT" + "\n" * 12 + told + resource
    digest = hmac.new(base64.b64decode(AZURITE_KEY), text.encode(), hashlib.sha256).digest()
    request = urllib.request.Request(  # noqa: S310 - our own server
        f"{endpoint}/keep?restype=container",
        method="PUT",
        headers={
            "x-ms-date": date,
            "x-ms-version": "2021-08-06",
            "Content-Length": "0",
            "Authorization": f"SharedKey {AZURITE_ACCOUNT}:{base64.b64encode(digest).decode()}",
        },
    )
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310


@contextmanager
def _running(words: list[str], folder: Path, port: int) -> Iterator[None]:
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log)
        try:
            wait_for(port)
            yield
        finally:
            server.terminate()
            server.wait(10)


def wait_for(port: int) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"nothing listens on port {port}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
