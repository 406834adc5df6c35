"""Verbs about the running service: serve, status, recover, drill."""

from __future__ import annotations

import argparse
import datetime
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from modelkeep.adapters.store_settings import StoreSettings, given_store
from modelkeep.cli.keys import private_means
from modelkeep.cli.opened import keep_path, opened, warned
from modelkeep.cli.output import print_json, said_measures
from modelkeep.cli.secrets import means_of
from modelkeep.core.errors import (
    PATH_HINT,
    ConfigError,
    IntegrityError,
    KeepError,
    MissingError,
    UsageError,
)
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.rows import Alias
from modelkeep.core.sizes import size_text

if TYPE_CHECKING:
    from modelkeep.drill.stopwatch import Lap
    from modelkeep.sdk.keep import Keep
    from modelkeep.sdk.recovery import DrillResult
    from modelkeep.wiring import KeepFolder


def serve(options: argparse.Namespace) -> int:
    """Serve, or say what a replica is locked in with."""
    if not options.explain_sandbox:
        _become_supervisor(options)
    return _explained(as_json=options.json)


def _become_supervisor(options: argparse.Namespace) -> NoReturn:
    """This process is replaced, so signals reach it directly."""
    from modelkeep.sdk.service import passed_passphrase  # noqa: PLC0415
    from modelkeep.wiring import KeepFolder, read_config  # noqa: PLC0415

    folder = KeepFolder(keep_path(options))
    config, _ = read_config(folder)  # that there is no keep is said before asking
    means = means_of(options, source=config.keys.source)
    command = [sys.executable, "-I", "-m", "modelkeep.workers.supervisor"]
    command += ["--keep", str(folder.path), "--key-source", means.source]
    reading = passed_passphrase(means)
    if reading >= 0:
        os.set_inheritable(reading, True)  # noqa: FBT003 - the signature is the system's
        command += ["--passphrase-fd", str(reading)]
    command += ["--engine", options.engine] if options.engine else []
    os.execv(sys.executable, command + (["--json"] if options.json else []))  # noqa: S606


def _explained(*, as_json: bool) -> int:
    """What a replica is locked in with, measure by measure."""
    from modelkeep.sdk.preflight import explained_replica  # noqa: PLC0415

    measures = explained_replica()
    return said_measures(measures, as_json=as_json)


def status(options: argparse.Namespace) -> int:
    """Say what runs and what the keep holds."""
    from modelkeep.wiring import KeepFolder  # noqa: PLC0415

    service = _service(KeepFolder(keep_path(options)))
    try:
        with opened(options) as keep:
            facts = {**_kept(keep), **service}
    except ConfigError as error:
        if not service["served"]:
            raise
        warned(f"{error}; the service goes on with what it read before")
        facts = {**service, "error": error.as_facts()}
    if options.json:
        print_json(facts)
        return 0
    for line in _status_lines(facts):
        print(line)
    return 0


def _kept(keep: Keep) -> dict[str, Any]:
    applied = keep.opened.state.applied()
    return {
        "keep_id": keep.keep_id,
        "head": applied.head,
        "entries": applied.entries,
        "models": [f"{each.name}:{each.version}" for each in keep.models()],
        "aliases": _aliases(keep),
        "stores": [
            {
                "label": store.label,
                "head": _head(keep, number),
                "current_s": _current_s(keep, number),
            }
            for number, store in enumerate(keep.opened.stores)
        ],
    }


def _service(folder: KeepFolder) -> dict[str, Any]:
    """Whether the keep is served, what the supervisor says of that, and what is amiss."""
    from modelkeep.sdk.service import degraded, told_of  # noqa: PLC0415
    from modelkeep.wiring import is_served  # noqa: PLC0415

    running = told_of(folder)
    amiss = degraded(running) if running is not None else ""
    return {"served": is_served(folder), "service": running, "degraded": amiss}


def _status_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    if "keep_id" in facts:
        held = f"{facts['entries']} ledger entries, head {facts['head']}"
        yield f"keep     {facts['keep_id']}: {held}"
        yield f"models   {', '.join(facts['models']) or 'none'}"
        yield f"aliases  {', '.join(facts['aliases']) or 'none'}"
        for store in facts["stores"]:
            behind = facts["head"] - store["head"]
            said = (
                "up to date" if behind == 0 else f"{behind} commits behind: run `modelkeep backup`"
            )
            if store["current_s"] is not None:
                said += f", ledger current {store['current_s']:.1f} s ago"
            yield f"store    {store['label']}: head {store['head']}, {said}"
    running = facts["service"]
    if running is None:
        yield "service  starting" if facts["served"] else "service  not running"
        return
    where = (
        f"{running['url']}, gRPC at {running['grpc']}" if running.get("grpc") else running["url"]
    )
    yield f"service  {where}, {len(running['processes'])} processes"
    if facts["degraded"]:
        yield f"         degraded: {facts['degraded']}"
    if running.get("silent"):
        yield f"         does not answer: {', '.join(running['silent'])}"


def _aliases(keep: Keep) -> list[str]:
    rows = keep.opened.state.rows(Alias)
    return [f"{row.model}:{row.alias} -> {row.version}" for row in rows]


