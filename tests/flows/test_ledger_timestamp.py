"""A real RFC 3161 authority (Debian's openssl behind a small server) stamps checkpoints."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import threading
import time

import pytest
from scenes import Scene

from modelkeep.adapters.timestamp_rfc3161 import ANSWER_BYTES_MAX, HttpTimestampAuthority
from modelkeep.core.errors import (
    ConfigError,
    IntegrityError,
    MissingError,
    RefusedError,
    UnavailableError,
    UsageError,
)
from modelkeep.ledger.beside import TIMESTAMP
from modelkeep.ledger.stamp import parsed_stamp, stamp_bytes

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")

CONFIG = """
[tsa]
default_tsa = own
[own]
serial = {folder}/serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.3.6.1.4.1.32473.1
digests = sha256
ess_cert_id_alg = sha256
"""
EXTENSIONS = "extendedKeyUsage=critical,timeStamping\nbasicConstraints=critical,CA:FALSE\n"


def openssl(*words):
    command = ["openssl", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True)


def made_authority(folder, name):
    """A root, and a stamping certificate that it signed."""
    root, own = folder / f"{name}-root", folder / name
    openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-days", "30", "-subj", f"/CN={name} root", "-keyout", f"{root}.key", "-out", f"{root}.pem",
        "-addext", "keyUsage=critical,keyCertSign",
    )  # fmt: skip
    openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
        "-keyout", f"{own}.key", "-out", f"{own}.csr",
    )  # fmt: skip
    extensions = folder / f"{name}.ext"
    extensions.write_text(EXTENSIONS)
    openssl(
        "x509", "-req", "-in", f"{own}.csr", "-CA", f"{root}.pem", "-CAkey", f"{root}.key",
        "-CAcreateserial", "-days", "20", "-extfile", extensions, "-out", f"{own}.pem",
    )  # fmt: skip
    return root.with_suffix(".pem").read_bytes()


class Authority:
    """Answers each request with openssl, or as a test says."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "tsa.cnf").write_text(CONFIG.format(folder=folder))
        (folder / "serial").write_text("01")
        self.roots = made_authority(folder, "own")
        self.asked = 0
        self.answer = self.stamped
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                outer.asked += 1
                query = self.rfile.read(int(self.headers["Content-Length"]))
                outer.answer(self, query)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/tsr"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reply(self, query, signer="own"):
        files = {name: self.folder / name for name in ("query.tsq", "reply.tsr")}
        files["query.tsq"].write_bytes(query)
        openssl(
            "ts", "-reply", "-config", self.folder / "tsa.cnf", "-queryfile", files["query.tsq"],
            "-inkey", self.folder / f"{signer}.key", "-signer", self.folder / f"{signer}.pem",
            "-out", files["reply.tsr"],
        )  # fmt: skip
        return files["reply.tsr"].read_bytes()

    def stamped(self, request, query):
        self.send(request, self.reply(query))

    @staticmethod
    def send(request, body, status=200):
        request.send_response(status)
        request.send_header("Content-Type", "application/timestamp-reply")
        request.end_headers()
        request.wfile.write(body)

    def client(self, roots=None, wait_s=5.0):
        return HttpTimestampAuthority(self.url, roots_pem=roots or self.roots, wait_s=wait_s)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp("tsa"))
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def authority(shared):
    shared.answer = shared.stamped
    return shared


MESSAGE = b"a checkpoint\n"


def test_a_stamp_says_when_and_of_what(authority):
    before_ns = time.time_ns()
    client = authority.client()
    answer = client.stamped(MESSAGE)
    assert before_ns - 10**9 <= client.stamped_ns(answer, MESSAGE) <= time.time_ns()
    with pytest.raises(IntegrityError, match=r"timestamp\.bad"):
        client.stamped_ns(answer, MESSAGE + b"x")


def test_an_authority_that_nobody_named_is_not_believed(authority):
    answer = authority.client().stamped(MESSAGE)
    other = authority.client(roots=made_authority(authority.folder, "other"))
    with pytest.raises(IntegrityError, match=r"timestamp\.bad"):
        other.stamped_ns(answer, MESSAGE)
    authority.answer = lambda request, query: authority.send(
        request, authority.reply(query, signer="other")
    )
    with pytest.raises(IntegrityError, match=r"timestamp\.bad"):
        authority.client().stamped(MESSAGE)


def test_an_old_answer_is_not_taken_for_a_new_one(authority):
    old = authority.client().stamped(MESSAGE)
    authority.answer = lambda request, _: authority.send(request, old)
    with pytest.raises(IntegrityError, match="Nonce"):
        authority.client().stamped(MESSAGE)


