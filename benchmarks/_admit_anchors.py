"""The anchors' own samples: what they truly do, and what each scanner says of them.

A dangerous sample counts when it acts as its natural loader loads it (`peers/admit/truth.py`), or
asks for something that is not installed here. A benign one counts unless it acts, is of a class
that only its author has, or is encrypted. The others are printed one by one with what was said.
Every tool judges every sample, in one warm process of its own.
"""

from __future__ import annotations

import json
import select
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import _admit_fickling
import _admit_modelaudit
import _admit_modelscan
import _admit_picklescan
from _vault_environments import HERE, VENVS, environment

from modelkeep.core.verdict import Decision
from modelkeep.scan.settings import ScanSettings
from modelkeep.sdk.scanning import scanned_paths

TORCH = "torch==2.13.0"
TOOLS = ("picklescan", "modelscan", "fickling", "modelaudit")
COUNTED = ("acts", "absent", "unknown")
KERAS = (".h5", ".keras", ".pb")
PICKLED = "safe"  # modelscan's name of a pickled Keras model
SEVEN = (
    "import py7zr, sys; a = py7zr.SevenZipFile(sys.argv[1], 'w'); "
    "a.write(sys.argv[2], 'data.pkl'); a.close()"
)
# Why a sample that its authors call dangerous is loaded, and does nothing.
REASONS = {
    "GHSA-vvpj-8cmc-gx39.pkl": "it finds os.system by its name, and does not call it",
    "malicious13a.pkl": "the pickle inside is the number 12345",
    "malicious13b.pkl": "the pickle inside is the number 12345",
    "malicious3.pkl": "it makes an object that would connect, and connects to nothing",
    "GHSA-7cq8-mj8x-j263.pkl": "what it calls catches the error that its argument makes",
    "laughs-dup.pkl": "lists of the same lists: large only for those who walk them",
    "laughs-memo.pkl": "lists of the same lists: large only for those who walk them",
    "posix_alias_attack.pkl": "it finds posix.system by its name, and does not call it",
    "attr_bypass.json": "it prints the name of a class",
    "suspicious_config.json": "words that no loader acts on",
    "config.json": "words that no loader acts on",
    "decode_exec_chain.pkl": "code and a pickle as texts among data, which nothing loads",
    "malicious_model_realistic.pkl": "code and a pickle as texts among data, which nothing loads",
    "nested_pickle_base64.pkl": "a pickle as a text among data, which nothing loads",
    "nested_pickle_hex.pkl": "a pickle as a text among data, which nothing loads",
    "nested_pickle_multistage.pkl": "a pickle as a text among data, which nothing loads",
    "nested_pickle_raw.pkl": "a pickle as bytes among data, which nothing loads",
    "simple_nested.pkl": "a pickle of a text as bytes among data, which nothing loads",
    "malicious_import.safetensors": "words in metadata, which nothing runs",
}
GRAVER = {Decision.ALLOW: 0, Decision.HOLD: 1, Decision.DENY: 2}


@dataclass(frozen=True)
class Sample:
    """One file, or one folder that is a model."""

    anchor: str
    kind: str
    path: Path
    outcome: str = ""
    what: str = ""
    decision: str = ""
    rules: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As it is printed."""
        folder = self.path.parent.name if self.path.name == "saved_model.pb" else ""
        return f"{self.anchor}: {folder}{'/' * bool(folder)}{self.path.name}"


def python_of(tool: str) -> Path | None:
    """The Python of an anchor's environment."""
    return environment(f"admit-{tool}")


def models_python() -> Path | None:
    """The Python that makes and loads models."""
    return environment("admit-models", TORCH)


def samples_of(folder: Path) -> list[Sample]:
    """Write every sample of every anchor."""
    found: list[Sample] = []
    for anchor, module in (
        ("picklescan", _admit_picklescan),
        ("modelscan", _admit_modelscan),
        ("fickling", _admit_fickling),
        ("modelaudit", _admit_modelaudit),
    ):
        written = module.write(folder / anchor)
        for kind, paths in (written or {}).items():
            found += [Sample(anchor, kind, each) for each in paths]
    found += [Sample("picklescan", "malicious", each) for each in seven(folder)]
    found += list(keras_samples(folder / "modelscan-keras"))
    found += list(torch_samples(folder / "torch"))
    return found