def recover(options: argparse.Namespace) -> int:
    """Bring a keep back from one surviving store."""
    from modelkeep.sdk.recovery import recovered  # noqa: PLC0415
    from modelkeep.sdk.restoration import Plan  # noqa: PLC0415

    is_lost = bool(options.words or options.identity)
    holder = means_of(options, source="passphrase", confirm=is_lost)
    plan = Plan(
        target=options.folder,
        source=_store(options.source),
        means=private_means(options) if is_lost else holder,
        successor=holder if is_lost else None,
        port=options.port,
        expected=_read(options.expect) if options.expect is not None else None,
        disaster_ns=_instant_ns(options.disaster_at) if options.disaster_at is not None else 0,
    )
    with _terminable():
        result, service = recovered(plan, told=lambda lap: _told(lap, as_json=options.json))
        try:
            _print_result(result, service.url if options.serve else "", as_json=options.json)
            if not options.serve:
                return IntegrityError.exit_status if result.missed else 0
            return service.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            service.stop()


def drill(options: argparse.Namespace) -> int:
    """Rehearse a recovery."""
    from modelkeep.sdk.recovery import drilled  # noqa: PLC0415

    means = private_means(options) if options.words or options.identity else None
    with _terminable(), opened(options) as keep:
        result = drilled(
            keep,
            store=options.source,
            means=means,
            told=lambda lap: _told(lap, as_json=options.json),
        )
    _print_result(result, "", as_json=options.json)
    return IntegrityError.exit_status if result.missed else 0


def _store(text: str) -> Path | StoreSettings:
    """A store's folder, its address, or a file with the keys of `[[stores]]`."""
    if "://" in text:
        return given_store("survivor", text)
    if not Path(text).is_file():
        return Path(text)
    from modelkeep.config import parsed_store  # noqa: PLC0415 - heavy, needed by this verb only

    return parsed_store(_read(Path(text)), what=text)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM is Ctrl-C, so that what this command started ends with it, in order."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_result(result: DrillResult, url: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"event": "recovered", "url": url, "result": result})
        return
    measure, objectives = result.measure, result.objectives
    print(
        f"{result.kind}: RTO {measure.rto_s:.2f} s (objective {objectives.rto_s_max:g} s), "
        f"RPO {measure.rpo_s:.2f} s (objective {objectives.rpo_s_max:g} s), "
        f"freshness {measure.freshness}"
    )
    print(
        f"  {result.objects} objects, {size_text(result.size_bytes)}, "
        f"{result.entries} ledger entries survived"
    )
    for probe in result.probes:
        proof = (
            "its canary answer is right" if probe.is_proven else "answers (no canary to compare)"
        )
        print(f"  {probe.model}: {proof}")
    for text in result.lost:
        print(f"  LOST: {text}" + ("" if " " in text else " (admitted after the last backup)"))
    for text in result.missed:
        if not text.endswith("is lost"):
            print(f"  MISSED: {text}")
    if result.lost:
        print("  next: admit again what is lost, then `modelkeep backup`")
    if url:
        print(f"  serving at {url}", flush=True)


def _told(lap: Lap, *, as_json: bool) -> None:
    if not as_json:
        print(f"  {lap.at_s:7.2f} s  {lap.name}", file=sys.stderr, flush=True)


def _head(keep: object, number: int) -> int:
    from modelkeep.vault.objects import latest  # noqa: PLC0415
    from modelkeep.vault.snapshot import Head  # noqa: PLC0415

    opened_keep = keep.opened  # type: ignore[attr-defined]
    try:
        store = opened_keep.stores[number]
        return latest(Head, store, "head", public=opened_keep.public).member.number
    except MissingError:
        return -1


def _current_s(keep: Keep, number: int) -> float | None:
    """How long ago a store was last stated to hold the whole ledger; None if it never was."""
    from modelkeep.crypto.signatures import Signer  # noqa: PLC0415
    from modelkeep.flows.alive import KIND, Alive  # noqa: PLC0415
    from modelkeep.vault.objects import latest  # noqa: PLC0415

    opened_keep = keep.opened
    public = Signer(opened_keep.keys.ledger_seed).public
    try:
        statement = latest(Alive, opened_keep.stores[number], KIND, public=public).member
    except KeepError:
        return None
    age_ns = opened_keep.clock.now_ns() - statement.at_ns
    is_ours = statement.origin == opened_keep.origin and age_ns >= 0
    return age_ns / NS_PER_S if is_ours else None


def _instant_ns(text: str) -> int:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            "recover.time", f"{text!r} is no time", hint="2026-11-21T03:00:00Z"
        ) from error
    if moment.tzinfo is None:
        raise UsageError("recover.time", f"{text!r} names no time zone", hint="end it with Z")
    return int(moment.timestamp() * NS_PER_S)


def _read(path: object) -> bytes:
    try:
        return path.read_bytes()  # type: ignore[attr-defined, no-any-return]
    except OSError as error:
        raise MissingError("file.missing", f"{path}: {error.strerror}", hint=PATH_HINT) from error