def test_any_flipped_byte_of_an_answer_is_refused_or_changes_nothing(authority):
    client = authority.client()
    answer = client.stamped(MESSAGE)
    right_ns = client.stamped_ns(answer, MESSAGE)
    for at in range(0, len(answer), 7):
        changed = answer[:at] + bytes([answer[at] ^ 0x10]) + answer[at + 1 :]
        try:
            assert client.stamped_ns(changed, MESSAGE) == right_ns  # an unsigned corner of it
        except IntegrityError as error:
            assert error.code == "timestamp.bad"  # noqa: PT017 - or nothing at all
    for rubbish in (b"", b"x", answer[:100], bytes(500)):
        with pytest.raises(IntegrityError, match=r"timestamp\.bad"):
            client.stamped_ns(rubbish, MESSAGE)


@pytest.mark.parametrize("fault", ["status", "long", "slow", "drip"])
def test_an_authority_that_misbehaves_is_left(authority, fault):
    def misbehave(request, _):
        if fault == "status":
            authority.send(request, b"", status=302)
        elif fault == "long":
            authority.send(request, bytes(ANSWER_BYTES_MAX + 1))
        elif fault == "slow":
            time.sleep(1.0)
        else:
            for _ in range(20):
                request.wfile.write(b"X")
                request.wfile.flush()
                time.sleep(0.05)

    authority.answer = misbehave
    started_s = time.monotonic()
    with pytest.raises(UnavailableError, match=r"timestamp\.unavailable"):
        authority.client(wait_s=0.4).stamped(MESSAGE)
    assert time.monotonic() - started_s < 1.0


def test_what_is_no_address_and_no_certificate_is_refused(authority):
    for url in ("ftp://x/", "https://", "tsa", "file:///etc/passwd", "http://a\n/"):
        with pytest.raises(UsageError, match=r"timestamp\.url"):
            HttpTimestampAuthority(url, roots_pem=authority.roots, wait_s=1)
    for roots in (b"", b"rubbish"):
        with pytest.raises(ConfigError, match=r"config\.certificates"):
            HttpTimestampAuthority(authority.url, roots_pem=roots, wait_s=1)


# ---- in a keep ----------------------------------------------------------------------------------


@pytest.fixture
def scene(tmp_path, authority):
    made = Scene(tmp_path)
    made.create().close()
    path = made.keep_path / "modelkeep.toml"
    text = made.disk.read(path).decode()
    settings = f'\n[ledger.timestamp]\nurls = ["{authority.url}"]\nroots = "tsa.pem"\n'
    made.disk.rewrite(path, (text + settings).encode())
    (made.keep_path / "tsa.pem").write_bytes(authority.roots)
    return made


def test_a_stamped_checkpoint_is_verified_ever_after(scene, authority):
    with scene.open() as keep:
        done = keep.ledger.evidence.timestamp(authority.url)
        assert abs(done.at_ns - time.time_ns()) < 10 * 10**9
        assert keep.ledger.tail(1)[0][1].kind == "ledger.timestamped"
    with scene.open() as keep:
        (stamp,) = keep.ledger.evidence.witnessed().stamps
        assert (stamp.size, stamp.at_ns) == (done.size, done.at_ns)
        assert all(report.is_whole for _, report in keep.ledger.verify())
        assert keep.check().is_whole
        for store in keep.opened.stores:
            assert sum(f"/{TIMESTAMP}/" in stat.name for stat in store.list("ledger/")) == 1


def test_a_stamp_that_does_not_verify_fails_the_verification(scene, authority):
    with scene.open() as keep:
        done = keep.ledger.evidence.timestamp(authority.url)
        store = keep.opened.store
        stamp = parsed_stamp(store.get(done.object))
        forged = type(stamp)(note=stamp.note, answer=stamp.answer[:-5] + b"12345", url=stamp.url)
        for each in keep.opened.stores:
            each.delete(done.object)
            each.put(done.object, stamp_bytes(forged))
        assert not keep.ledger.evidence.witnessed().is_whole
        unsigned = type(stamp)(note="nothing\n\nsigned\n", answer=stamp.answer, url=stamp.url)
        store.delete(done.object)
        store.put(done.object, stamp_bytes(unsigned))
        assert not all(report.is_whole for _, report in keep.ledger.verify())


def test_only_listed_authorities_are_asked(scene, authority):
    before = authority.asked
    with scene.open() as keep:
        for url in ("http://127.0.0.1:1/", authority.url + "?x", ""):
            with pytest.raises(RefusedError, match=r"timestamp\.unlisted"):
                keep.ledger.evidence.timestamp(url)
    assert authority.asked == before
    (scene.keep_path / "tsa.pem").unlink()
    with scene.open() as keep, pytest.raises(MissingError, match=r"timestamp\.roots"):
        keep.ledger.evidence.timestamp(authority.url)
