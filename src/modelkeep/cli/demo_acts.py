"""The first acts of the demo: a keep, two models, what is refused, and a service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelkeep.cli.demo_data import Digits, Trained, digits, harmful, trained
from modelkeep.cli.story import Story
from modelkeep.core.errors import UnavailableError

SERVE_WAIT_S = 60.0


class Running:
    """A service that was started by `serve` or `recover --serve`, as a process of its own."""

    def __init__(self, words: list[str], passphrase_file: str, event: str) -> None:
        command = [sys.executable, "-P", "-m", "modelkeep", *words, "--json"]
        self._process = subprocess.Popen(  # noqa: S603 - our own verb, no shell
            [*command, "--passphrase-file", passphrase_file],
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        self.facts: dict[str, Any] = {}
        stdout = self._process.stdout
        while stdout is not None and (line := stdout.readline()):
            self.facts = json.loads(line)
            if self.facts.get("event") == event:
                break
        else:
            status = self._process.wait()
            raise UnavailableError("demo.serve", f"`{' '.join(words)}` ended with {status}")
        self.url: str = self.facts["url"]

    def stop(self) -> None:
        """Drain and end; idempotent."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)  # a background job may ignore SIGINT
            self._process.wait(SERVE_WAIT_S)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def destroy(self, processes: dict[str, int]) -> None:
        """SIGKILL everything at once."""
        for pid in (self._process.pid, *processes.values()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()
        self.stop()

    def wait(self) -> int:
        """Wait for it to end."""
        return self._process.wait()


@dataclass(slots=True)
class Stage:
    """What the acts hand on to each other.

    Attributes:
        api_key: of the caller `alice`.
        measures: figures for the summary.
    """

    folder: Path
    story: Story
    stack: ExitStack
    data: Digits = field(init=False)
    models: tuple[Trained, ...] = ()
    api_key: str = ""
    measures: dict[str, str] = field(default_factory=dict)
    _service: Running | None = None

    @property
    def keep(self) -> Path:
        """The keep's folder."""
        return self.folder / "keep"

    @property
    def offsite(self) -> Path:
        """The second store."""
        return self.folder / "offsite"

    @property
    def at(self) -> tuple[str, str]:
        """The words that say which keep."""
        return "--keep", str(self.keep)

    @property
    def service(self) -> Running:
        """The service that runs now."""
        if self._service is None:
            raise AssertionError("nothing is served yet")
        return self._service

    def start(self, words: list[str], event: str) -> Running:
        """Start a service in a process of its own; it ends with the demo at the latest."""
        self.story.command(words)
        self._service = Running(words, self.story.passphrase_file, event)
        self.stack.callback(self._service.stop)
        return self._service

    def processes(self) -> dict[str, int]:
        """The service's processes as the supervisor names them."""
        facts = json.loads((self.keep / "run" / "service.json").read_bytes())
        return dict(facts["processes"])


def act_make(stage: Stage) -> None:
    """Make a keep."""
    with stage.story.step("Make a keep"):
        made = stage.story.run(
            "init", stage.keep, "--store", f"offsite={stage.offsite}", "--port", "0"
        )[0]
        stage.story.fact(
            f"keep {made['keep_id']}: a root key behind a passphrase, a ledger, "
            f"stores {' and '.join(made['stores'])}"
        )


def act_train(stage: Stage) -> None:
    """Train, export, fine-tune, export again."""
    with stage.story.step("Train a model, fine-tune it"):
        stage.data = digits()
        stage.models = trained(stage.data, stage.folder)
        for number, model in enumerate(stage.models, start=1):
            stage.story.fact(
                f"handwritten digits v{number}: {model.file.stat().st_size:,} bytes of ONNX, "
                f"{model.accuracy:.1%} of {len(stage.data.held_out)} held-out digits right"
            )


def act_admit(stage: Stage) -> None:
    """Refuse what is harmful, let both models in."""
    story = stage.story
    with story.step("Admit: refuse what is harmful, seal the rest"):
        witness = stage.folder / "the-pickle-ran"
        for what, path in harmful(stage.folder, stage.models[0].file.read_bytes(), witness).items():
            if path.name == "cut-edge.onnx":
                story.proven(f"onnxruntime loads {what}", holds=_is_loaded(path))
            verdict = story.run("scan", path, wanted=3)[0]
            story.refusal(f"{what}: {verdict['decision']}: {verdict['findings'][0]['evidence']}")
        story.refused(*stage.at, "admit", path, "--name", "digits", wanted=3)
        story.proven("nothing in the refused files was executed", holds=not witness.exists())
        for number, model in enumerate(stage.models, start=1):
            words = ["--base", f"digits:{number - 1}"] if number > 1 else []
            done = story.run(
                *stage.at, "admit", model.file, "--name", "digits", "--canary", model.canary, *words
            )[0]
            story.proof(f"admitted {done['name']}:{done['version']} {done['digest'][:23]}…")
        alias = story.run(*stage.at, "alias", "digits:prod", "2")[0]
        story.proven("digits:prod is version 2", holds=alias["version"] == 2)


def act_serve(stage: Stage) -> None:
    """Start the service and make a key."""
    story = stage.story
    with story.step("Serve over TLS with two replicas"):
        token = story.run(*stage.at, "tokens", "new", "alice", "--scope", "infer:digits")[0]
        stage.api_key = token["api_key"]
        started_s = time.perf_counter()
        running = stage.start([*stage.at, "serve"], "ready")
        story.fact(
            f"{running.url} serves {', '.join(running.facts['models'])}, ready after "
            f"{time.perf_counter() - started_s:.1f} s"
        )
        for name, pid in stage.processes().items():
            story.fact(f"{name}: process {pid}")
        replica = stage.processes()["replica-digits-2-0"]
        try:
            environment = Path(f"/proc/{replica}/environ").read_bytes()
            sealed = any("memfd:model-digits" in target for target in _opened(replica))
        except PermissionError:
            story.proven("a replica is locked in: we may not even look into it", holds=True)
        else:  # root may
            story.proven(
                "a replica's environment is empty, its weights are a sealed memory file",
                holds=environment == b"" and sealed,
            )


def _opened(pid: int) -> list[str]:
    """What a process's descriptors lead to."""
    return [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]


def _is_loaded(path: Path) -> bool:
    """Whether onnxruntime accepts a file."""
    import onnxruntime  # noqa: PLC0415 - only this act needs it

    onnxruntime.set_default_logger_severity(4)
    try:
        onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 - whatever it raises, it did not load
        return False
    return True
