"""A gateway and its replicas without keep, supervisor or recorder, started from plans of a test."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from modelkeep.adapters.memory_file import sealed_bytes
from modelkeep.adapters.state_sqlite import SqliteState
from modelkeep.adapters.system import SystemEntropy
from modelkeep.core.artifact import Port, Schema
from modelkeep.core.entry import Entry
from modelkeep.core.policy import ANYTHING, Policy
from modelkeep.core.record import to_json
from modelkeep.gate.authn import new_token
from modelkeep.gate.settings import GateSettings
from modelkeep.workers.plan import GatewayPlan, ReplicaPlan, ServedModel

SOURCE = Path(__file__).resolve().parents[2] / "src"
DIGITS_SCHEMA = Schema(
    inputs=(Port(name="x", dtype="FP32", shape=(-1, 64)),),
    outputs=(
        Port(name="label", dtype="INT64", shape=(-1,)),
        Port(name="probabilities", dtype="FP32", shape=(-1, 10)),
    ),
)


def digits_model() -> bytes:
    """Train a small classifier on scikit-learn's handwritten digits; ONNX, about a second."""
    import warnings  # noqa: PLC0415

    from skl2onnx import to_onnx  # noqa: PLC0415  # heavy, and only here
    from sklearn.datasets import load_digits  # noqa: PLC0415
    from sklearn.neural_network import MLPClassifier  # noqa: PLC0415

    rows, labels = load_digits(return_X_y=True)
    rows = rows.astype("float32")
    model = MLPClassifier(hidden_layer_sizes=(64,), max_iter=30, random_state=7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it stops before it converges, on purpose
        model.fit(rows[:1500], labels[:1500])
        made = to_onnx(model, rows[:1], options={"zipmap": False}, target_opset=17)
    made.graph.input[0].name, old = "x", made.graph.input[0].name
    for node in made.graph.node:
        node.input[:] = ["x" if name == old else name for name in node.input]
        node.output[:] = ["label" if name == "output_label" else name for name in node.output]
    for output in made.graph.output:
        if output.name == "output_label":
            output.name = "label"
    return bytes(made.SerializeToString())


def certificate(
    name: str = "localhost",
    *,
    address: str = "127.0.0.1",
    begins_days: float = -0.01,
    ends_days: float = 1,
) -> tuple[bytes, bytes]:
    """A self-signed certificate for loopback: its PEM, and PEM with the key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=begins_days))
        .not_valid_after(now + datetime.timedelta(days=ends_days))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address(address))]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, pem + private


@dataclass
class Process:
    """A started process and what it needs to be started again."""

    module: str
    plan: bytes
    fds: tuple[int, ...]
    popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start with an empty environment, a plan and inherited descriptors."""
        plan_fd = sealed_bytes("plan", self.plan)
        try:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", self.module, "--plan-fd", str(plan_fd)],
                env={"PYTHONPATH": str(SOURCE)},
                pass_fds=(*self.fds, plan_fd),
            )
        finally:
            os.close(plan_fd)

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Signal and wait; returns the exit status."""
        assert self.popen is not None
        with contextlib.suppress(ProcessLookupError):
            self.popen.send_signal(number)
        return self.popen.wait(timeout=30)

    def cpu_s(self) -> float:
        """CPU time used so far."""
        assert self.popen is not None
        return cpu_s(self.popen.pid)


@dataclass
class World:
    """A running gateway with replicas, in a temporary folder."""

    folder: Path
    port: int
    key: str
    metrics_key: str
    limited_key: str
    ca_path: Path
    gateway: Process
    replicas: list[Process]
    state: SqliteState
    journal_name: str
    lifeline: int
    closing: list[Any] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the gateway listens."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def journal_folder(self) -> Path:
        """The gateway's own call journal."""
        return self.folder / "calls"

    def context(self) -> ssl.SSLContext:
        """A client's context that trusts this gateway."""
        return ssl.create_default_context(cafile=str(self.ca_path))

    def wait_ready(self, timeout_s: float = 20.0) -> None:
        """Wait until every model has a ready replica."""
        ends = time.monotonic() + timeout_s
        while time.monotonic() < ends:
            with contextlib.suppress(OSError):
                address = f"{self.url}/v2/health/ready"
                with urllib.request.urlopen(address, context=self.context(), timeout=2) as got:  # noqa: S310
                    if got.status == 200:
                        return
            time.sleep(0.05)
        raise TimeoutError("the gateway did not become ready")

    def stop(self) -> None:
        """End every process and remove the folder."""
        os.close(self.lifeline)
        for process in (self.gateway, *self.replicas):
            if process.popen is not None:
                try:
                    process.popen.wait(timeout=15)
                except subprocess.TimeoutExpired:
                    process.kill()
        self.state.close()
        for each in self.closing:
            each.close()


