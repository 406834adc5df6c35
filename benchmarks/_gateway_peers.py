"""The peers of benchmarks/gateway, each started as its users would: Triton, nginx, MLServer.

NVIDIA Triton is the server in PyPI's nvidia-pytriton, with a model repository of our own, its
Python backend over ONNX Runtime (`peers/triton`), as it comes and told to join calls. nginx
is Debian's; before Triton it does TLS, a key check and limits that never refuse, and writes no
log. MLServer runs in one process, which is its fastest for a small model on two cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from _gateway_load import Side
from _gateway_models import Model
from _vault_environments import environment, last_line

HERE = Path(__file__).resolve().parent
MLSERVER = HERE / "peers" / "mlserver"
TRITON = HERE / "peers" / "triton"
START_TIMEOUT_S = 60.0
BATCH_ROWS_MAX = 64  # as [serve] batch_rows_max
_QUIET = {"stdout": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}

NGINX = """daemon off;
worker_processes {workers};
pid {home}/nginx.pid;
error_log {home}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {home}/bodies;
    proxy_temp_path {home}/proxied;
    fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
    client_max_body_size 16m;
    client_body_buffer_size 4m;
    keepalive_requests 1000000000;
    keepalive_timeout 75s;
    map_hash_bucket_size 256;
    map $http_authorization $is_known {{ default 0; "Bearer {key}" 1; }}
    limit_req_zone $http_authorization zone=calls:1m rate=1000000r/s;
    limit_conn_zone $http_authorization zone=connections:1m;
    upstream rest {{ server 127.0.0.1:{rest}; keepalive 256; keepalive_requests 1000000000; }}
    upstream grpc {{ server 127.0.0.1:{grpc}; keepalive 256; keepalive_requests 1000000000; }}
    ssl_certificate {home}/chain.pem;
    ssl_certificate_key {home}/chain.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ciphers {ciphers};
    limit_req zone=calls burst=100000 nodelay;
    limit_conn connections 4096;
    server {{
        listen 127.0.0.1:{port} ssl;
        location / {{
            if ($is_known = 0) {{ return 401; }}
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_pass http://rest;
        }}
    }}
    server {{
        listen 127.0.0.1:{grpc_port} ssl http2;
        location / {{
            if ($is_known = 0) {{ return 401; }}
            grpc_pass grpc://grpc;
        }}
    }}
}}
"""
# The same list as the gateway's own (Mozilla's intermediate configuration).
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)


@contextlib.contextmanager
def triton(folder: Path, models: Sequence[Model], *, joins_calls: bool) -> Iterator[Side | None]:
    """Triton bare; None, and a line, where it cannot be installed.

    Args:
        joins_calls: whether it is told to batch (`dynamic_batching`), which it does not by itself.
    """
    python = environment("triton")
    if python is None:
        yield None
        return
    home = folder / "triton"
    packages = next((python.parent.parent / "lib").glob("python3*")) / "site-packages"
    server = packages / "pytriton" / "tritonserver"
    stub = f"{sys.version_info.major}.{sys.version_info.minor}"
    backend = home / "backends" / "python"
    shutil.copytree(server / "backends" / "python", backend)
    shutil.copy(server / "python_backend_stubs" / stub / "triton_python_backend_stub", backend)
    for each in models:
        written_for_triton(home / "models" / each.name, each, packages, joins_calls=joins_calls)
    rest, grpc = free_port(), free_port()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                server / "bin" / "tritonserver", f"--model-repository={home / 'models'}",
                f"--backend-directory={home / 'backends'}", "--disable-auto-complete-config",
                "--http-address=127.0.0.1", f"--http-port={rest}",
                "--grpc-address=127.0.0.1", f"--grpc-port={grpc}",
                "--allow-metrics=false", "--log-verbose=0",
            ],
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(home),
                "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
            },
            stderr=log, process_group=0, **_QUIET,
        )  # fmt: skip
    with ended(process):
        url = f"http://127.0.0.1:{rest}"
        wait_for(f"{url}/v2/health/ready", process, home / "log")
        name = "triton, joining" if joins_calls else "triton"
        yield Side(name, url, {"triton": (process.pid,)}, f"http://127.0.0.1:{grpc}")


def written_for_triton(folder: Path, model: Model, packages: Path, *, joins_calls: bool) -> None:
    """One model of a model repository."""
    version = folder / "1"
    version.mkdir(parents=True)
    shutil.copy(model.path, version / "model.onnx")
    shutil.copy(TRITON / "model.py", version)
    (version / "site-packages").symlink_to(packages)
    outputs = ", ".join(
        f'{{ name: "{name}" data_type: {kind} dims: {list(shape)} }}'
        for name, kind, shape in model.outputs
    )
    (folder / "config.pbtxt").write_text(
        f'name: "{model.name}"\nbackend: "python"\nmax_batch_size: {BATCH_ROWS_MAX}\n'
        f'input [ {{ name: "{model.input_name}" data_type: TYPE_FP32 '
        f"dims: {list(model.input_shape)} }} ]\noutput [ {outputs} ]\n"
        "instance_group [ { kind: KIND_CPU count: 1 } ]\n" + "dynamic_batching { }\n" * joins_calls
    )


@contextlib.contextmanager
def nginx(folder: Path, behind: Side, chain: bytes) -> Iterator[Side | None]:
    """What stands before Triton in a real installation; its CPU and Triton's count together.

    Args:
        chain: certificate and key, PEM.
    """
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        print("nginx is not here: its rows are missing")
        yield None
        return
    home = folder / "nginx"
    home.mkdir()
    (home / "chain.pem").write_bytes(chain)
    (home / "chain.pem").chmod(0o600)
    key, port, grpc_port = secrets.token_urlsafe(32), free_port(), free_port()
    (home / "nginx.conf").write_text(
        NGINX.format(
            home=home, key=key, port=port, grpc_port=grpc_port, ciphers=CIPHERS,
            workers=os.cpu_count(), rest=behind.url.rpartition(":")[2],
            grpc=behind.grpc_url.rpartition(":")[2],
        )
    )  # fmt: skip
    process = subprocess.Popen(
        [program, "-c", home / "nginx.conf", "-p", home],
        stderr=subprocess.DEVNULL, process_group=0, **_QUIET,
    )  # fmt: skip
    with ended(process):
        wait_for_port(port, process, home / "error.log")
        yield Side(
            f"nginx+{behind.name}", f"https://127.0.0.1:{port}",
            {"nginx": (process.pid,), **behind.processes},
            f"https://127.0.0.1:{grpc_port}", f"Bearer {key}",
        )  # fmt: skip


@contextlib.contextmanager
def mlserver(folder: Path, models: Sequence[Model]) -> Iterator[Side | None]:
    """MLServer bare."""
    python = environment("mlserver")
    if python is None:
        yield None
        return
    home = folder / "mlserver"
    for each in models:
        place = home / each.name
        place.mkdir(parents=True)
        shutil.copy(each.path, place / "model.onnx")
        shutil.copy(MLSERVER / "model.py", place)
        settings = json.loads((MLSERVER / "model-settings.json").read_text())
        settings["name"] = each.name
        settings["parameters"]["uri"] = str(place / "model.onnx")
        (place / "model-settings.json").write_text(json.dumps(settings))
    settings = json.loads((MLSERVER / "settings.json").read_text())
    settings |= {"http_port": free_port(), "grpc_port": free_port()}
    (home / "settings.json").write_text(json.dumps(settings))
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [python.parent / "mlserver", "start", "."],
            cwd=home,
            env={
                "PATH": f"{python.parent}:/usr/bin:/bin", "HOME": str(home),
                "PYTHONPATH": str(home / models[0].name),
            },
            stderr=log, process_group=0, **_QUIET,
        )  # fmt: skip
    with ended(process):
        url = f"http://127.0.0.1:{settings['http_port']}"
        for each in models:
            wait_for(f"{url}/v2/models/{each.name}/ready", process, home / "log")
        grpc_url = f"http://127.0.0.1:{settings['grpc_port']}"
        yield Side("mlserver", url, {"mlserver": (process.pid,)}, grpc_url)


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End a peer, and what it started, with its block."""
    try:
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    """A TCP port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        return int(made.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until an address answers 200."""
    ends = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < ends:
        demand_running(process, log)
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1):  # noqa: S310  # ours
            return
        time.sleep(0.2)
    raise TimeoutError(url)


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until somebody listens."""
    ends = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < ends:
        demand_running(process, log)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise TimeoutError(str(port))


def demand_running(process: subprocess.Popen[bytes], log: Path) -> None:
    """Stop if a peer has ended, with what it said last."""
    if process.poll() is not None:
        said = last_line(log.read_text(errors="replace")) if log.exists() else ""
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}: {said}")