def seven(folder: Path) -> Iterator[Path]:
    """One more of picklescan: its sample in a 7z archive."""
    python = python_of("picklescan")
    if python is not None:
        target = folder / "picklescan" / "malicious1.7z"
        source = folder / "picklescan" / "malicious" / "malicious1_v4.pkl"
        subprocess.run([python, "-c", SEVEN, target, source], check=True)
        yield target


def keras_samples(folder: Path) -> Iterator[Sample]:
    """What modelscan's tests make: models of Keras and TensorFlow."""
    python = python_of("modelscan")
    if python is None:
        return
    made(python, "keras_models.py", "samples", folder)
    for kind in ("malicious", "benign"):
        for each in sorted((folder / kind).iterdir()):
            yield Sample("modelscan", kind, each)


def torch_samples(folder: Path) -> Iterator[Sample]:
    """The harmless models of torch in the tests of picklescan, modelscan and fickling."""
    python = models_python()
    if python is None:
        return
    made(python, "models.py", "samples", folder)
    for each in sorted(folder.rglob("*.p*")):
        yield Sample(each.parent.name, "benign", each)


def made(python: Path, script: str, *words: object) -> None:
    """Run a script that makes models; what it says is shown if it fails."""
    path = HERE / "peers" / "admit" / script
    command = [str(each) for each in (python, path, *words)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{script} failed: {done.stderr[-2000:]}")


@contextmanager
def served(python: Path, script: str, word: str, *, answer_s: float | None = None) -> Iterator[Any]:
    """A warm process that answers a line of JSON with another one.

    What takes longer than `answer_s` ends it, and is a TimeoutError.
    """
    command = [str(python), str(HERE / "peers" / "admit" / script), word]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        source, target = process.stdin, process.stdout

        def ask(**words: object) -> dict[str, Any]:
            source.write(json.dumps(words) + "\n")
            source.flush()
            if answer_s is not None and not select.select([target], [], [], answer_s)[0]:
                process.kill()
                raise TimeoutError(f"{script} {word} took more than {answer_s:g} s")
            line = target.readline()
            if not line:
                raise RuntimeError(f"{script} {word} ended with status {process.wait()}")
            return json.loads(line)

        yield ask
        with suppress(BrokenPipeError):
            source.close()


def with_truth(samples: Sequence[Sample]) -> list[Sample]:
    """What each sample does when it is loaded."""
    found = {}
    for word, python in (("pickles", models_python()), ("keras", python_of("modelscan"))):
        ours = [each for each in samples if is_keras(each.path) == (word == "keras")]
        if python is None:
            found |= {each.path: ("unknown", "no loader could be installed") for each in ours}
            continue
        with served(python, "truth.py", word) as ask:
            for each in ours:
                said = ask(path=str(each.path))
                found[each.path] = (said["outcome"], said["what"])
    return [
        replace(each, outcome=found[each.path][0], what=found[each.path][1]) for each in samples
    ]


def is_keras(path: Path) -> bool:
    """Whether Keras or TensorFlow is the loader."""
    return path.is_dir() or path.suffix in KERAS or path.name == PICKLED


def with_decisions(samples: Sequence[Sample]) -> list[Sample]:
    """What modelkeep says."""
    judged = []
    for each in samples:
        found = list(scanned_paths([each.path], ScanSettings()))
        gravest = max((one.verdict.decision for one in found), key=GRAVER.__getitem__)
        rules = sorted(
            {f.rule for one in found for f in one.verdict.findings if f.severity != "note"}
        )
        judged.append(replace(each, decision=str(gravest), rules=tuple(rules)))
    return judged


def with_alarms(samples: Sequence[Sample]) -> tuple[list[Sample], dict[str, float]]:
    """Which anchors raise an alarm, and the seconds that each took for all."""
    alarms: dict[Path, list[str]] = {each.path: [] for each in samples}
    seconds = {}
    for tool in TOOLS:
        python = python_of(tool)
        if python is None:
            continue
        seconds[tool] = 0.0
        with served(python, "scan.py", tool) as ask:
            for each in samples:
                said = ask(path=str(each.path), is_folder=each.path.is_dir())
                seconds[tool] += said["seconds"]
                if said["alarm"]:
                    alarms[each.path].append(tool)
    return [replace(each, alarms=tuple(alarms[each.path])) for each in samples], seconds


def is_counted(sample: Sample) -> bool:
    """Whether a dangerous sample is truly dangerous, as far as it can be told here."""
    return sample.kind == "malicious" and sample.outcome in COUNTED


def is_loaded(sample: Sample) -> bool:
    """Whether a benign sample is a model that others than its author can read."""
    is_sealed = "without a password" in sample.what
    return sample.kind == "benign" and sample.outcome not in ("acts", "absent") and not is_sealed


def measured(folder: Path) -> dict[str, Any]:
    """Everything of the anchors' samples."""
    samples = with_decisions(with_truth(samples_of(folder)))
    samples, seconds = with_alarms(samples)
    dangerous = [each for each in samples if is_counted(each)]
    benign = [each for each in samples if is_loaded(each)]
    table = {
        anchor: {
            "dangerous": row(of(dangerous, anchor)),
            "benign": row(of(benign, anchor)),
        }
        for anchor in (*TOOLS, "all")
    }
    exceptions = [each for each in samples if each.kind == "malicious" and not is_counted(each)]
    return {
        "table": table,
        "proven": Counter(each.outcome for each in dangerous),
        "exceptions": [facts(each) for each in exceptions],
        "missed": [facts(each) for each in dangerous if each.decision == "allow"],
        "false": [facts(each) for each in benign if each.decision != "allow"],
        "unloaded": [
            facts(each) for each in samples if each.kind == "benign" and not is_loaded(each)
        ],
        "neither": [facts(each) for each in samples if each.kind == "damaged"],
        "seconds": seconds,
    }


def of(samples: Iterable[Sample], anchor: str) -> list[Sample]:
    """Those of one anchor, or all."""
    return [each for each in samples if anchor in (each.anchor, "all")]


def row(samples: Sequence[Sample]) -> dict[str, int]:
    """Counts of one set."""
    decisions = Counter(each.decision for each in samples)
    counts = {"samples": len(samples), "deny": decisions["deny"], "hold": decisions["hold"]}
    return counts | {tool: sum(tool in each.alarms for each in samples) for tool in TOOLS}


def facts(sample: Sample) -> dict[str, Any]:
    """One sample in the results."""
    return {
        "name": sample.name, "outcome": sample.outcome, "what": sample.what,
        "reason": REASONS.get(sample.path.name, "it was loaded, and nothing happened"),
        "decision": sample.decision, "rules": sample.rules, "alarms": sample.alarms,
    }  # fmt: skip


def bars(found: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What the issue demands of these samples."""
    dangerous, benign = found["table"]["all"]["dangerous"], found["table"]["all"]["benign"]
    stopped = dangerous["deny"] + dangerous["hold"]
    held = benign["hold"] / max(1, benign["samples"])
    return [
        (
            "their dangerous samples stopped",
            f"{stopped} of {dangerous['samples']}",
            "all",
            0 < dangerous["samples"] == stopped,
        ),
        ("their benign samples denied", str(benign["deny"]), "0", not benign["deny"]),
        ("their benign samples held", f"{held:.1%}", "<= 2 %", held <= 0.02),
    ]


def show(found: dict[str, Any]) -> None:
    """Print the tables and every exception."""
    print("\nthe anchors' own samples: alarms (modelkeep: denied + held)")
    print(f"  {'':24}{'files':>6}{'modelkeep':>15}" + "".join(f"{t:>12}" for t in TOOLS))
    for what in ("dangerous", "benign"):
        for anchor, rows in found["table"].items():
            each = rows[what]
            ours = f"{each['deny']} + {each['hold']}"
            theirs = "".join(f"{each[tool]:>12}" for tool in TOOLS)
            print(f"  {what + ', ' + anchor:24}{each['samples']:>6}{ours:>15}{theirs}")
    proven = ", ".join(f"{count} {name}" for name, count in sorted(found["proven"].items()))
    print(f"  of the dangerous: {proven}")
    took = ", ".join(f"{tool} {seconds:.1f}" for tool, seconds in found["seconds"].items())
    print(f"  seconds for all, warm: {took}")
    for title, key in (
        (
            "counted as harmless although their authors call them dangerous: loading them",
            "exceptions",
        ),
        ("dangerous and let in by modelkeep", "missed"),
        ("benign and not let in by modelkeep", "false"),
        ("called benign, not counted: they act, or only their author can read them", "unloaded"),
        ("neither a model nor an attack", "neither"),
    ):
        if found[key]:
            print(f"  {title}:")
        for each in found[key]:
            said = f"{each['outcome']}: {each['what'] or each['reason']}"
            print(f"    {each['name'][:60]:60} {each['decision']:6} {said[:100]}")
            if key in ("missed", "false"):
                print(f"      {', '.join(each['rules'])}")


__all__ = ["VENVS", "bars", "made", "measured", "models_python", "python_of", "served", "show"]
