"""The later acts of the demo: a client, a killed replica, a backup, attacks, a disaster."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from modelkeep.cli.demo_acts import Stage
from modelkeep.core.instant import rfc3339

LOAD_THREADS = 4
LOAD_S = 2.0
BODY_BYTES = 100_000_000
WAIT_S = 10.0


def act_client(stage: Stage) -> None:
    """A public client, and a replica that is killed under load."""
    story = stage.story
    with story.step("Call it; kill a replica under load"):
        with _triton(stage) as client:
            story.proven(
                "tritonclient[http]: is_server_live and is_server_ready",
                holds=client.is_server_live() and client.is_server_ready(),
            )
            metadata = client.get_model_metadata("digits", headers=_headers(stage))
            story.fact(f"metadata: {[port['name'] for port in metadata['outputs']]}")
            right = 0
            for is_binary in (True, False):
                labels = _labels(stage, client, stage.data.held_out, is_binary=is_binary)
                right = int(np.count_nonzero(labels == stage.data.held_out_labels))
                how = "binary tensors" if is_binary else "JSON"
                story.proven(
                    f"{right / len(labels):.1%} of {len(labels)} held-out digits right ({how})",
                    holds=abs(right / len(labels) - stage.models[1].accuracy) < 0.005,
                )
            stage.measures["accuracy"] = f"{right / len(stage.data.held_out):.1%}"
        _kill_under_load(stage)


def act_backup(stage: Stage) -> None:
    """Replicate, check, and see the ledger follow by itself."""
    story = stage.story
    with story.step("Back up to the second store"):
        report = story.run(*stage.at, "backup")[0][0]
        story.proven(
            f"{report['store']} is whole: {report['objects']} objects, "
            f"{report['size_bytes']:,} bytes in {report['seconds']:.2f} s",
            holds=report["is_whole"],
        )
        check = story.run(*stage.at, "check", "--read-data")[0]
        story.proven(f"{check['objects']} objects read and proven", holds=not check["findings"])
        before = _offsite_size(stage)
        started_s = time.perf_counter()
        with _triton(stage) as client:
            _labels(stage, client, stage.data.held_out[:1], is_binary=True)
        _await(lambda: _offsite_size(stage) > before)
        seconds = time.perf_counter() - started_s
        story.proven(
            f"a call stands under a signed checkpoint in the second store {seconds:.2f} s later",
            holds=seconds < 2,
        )


def act_attack(stage: Stage) -> None:
    """Bad calls, and bytes that somebody changed."""
    story = stage.story
    with story.step("Attack it a little"):
        _bad_calls(stage)
        packs = _packs(stage.keep / "stores" / "main")
        restored = stage.folder / "restored.onnx"
        originals = [pack.read_bytes() for pack in packs]
        for pack in packs:
            _flip(pack)
        story.run(*stage.at, "restore", "digits:2", "--to", restored)
        same = restored.read_bytes() == stage.models[1].file.read_bytes()
        story.proven("damaged in the first store: read from the second, bit for bit", holds=same)
        story.proven(
            "and healed on the way: what was damaged is stored anew",
            holds=any(
                not pack.exists() or pack.read_bytes() == raw
                for pack, raw in zip(packs, originals, strict=True)
            ),
        )
        story.run(*stage.at, "check", "--read-data", "--repair")
        both = [*_packs(stage.keep / "stores" / "main"), *_packs(stage.offsite)]
        originals = [path.read_bytes() for path in both]
        for path in both:
            _flip(path)
        story.refused(*stage.at, "restore", "digits:2", "--to", restored, "--force", wanted=4)
        for path, raw in zip(both, originals, strict=True):
            path.write_bytes(raw)
        check = story.run(*stage.at, "check", "--read-data")[0]
        story.proven("undone: every store is whole again", holds=not check["findings"])
        kinds = {each["kind"] for each in story.run(*stage.at, "ledger", "tail", "--last", "500")}
        story.proven(
            "the ledger holds the refusals, the damage and the healing",
            holds={"model.refused", "vault.healed", "vault.damaged", "calls.batch"} <= kinds,
        )


def act_disaster(stage: Stage) -> None:
    """Destroy everything but the second store and the passphrase; recover."""
    story = stage.story
    with story.step("Disaster, and recovery"):
        saved = stage.folder / "checkpoint.txt"
        _await(lambda: _sizes(stage.offsite) >= _sizes(stage.keep / "stores" / "main"))
        checkpoint = story.run(*stage.at, "ledger", "checkpoint")[0]
        saved.write_text(checkpoint["checkpoint"])
        with _triton(stage) as client:
            _labels(stage, client, stage.data.held_out[:64], is_binary=True)
        time.sleep(1.2)  # the objective is an RPO; a call in the last second may be lost
        disaster_ns = time.time_ns()
        stage.service.destroy(stage.processes())
        shutil.rmtree(stage.keep)
        story.fact("every process killed, the keep's folder removed")
        running = stage.start(
            [
                *("recover", str(stage.keep), "--from", str(stage.offsite), "--serve"),
                *("--expect", str(saved), "--disaster-at", rfc3339(disaster_ns)),
            ],
            "recovered",
        )
        result = running.facts["result"]
        measure, objectives = result["measure"], result["objectives"]
        for lap in result["laps"]:
            story.fact(f"{lap['at_s']:6.2f} s  {lap['name']}")
        for name in ("rto", "rpo"):
            got, wanted = measure[f"{name}_s"], objectives[f"{name}_s_max"]
            story.proven(f"{name.upper()} {got:.2f} s, objective {wanted:g} s", holds=got <= wanted)
            stage.measures[name.upper()] = f"{got:.2f} s (objective {wanted:g} s)"
        story.proven(
            f"freshness {measure['freshness']}: the saved checkpoint is in the history",
            holds=measure["freshness"] == "proven",
        )
        with _triton(stage) as client:
            labels = _labels(stage, client, stage.data.held_out, is_binary=True)
        right = int(np.count_nonzero(labels == stage.data.held_out_labels)) / len(labels)
        story.proven(
            f"the same API key, the same certificate, {right:.1%} of held-out digits right",
            holds=abs(right - stage.models[1].accuracy) < 0.005,
        )


def act_ledger(stage: Stage) -> None:
    """Prove the log, then change one bit of a copy."""
    story = stage.story
    with story.step("Prove the ledger"):
        for report in story.run(*stage.at, "ledger", "verify")[0]:
            story.proven(
                f"{report['store']}: {report['origin'].rpartition('/')[2]}: {report['size']} "
                f"entries, {report['objects']} objects, root {report['root'][:16]}…",
                holds=report["is_whole"],
            )
        drills = story.run(*stage.at, "ledger", "tail", "--kind", "drill.")
        story.proven(
            "the recovery stands in the ledger, signed", holds=bool(drills[0]["facts"]["signature"])
        )
        copy = stage.folder / "copy"
        shutil.copytree(stage.offsite, copy)
        leaves = sorted(copy.glob("ledger/*/tile/entries/**/*"), key=lambda path: path.is_dir())
        _flip(leaves[0])
        damaged = story.run(*stage.at, "ledger", "verify", "--store", copy, wanted=4)[0]
        findings = [each for report in damaged for each in report["findings"]]
        for finding in findings[:2]:
            story.refusal(f"{finding['subject']}: {finding['evidence']}")
        story.proven("the flipped bit is found, and where it is", holds=bool(findings))
        (stage.folder / "call.json").write_text(json.dumps(_infer_body(stage)))


def _kill_under_load(stage: Stage) -> None:
    """Zero failed requests while one of two replicas dies, and a new one in its place."""
    story = stage.story
    counts, failures = [0] * LOAD_THREADS, []
    stop_s = time.perf_counter() + LOAD_S

    def call(number: int) -> None:
        with _triton(stage) as client:
            while time.perf_counter() < stop_s:
                try:
                    _labels(stage, client, stage.data.held_out[:8], is_binary=True)
                    counts[number] += 1
                except Exception as error:  # noqa: BLE001 - each failure counts, whatever it is
                    failures.append(repr(error))

    threads = [threading.Thread(target=call, args=(n,)) for n in range(LOAD_THREADS)]
    for thread in threads:
        thread.start()
    time.sleep(LOAD_S / 4)
    name = "replica-digits-2-0"
    pid = stage.processes()[name]
    os.kill(pid, signal.SIGKILL)
    for thread in threads:
        thread.join()
    story.proven(
        f"SIGKILL of {name} under load: {sum(counts)} calls, {len(failures)} failed",
        holds=not failures and sum(counts) > 0,
    )
    _await(lambda: stage.processes().get(name, pid) != pid)
    story.fact(f"{name} is process {stage.processes()[name]} now, it was {pid}")
    stage.measures["calls during the kill"] = f"{sum(counts)}, {len(failures)} failed"


def _bad_calls(stage: Stage) -> None:
    body = _infer_body(stage)
    wrong_shape = {"inputs": [{**body["inputs"][0], "shape": [1, 63], "data": [[0.0] * 63]}]}
    good, wrong_key = _headers(stage), {"authorization": "Bearer mk_0123456789abcdef_" + "A" * 43}
    code, told = _with_nan(stage)
    stage.story.proven(f"NaN: {code} {told}", holds=code == "400" and "finite" in told)
    for what, headers, raw, wanted in (
        ("no key", {}, json.dumps(body).encode(), 401),
        ("a wrong key", wrong_key, json.dumps(body).encode(), 401),
        ("a wrong shape", good, json.dumps(wrong_shape).encode(), 400),
        ("a body of 100 MB", good, b"0" * BODY_BYTES, 413),
    ):
        status, said = _post(stage, headers, raw)
        stage.story.proven(f"{what}: {status} {said}", holds=status == wanted and bool(said))


def _with_nan(stage: Stage) -> tuple[str, str]:
    """What tritonclient is told when it sends NaN, as status and message."""
    import tritonclient.utils as triton  # noqa: PLC0415 - the extra `demo`

    rows = np.full((1, stage.data.held_out.shape[1]), np.nan, np.float32)
    with _triton(stage) as client:
        try:
            _labels(stage, client, rows, is_binary=True)
        except triton.InferenceServerException as error:
            return str(error.status()), str(error.message())
    return "200", "answered"


def _post(stage: Stage, headers: dict[str, str], raw: bytes) -> tuple[int, str]:
    """One call with Python's own HTTP client; the status and the server's message."""
    address = urlsplit(stage.service.url)
    context = ssl.create_default_context(cafile=str(stage.keep / "ca.pem"))
    connection = http.client.HTTPSConnection(
        address.hostname or "", address.port, context=context, timeout=WAIT_S
    )
    headers = {**headers, "content-type": "application/json"}
    # A refusal may come before all was sent; the answer is waiting then.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.request("POST", "/v2/models/digits/infer", body=raw, headers=headers)
    try:
        answer = connection.getresponse()
        said = json.loads(answer.read())
        return answer.status, f"{said['error']}; {said['hint']}"
    finally:
        connection.close()


def _triton(stage: Stage) -> Any:
    import tritonclient.http as triton  # noqa: PLC0415 - the extra `demo`

    return triton.InferenceServerClient(
        url=stage.service.url.removeprefix("https://"),
        ssl=True,
        ssl_options={"ca_certs": str(stage.keep / "ca.pem")},
    )


def _labels(stage: Stage, client: Any, rows: np.ndarray[Any, Any], *, is_binary: bool) -> Any:
    import tritonclient.http as triton  # noqa: PLC0415 - the extra `demo`

    pixels = triton.InferInput("pixels", list(rows.shape), "FP32")
    pixels.set_data_from_numpy(rows, binary_data=is_binary)
    wanted = [triton.InferRequestedOutput("label", binary_data=is_binary)]
    answer = client.infer("digits", [pixels], outputs=wanted, headers=_headers(stage))
    return answer.as_numpy("label")


def _headers(stage: Stage) -> dict[str, str]:
    return {"authorization": f"Bearer {stage.api_key}"}


def _infer_body(stage: Stage) -> dict[str, Any]:
    row = np.zeros((1, stage.data.held_out.shape[1])).tolist()
    shape = [1, stage.data.held_out.shape[1]]
    return {"inputs": [{"name": "pixels", "datatype": "FP32", "shape": shape, "data": row}]}


def _offsite_size(stage: Stage) -> int:
    return _sizes(stage.offsite)


def _sizes(store: Path) -> int:
    """Entries under the newest checkpoint of a store."""
    return max((int(path.name) for path in store.glob("ledger/*/checkpoint/*")), default=0)


def _packs(store: Path) -> list[Path]:
    return sorted((store / "pack").rglob("[0-9a-f]" * 64))


def _flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def _await(holds: Callable[[], bool]) -> None:
    deadline_s = time.perf_counter() + WAIT_S
    while not holds():
        if time.perf_counter() > deadline_s:
            raise AssertionError("the demo waited too long")
        time.sleep(0.02)
