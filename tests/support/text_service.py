"""Language models of a real keep, served over TLS by a real service that has torch."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from command import Desk, Process, wait_until
from text_replica import SOURCE

from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.journal_file import JournalFile
from modelkeep.core.call_record import CallRecord, IntentRecord, JournalRecord, decoded_record

# A loaded machine stands still for minutes at times; nothing here is a test of patience.
PATIENCE_S = 300.0
SETTINGS = f"""
[gate]
call_timeout_s = {PATIENCE_S}
[pool]
hung_s = {2 * PATIENCE_S}
text_hung_s = {2 * PATIENCE_S}
"""


def python_with(python: Path, folder: Path) -> Path:
    """An environment with all of another one, and modelkeep as if it were installed there."""
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = (folder / "lib").glob("python3*/site-packages")
    (others,) = (python.parents[1] / "lib").glob("python3*/site-packages")
    (packages / "both.pth").write_text(f"{others}\n{SOURCE}\n")
    return folder / "bin" / "python"


class TextService:
    """A keep whose language models are served; one replica of each, so that calls meet there.

    Args:
        python: of the environment that has torch.
        models: what is admitted: a file or a folder, by the name that it gets.
    """

    def __init__(
        self, folder: Path, python: Path, models: Mapping[str, Path], *, gateways: int = 2
    ) -> None:
        self.desk = Desk.made(folder / "desk", second=False)
        self.desk.configure(
            "replicas = 2", f"replicas = 1\ngateways = {gateways}\ncontext_max = 1024"
        )
        with self.desk.config.open("a") as stream:
            stream.write(SETTINGS)
        for name, source in models.items():
            self.desk.json("admit", source, "--name", name)
        self.keys = {
            who: self.desk.json("tokens", "new", who, "--scope", scope)["api_key"]
            for who, scope in (("alice", "infer:*"), ("bob", "infer:other"))
        }
        own = python_with(python, folder / "venv")
        self.process = Process(*self.desk.words("serve", "--json"), python=str(own))
        self.url = self.process.event("ready")["url"]

    def processes(self, prefix: str) -> dict[str, int]:
        """Processes of the service whose names begin so."""
        told = json.loads((self.desk.keep / "run" / "service.json").read_bytes())["processes"]
        return {name: pid for name, pid in told.items() if name.startswith(prefix)}

    def records(self) -> dict[str, JournalRecord]:
        """What the gateways recorded, by receipt, oldest first."""
        found = {}
        for folder in sorted((self.desk.keep / "journals").glob("gateway-*")):
            with contextlib.closing(JournalFile(RealDisk(), folder, writable=False)) as journal:
                for position, raw in journal.read(0):
                    found[f"{folder.name}:{position}"] = decoded_record(raw)
        return found

    def streams(self) -> list[tuple[IntentRecord, list[CallRecord]]]:
        """Each intent, with the records that close it: those of its journal that follow it."""
        found: dict[bytes, tuple[IntentRecord, list[CallRecord]]] = {}
        for each in self.records().values():
            if isinstance(each, IntentRecord):
                assert each.call_id not in found
                found[each.call_id] = (each, [])
            elif isinstance(each, CallRecord) and each.call_id in found:
                found[each.call_id][1].append(each)
        return list(found.values())

    def closed(self, code: str, *, count: int = 1) -> list[CallRecord]:
        """Wait until so many streams are recorded as ended with this code."""
        wanted: list[CallRecord] = []

        def are_there() -> bool:
            ends = [close for _, closes in self.streams() for close in closes]
            wanted[:] = [each for each in ends if each.code == code]
            return len(wanted) >= count

        wait_until(are_there, PATIENCE_S)
        return wanted

    def proven(self, receipt: str) -> dict[str, Any]:
        """What the ledger proves of a receipt, once it has it."""
        words = ("ledger", "prove", receipt)
        wait_until(lambda: self.desk.run(*words, wanted=None).status == 0, PATIENCE_S)
        return dict(self.desk.json(*words))
