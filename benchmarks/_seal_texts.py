"""What a language model said, judged: each answer by itself, and people's text under many seeds."""

from __future__ import annotations

import json
import pydoc_data.topics
import re
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _vault_environments import environment, run_peer

from modelkeep.kernels.tails import randomised_tail
from modelkeep.kernels.text_mark import TextKey, TextParameters, tally, text_key
from modelkeep.seal.marks import FOUND_P, Reading

TORCH = "torch==2.13.0"
SEED = bytes(range(32))
STRANGERS = 100  # texts, each under a seed of its own
STRANGER_TOKENS = 100
WORDS_MIN = 60  # of a paragraph of people's text
PARAGRAPHS = 400
BARS = (
    "200 tokens", "400 tokens",
    "by the model fine-tuned", "by the model pruned 50 %", "by the model in int8",
)  # fmt: skip
Found = dict[str, Any]
Texts = list[list[int]]


def measured(folder: Path | None, *, is_quick: bool) -> Found:
    """Everything about texts; empty where torch cannot be had."""
    python = environment("smollm", TORCH)
    if python is None:
        return {}
    with tempfile.TemporaryDirectory() as name:
        human, out = Path(name) / "people", Path(name) / "said"
        human.write_text(json.dumps(people(folder)))
        form = "quick" if is_quick else "full"
        run_peer(python, "smollm/say.py", form, SEED.hex(), str(human), str(out))
        said = json.loads(out.read_text())
    end = said["end"]
    return {
        "survives": [row(name, texts, end) for name, texts in said["marked"].items()],
        "strangers": {name: strangers(texts, end) for name, texts in said["plain"].items()},
        "perplexity": said["perplexity"],
        "seconds_per_token": said["seconds_per_token"],
    }


def people(folder: Path | None) -> list[str]:
    """Paragraphs that people wrote: of the folder's prompts, or Python's own help."""
    lines: list[str] = []
    if folder is not None and (folder / "prompts").is_dir():
        for path in sorted((folder / "prompts").glob("*.jsonl")):
            with path.open(encoding="utf-8") as file:
                lines += [json.loads(each)["text"] for each in file]
    else:
        for topic in pydoc_data.topics.topics.values():
            lines += re.split(r"\n\s*\n", topic)
    fitting = sorted({" ".join(each.split()) for each in lines if len(each.split()) > WORDS_MIN})
    order = np.random.default_rng(2).permutation(len(fitting))
    return [fitting[at] for at in order[:PARAGRAPHS]]


def row(name: str, texts: Texts, end: int) -> Found:
    """One treatment: every answer by itself, and all together."""
    key = text_key(SEED, TextParameters())
    each = [reading([text], key, end) for text in texts]
    p_values = [one.p_value for one in each]
    return {
        "treatment": name, "bar": name in BARS, "answers": len(texts),
        "share": statistics.mean(one.hits / one.trials for one in each),
        "p": statistics.median(p_values), "worst": max(p_values),
        "found": sum(p < FOUND_P for p in p_values),
        "together": reading(texts, key, end).p_value,
    }  # fmt: skip


def reading(texts: Texts, key: TextKey, end: int) -> Reading:
    """As `TextMark.verify` reads ids."""
    found = tally(texts, key, end=end)
    return Reading(hits=found.hits, trials=found.trials, chance=0.5)


def strangers(texts: Texts, end: int) -> list[float]:
    """P-values of pieces of text, each under a seed of its own; exactly uniform, so it is said."""
    rng = np.random.default_rng(4)
    pieces = [
        text[at : at + STRANGER_TOKENS]
        for text in texts
        for at in range(0, len(text) - STRANGER_TOKENS + 1, STRANGER_TOKENS)
    ]
    found = []
    for number in range(STRANGERS):
        key = text_key((number + 1).to_bytes(32, "big"), TextParameters())
        one = reading([pieces[number % len(pieces)]], key, end)
        found.append(randomised_tail(one.hits, one.trials, one.chance, rng.random()))
    return found


def show(found: Found) -> None:
    """Print the tables."""
    print(f"\n{'what is done to a text':36}{'found':>8}{'hits':>8}{'p, median':>12}{'worst':>10}"
          f"{'together':>11}")  # fmt: skip
    for each in found["survives"]:
        of = f"{each['found']}/{each['answers']}"
        print(f"{each['treatment']:36}{of:>8}{each['share']:>8.3f}{each['p']:>12.0e}"
              f"{each['worst']:>10.0e}{each['together']:>11.0e}")  # fmt: skip
    print("\nperplexity under the model as it is")
    for name, perplexity in found["perplexity"].items():
        print(f"  {name:34}{perplexity:8.2f}")
    print("time of a token, many answers at once")
    for name, seconds in found["seconds_per_token"].items():
        print(f"  {name:34}{1e3 * seconds:8.1f} ms")