def token_entry(key: Any, number: int) -> Entry:
    """The ledger entry that makes a token."""
    return Entry(
        kind="token.created",
        at_ns=number,
        actor="benchmark",
        facts={
            "token_id": key.token_id,
            "secret_sha256": key.secret_sha256,
            "principal": key.principal,
            "scopes": key.scopes,
            "expires_ns": key.expires_ns,
        },
    )


def started(
    folder: Path,
    *,
    model: bytes,
    schema: Schema = DIGITS_SCHEMA,
    name: str = "digits",
    replica_count: int = 2,
    settings: GateSettings | None = None,
    policy: Policy = ANYTHING,
) -> World:
    """Start a gateway and replicas for one model."""
    run_folder = folder / "run"
    run_folder.mkdir(parents=True)
    (folder / "calls").mkdir()
    state = SqliteState(folder / "state.db")
    keys = [
        new_token(SystemEntropy(), principal=principal, scopes=scopes)
        for principal, scopes in (
            ("caller", ("infer:*",)),
            ("scraper", ("metrics",)),
            ("other", ("infer:other",)),
        )
    ]
    state.apply(0, [token_entry(token, at) for at, (_, token) in enumerate(keys)])
    lifeline_read, lifeline_write = os.pipe2(os.O_CLOEXEC)
    model_fd = sealed_bytes(name, model)
    replicas, sockets = [], []
    for index in range(replica_count):
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sockets.append(f"{name}-1-{index}.sock")
        listening.bind(f"/proc/self/fd/{_folder_fd(run_folder)}/{sockets[-1]}")
        listening.listen(128)
        plan = ReplicaPlan(
            model=name,
            version=1,
            schema=schema,
            model_fd=model_fd,
            listen_fd=listening.detach(),
            lifeline_fd=lifeline_read,
            batchable=True,
            batch_rows_max=64,
            threads=1,
        )
        fds = (model_fd, plan.listen_fd, lifeline_read)
        replicas.append(Process("modelkeep.workers.replica", to_json(plan), fds))
    ca, chain = certificate()
    ca_path = folder / "ca.pem"
    ca_path.write_bytes(ca)
    public = socket.socket()
    public.bind(("127.0.0.1", 0))
    public.listen(1024)
    port = public.getsockname()[1]
    gateway_plan = GatewayPlan(
        full_path=str(folder / "full"),
        listen_fd=public.detach(),
        lifeline_fd=lifeline_read,
        tls_fd=sealed_bytes("tls", chain),
        commitment_key_fd=sealed_bytes("commitments", os.urandom(32)),
        run_folder=str(run_folder),
        state_path=str(folder / "state.db"),
        journal_folder=str(folder / "calls"),
        journal_name="gateway-0",
        settings=settings or GateSettings(),
        models=(
            ServedModel(
                name=name,
                version=1,
                schema=schema,
                sockets=tuple(sockets),
                is_default=True,
                policy=policy,
            ),
        ),
    )
    fds = (
        gateway_plan.listen_fd,
        lifeline_read,
        gateway_plan.tls_fd,
        gateway_plan.commitment_key_fd,
    )
    gateway = Process("modelkeep.workers.gateway", to_json(gateway_plan), fds)
    world = World(
        folder=folder,
        port=port,
        key=keys[0][0].reveal().decode(),
        metrics_key=keys[1][0].reveal().decode(),
        limited_key=keys[2][0].reveal().decode(),
        ca_path=ca_path,
        gateway=gateway,
        replicas=replicas,
        state=state,
        journal_name="gateway-0",
        lifeline=lifeline_write,
    )
    for process in (gateway, *replicas):
        process.start()
    return world


def cpu_s(pid: int) -> float:
    """CPU time of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _folder_fd(folder: Path) -> int:
    return os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
