"""The whole story on real data: every step a real verb, a real client, a real process."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from modelkeep.cli.demo_acts import Stage, act_admit, act_make, act_serve, act_train
from modelkeep.cli.demo_disaster import (
    act_attack,
    act_backup,
    act_client,
    act_disaster,
    act_ledger,
)
from modelkeep.cli.demo_report import print_summary, write_report
from modelkeep.cli.story import Story
from modelkeep.core.errors import UsageError, extra_hint

REPORT_NAME = "modelkeep-demo.html"
_NEEDS = ("sklearn", "skl2onnx", "tritonclient", "onnxruntime", "uvloop")


def run(options: argparse.Namespace) -> int:
    """Tell the story; leave nothing running and nothing behind but the report."""
    _demand_extras()
    report = (options.report or Path(REPORT_NAME)).resolve()
    with ExitStack() as stack:
        folder = _folder(options.folder, stack, keep=options.serve)
        stack.enter_context(contextlib.chdir(folder))  # so that the story's paths read as typed
        stage = Stage(folder=Path(), story=Story(_passphrase_file(stack)), stack=stack)
        for act in (
            act_make,
            act_train,
            act_admit,
            act_serve,
            act_client,
            act_backup,
            act_attack,
            act_disaster,
            act_ledger,
        ):
            act(stage)
        if not options.serve:
            stage.service.stop()
        write_report(stage, report)
        print_summary(stage, report)
        if options.serve:
            _serve_on(stage)
    return 0


def _serve_on(stage: Stage) -> None:
    """Leave the recovered service up until Ctrl-C, and say how to call it."""
    keep, call = stage.keep.resolve(), (stage.folder / "call.json").resolve()
    model = f"{stage.service.url}/v2/models/digits"
    print(f"\nserving at {stage.service.url} until Ctrl-C; the keep is in {keep}")
    print(f"API key: {stage.api_key}")
    print(
        f"curl --cacert {keep}/ca.pem -H 'Authorization: Bearer {stage.api_key}' "
        f"-H 'Content-Type: application/json' -d @{call} {model}/infer",
        flush=True,
    )
    try:
        stage.service.wait()
    except KeyboardInterrupt:
        print("\nstopping")
    finally:
        stage.service.stop()


def _folder(wanted: Path | None, stack: ExitStack, *, keep: bool) -> Path:
    if wanted is not None:
        if wanted.exists() and any(wanted.iterdir()):
            raise UsageError(
                "demo.folder", f"{wanted} is not empty", hint="name a new folder, or leave it out"
            )
        wanted.mkdir(parents=True, exist_ok=True)
        return wanted.resolve()
    folder = Path(tempfile.mkdtemp(prefix="modelkeep-demo-"))
    if not keep:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _passphrase_file(stack: ExitStack) -> str:
    """A fresh passphrase in a memory file: it is on no disk, in no argv, in no environment."""
    fd = os.memfd_create("passphrase", os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    os.write(fd, secrets.token_urlsafe(24).encode())
    return f"/proc/{os.getpid()}/fd/{fd}"


def _demand_extras() -> None:
    from importlib.util import find_spec  # noqa: PLC0415

    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        raise UsageError(
            "demo.extras",
            f"the demo needs {', '.join(missing)}",
            hint=f"use ./run demo, or {extra_hint('serve', 'demo')}",
        )
