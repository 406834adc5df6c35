"""Protected against unprotected: our gateway beside what users put there, on one machine.

Ours has everything on: TLS, API key, schema, limits, a durable record of every call before its
answer leaves; two replicas of a model. The peers, which serve the same ONNX models:

    nginx+triton   NVIDIA Triton behind nginx with TLS, a key check and limits; no record, no schema
    triton         Triton bare: no TLS, no key, nothing
    …, joining     both, with Triton told to join calls (`dynamic_batching`), as ours does
    mlserver       MLServer bare

What is measured, each in interleaved runs, so that a change of the machine's mood meets everyone:

    small         one row of 64 numbers in JSON, 1 to 128 connections
    large         1x3x224x224 in JSON and as binary tensor, 8 connections
    grpc          the small call over gRPC, 1 to 128 connections
    protections   the small call with each protection of ours taken out (`_gateway_variant.py`)
    text          tokens a second of a language model's streams, beside `generate` (`--only text`)

Run it as `./run bench gateway`; `--only NAME` for a part. With a load average over 1 at the start
nothing is judged. `--profile PAYLOAD` runs only ours under load and says what its gateway spends
CPU on.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import _gateway_report as report
import _gateway_text
from _gateway_load import Load, Payload, Run, Side
from _gateway_models import Model, made_models, payloads
from _gateway_ours import Options, World, demand_records, fdatasync_ms, ours
from _gateway_peers import mlserver, nginx, triton
from _gateway_profile import profiled
from _gateway_variant import PROTECTIONS
from _vault_environments import VENVS

PARTS = ("small", "large", "grpc", "protections")
TEXT = "text"  # by itself: it makes an environment with torch
CONNECTIONS = (1, 8, 32, 128)
LARGE_CONNECTIONS = 8
PRICE_CONNECTIONS = (1, 32)
WARM_UP_S = 1.0


def main() -> int:
    """Start everybody, load them in turns, print, write the results; 1 when a bar was missed."""
    options = arguments()
    if options.only == [TEXT]:
        _gateway_text.show(_gateway_text.measured(is_quick=options.pairs < 5))
        return 0
    load_average = os.getloadavg()[0]
    if load_average > report.LOAD_MAX:
        print(f"the load average is {load_average:.2f}: nothing will be judged", flush=True)
    VENVS.mkdir(exist_ok=True)
    # Beside the repository and not in /tmp, which may be memory: records must reach a disk.
    with tempfile.TemporaryDirectory(dir=VENVS) as name:
        folder = Path(name)
        models = made_models(folder)
        load = Load(folder, options.seconds)
        if options.profile:
            with ours(folder / "ours", models, Options(options.gateways)) as world:
                payload = payloads()[options.profile]
                print(profiled(load, world, payload, options.connections))
            return 0
        tables = [
            PART_FUNCTIONS[part](folder / part, models, load, options)
            for part in PARTS
            if part in (options.only or PARTS)
        ]
    return report.finished(tables, load_average)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", choices=(*PARTS, TEXT), action="append", help="one part, or several"
    )
    parser.add_argument("--pairs", type=int, default=5, help="runs of each")
    parser.add_argument("--seconds", type=int, default=3, help="of one run")
    parser.add_argument("--gateways", type=int, default=0, help="as `[serve] gateways`")
    parser.add_argument("--alone", action="store_true", help="only ours, without the peers")
    parser.add_argument("--profile", metavar="PAYLOAD", choices=tuple(payloads()))
    parser.add_argument("--connections", type=int, default=32, help="with --profile")
    return parser.parse_args()


@contextlib.contextmanager
def everybody(
    folder: Path, models: Sequence[Model], options: argparse.Namespace
) -> Iterator[tuple[World, list[Side]]]:
    """Ours and the peers that can be had."""
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        world = stack.enter_context(ours(folder / "ours", models, Options(options.gateways)))
        sides: list[Side | None] = [world.side]
        if not options.alone:
            for joins_calls in (False, True):
                home = folder / ("joining" if joins_calls else "as-it-comes")
                home.mkdir()
                bare = stack.enter_context(triton(home, models, joins_calls=joins_calls))
                if bare is not None:
                    chain = report.certificate(secrets.token_hex(4))
                    sides += [stack.enter_context(nginx(home, bare, chain)), bare]
            sides.append(stack.enter_context(mlserver(folder, models)))
        yield world, [side for side in sides if side is not None]


def interleaved(
    load: Load, sides: Sequence[Side], payload: Payload, connections: int, *, pairs: int
) -> dict[str, list[Run]]:
    """Load the sides in turns, forwards and backwards."""
    runs: dict[str, list[Run]] = {side.name: [] for side in sides}
    for side in sides:
        load.run(side, payload, connections, seconds=WARM_UP_S)
    for number in range(pairs):
        for side in sides if number % 2 == 0 else sides[::-1]:
            runs[side.name].append(load.run(side, payload, connections))
            print(".", end="", flush=True)
    print(f" {payload.name}, {connections} connections", flush=True)
    return runs


def small(
    folder: Path, models: Sequence[Model], load: Load, options: argparse.Namespace
) -> report.Table:
    """JSON of one row; with fdatasync measured between, for what one connection waits for."""
    table = report.Table("small", "JSON, one row of 64 numbers")
    with everybody(folder, models, options) as (world, sides):
        for count in CONNECTIONS:
            before_ms = fdatasync_ms(world.folder)
            runs = interleaved(load, sides, payloads()["digits-json"], count, pairs=options.pairs)
            table.add(count, runs)
            table.syncs_ms += [before_ms, fdatasync_ms(world.folder)]
        demand_records(world, table.calls("modelkeep"))
    return table


def large(
    folder: Path, models: Sequence[Model], load: Load, options: argparse.Namespace
) -> report.Table:
    """Pictures; MLServer takes no binary tensors."""
    table = report.Table("large", "1x3x224x224")
    with everybody(folder, models, options) as (world, sides):
        for form in ("json", "binary"):
            these = [side for side in sides if form == "json" or side.name != "mlserver"]
            payload = payloads()[f"image-{form}"]
            runs = interleaved(load, these, payload, LARGE_CONNECTIONS, pairs=options.pairs)
            table.add(LARGE_CONNECTIONS, runs, label=form)
        demand_records(world, table.calls("modelkeep"))
    return table


def grpc(
    folder: Path, models: Sequence[Model], load: Load, options: argparse.Namespace
) -> report.Table:
    """The small call over gRPC."""
    table = report.Table("grpc", "gRPC, one row of 64 numbers")
    with everybody(folder, models, options) as (world, sides):
        for count in CONNECTIONS:
            runs = interleaved(load, sides, payloads()["digits-grpc"], count, pairs=options.pairs)
            table.add(count, runs)
        demand_records(world, table.calls("modelkeep"))
    return table


def protections(
    folder: Path, models: Sequence[Model], load: Load, options: argparse.Namespace
) -> report.Table:
    """What each protection costs: the whole beside the whole without it."""
    table = report.Table("protections", "JSON, one row; one protection taken out")
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        worlds = [
            stack.enter_context(
                ours(folder / (each or "all"), models, Options(options.gateways, without=each))
            )
            for each in ("", *PROTECTIONS)
        ]
        for count in PRICE_CONNECTIONS:
            sides = [world.side for world in worlds]
            table.add(
                count,
                interleaved(load, sides, payloads()["digits-json"], count, pairs=options.pairs),
            )
    return table


PART_FUNCTIONS = {"small": small, "large": large, "grpc": grpc, "protections": protections}


if __name__ == "__main__":
    sys.exit(main())
