"""Our gateway with one protection taken out, so that the protection's price can be measured.

The product has no such switch: a switch that turns authentication off would sooner or later be
found turned off. So this is a process of the benchmark. `launcher` writes a program that stands in
for Python when the supervisor starts its children: every child is what it always is, but a gateway
is this file, which replaces one part of the composition in its own memory and then runs
`modelkeep.workers.gateway` as it is.

What is left without each:

    tls      HTTP in the clear
    key      whoever calls is the principal of the first good key; no header is looked at
    schema   numbers are decoded and sent on; no name, type, shape, range or finiteness is compared,
             neither of inputs nor of the replica's outputs
    limits   nobody is counted
    record   a position is given at once; nothing is written, nothing waits for the disk

A name that is replaced here and does not exist any more is an error: the benchmark breaks instead
of measuring nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROTECTIONS = ("tls", "key", "schema", "limits", "record")


def launcher(folder: Path, protection: str) -> Path:
    """A stand-in for Python whose gateways lack one protection."""
    path = folder / f"python-without-{protection}"
    python, me = shlex.quote(sys.executable), shlex.quote(str(Path(__file__).resolve()))
    supervisor = (
        "import runpy, sys; sys.executable = sys.argv.pop(1); "
        'runpy.run_module("modelkeep.workers.supervisor", run_name="__main__", alter_sys=True)'
    )
    path.write_text(
        "#!/bin/sh\n"
        'case "$3" in\n'
        f'modelkeep.workers.gateway) shift 3; exec {python} -I {me} {protection} "$@" ;;\n'
        f"modelkeep.workers.supervisor) shift 3; exec {python} -I -c {shlex.quote(supervisor)} "
        f'{shlex.quote(str(path))} "$@" ;;\n'
        f'*) exec {python} "$@" ;;\n'
        "esac\n"
    )
    path.chmod(0o700)
    return path


def replace(owner: Any, name: str, value: Any) -> Any:
    """Put something in the place of what must be there; what it was."""
    former = getattr(owner, name)
    setattr(owner, name, value)
    return former


def without_tls() -> None:
    """No handshake: what connects speaks HTTP."""
    from modelkeep.web import accepting  # noqa: PLC0415

    async def plain(loop: Any, client: Any, *, make: Any, context: Any, seconds: float) -> None:
        del context, seconds
        await loop.connect_accepted_socket(make, client)

    replace(accepting, "_handshake", plain)


def without_key() -> None:
    """The first good key counts for everyone after it."""
    from modelkeep.gate.authn import Keyring  # noqa: PLC0415

    known: list[Any] = []

    def principal_of(self: Any, *args: Any, **options: Any) -> Any:
        if not known:
            known.append(asked(self, *args, **options))
        return known[0]

    asked = replace(Keyring, "principal_of", principal_of)


def without_schema() -> None:
    """Values travel as they came."""
    import modelkeep.flows.serve as flow  # noqa: PLC0415
    import modelkeep.gate.schema as check  # noqa: PLC0415
    from modelkeep.kernels.wire import Tensor  # noqa: PLC0415

    def passed(schema: Any, shapes: Any, tensors: Any) -> Any:
        return tuple(
            Tensor(port.name, port.dtype, shape, raw)
            for port, shape, raw in zip(schema.outputs, shapes, tensors, strict=True)
        )

    replace(check, "_demand_form", lambda *_given, **_options: None)
    replace(check, "is_sound", lambda *_given, **_options: True)
    replace(flow, "cleared", passed)


def without_limits() -> None:
    """Whatever is set as limits, nobody is counted."""
    from modelkeep.flows.call import Unlimited  # noqa: PLC0415
    from modelkeep.flows.serve import Serving  # noqa: PLC0415

    unlimited = Unlimited()
    Serving.limits = property(lambda _self: unlimited, lambda _self, _value: None)  # type: ignore[assignment,misc]


def without_record() -> None:
    """A record is taken and dropped."""
    from modelkeep.adapters.call_journal import CallJournal  # noqa: PLC0415

    positions = itertools.count()

    def record(_self: Any, _frame: bytes) -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.set_result(next(positions))
        return future

    replace(CallJournal, "record", record)


WITHOUT: dict[str, Callable[[], None]] = {
    "tls": without_tls,
    "key": without_key,
    "schema": without_schema,
    "limits": without_limits,
    "record": without_record,
}


def main() -> None:
    """Take a protection out, then be the gateway."""
    protection = sys.argv.pop(1)
    WITHOUT[protection]()
    runpy.run_module("modelkeep.workers.gateway", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    assert tuple(WITHOUT) == PROTECTIONS
    os.environ.clear()  # as the supervisor leaves it
    main()
