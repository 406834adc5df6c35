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
from _vault_environments import VENVS, environment, run_peer

from modelkeep.kernels.tails import randomised_tail
from modelkeep.kernels.text_mark import TextParameters, tally, text_key
from modelkeep.seal.marks import FOUND_P, Reading

TORCH = "torch==2.13.0"
SEED = bytes(range(32))
LENGTHS = (50, 100, 200, 400)
TREATED_TOKENS = 200
STRANGERS = 100  # texts, each under a seed of its own
STRANGER_TOKENS = 100
WORDS_MIN = 60  # of a paragraph of people's text
LINES = 400
BARS = ("by the model fine-tuned", "by the model pruned 50 %", "by the model in int8")
Found = dict[str, Any]


def measured(folder: Path | None, *, is_quick: bool) -> Found:
    """Everything about texts; empty where torch cannot be had."""
    VENVS.mkdir(exist_ok=True)
    python = environment("smollm", TORCH)
    if python is None:
        return {}
    with tempfile.TemporaryDirectory() as name:
        human, out = Path(name) / "human", Path(name) / "said"
        human.write_text("\n".join(map(json.dumps, people(folder))))
        run_peer(python, "smollm/say.py", "quick" if is_quick else "full", str(human), str(out))
        said = json.loads(out.read_text())
    answers = said["ids"]
    rows = []
    for heat in ("1.0", "0.7"):
        for length in LENGTHS if heat in answers else ():
            texts = [each[:length] for each in answers[heat] if len(each) >= length]
            if texts:
                rows.append(
                    row(
                        f"{length} tokens, temperature {heat}",
                        texts,
                        said,
                        heat == "1.0" and length >= TREATED_TOKENS,
                    )
                )
        answers.pop(heat, None)
    rows += [row(name, texts, said, name in BARS) for name, texts in answers.items()]
    return {
        "survives": rows,
        "perplexity": said["perplexity"],
        "seconds_per_token": said["seconds_per_token"],
        "strangers": {kind: strangers(texts, said) for kind, texts in alike(said).items()},
    }


def people(folder: Path | None) -> list[str]:
    """Paragraphs that people wrote: of the folder's prompts, or Python's own help."""
    lines: list[str] = []
    if folder is not None and (folder / "prompts").is_dir():
        for path in sorted((folder / "prompts").glob("*.jsonl")):
            lines += [json.loads(each)["text"] for each in path.read_text().splitlines()]
    else:
        for topic in pydoc_data.topics.topics.values():
            lines += re.split(r"\n\s*\n", topic)
    fitting = sorted({" ".join(each.split()) for each in lines if len(each.split()) > WORDS_MIN})
    order = np.random.default_rng(2).permutation(len(fitting))
    return [fitting[at] for at in order[:LINES]]


def row(name: str, texts: list[list[int]], said: Found, is_bar: bool) -> Found:  # noqa: FBT001
    """One treatment: every answer by itself, and all together."""
    key = text_key(SEED, TextParameters())
    each = [reading([text], key, said) for text in texts]
    p_values = [one.p_value for one in each]
    return {
        "treatment": name, "bar": is_bar, "answers": len(texts),
        "share": statistics.mean(one.hits / max(one.trials, 1) for one in each),
        "p": statistics.median(p_values), "worst": max(p_values),
        "found": sum(p < FOUND_P for p in p_values),
        "together": reading(texts, key, said).p_value,
    }  # fmt: skip


def reading(texts: list[list[int]], key: Any, said: Found) -> Reading:
    """As `TextMark.verify` reads ids."""
    found = tally(texts, key, end=said["end"])
    return Reading(hits=found.hits, trials=found.trials, chance=0.5)


def alike(said: Found) -> dict[str, list[list[int]]]:
    """People's text, and what the model said without the mark."""
    own = [text for name, texts in said["strangers"].items() if name != "human" for text in texts]
    return {"people": said["strangers"]["human"], "the model, unmarked": own}


def strangers(texts: list[list[int]], said: Found) -> list[float]:
    """P-values of pieces of text, each under a seed of its own; exactly uniform, so it is said."""
    rng = np.random.default_rng(4)
    pieces = [
        text[at : at + STRANGER_TOKENS]
        for text in texts
        for at in range(0, max(len(text) - STRANGER_TOKENS // 2, 1), STRANGER_TOKENS)
    ]
    found = []
    for number in range(STRANGERS):
        key = text_key((number + 1).to_bytes(32, "big"), TextParameters())
        one = reading([pieces[number % len(pieces)]], key, said)
        found.append(randomised_tail(one.hits, one.trials, one.chance, rng.random()))
    return found


def show(found: Found) -> None:
    """Print the table."""
    print(f"\n{'what is done to a text':36}{'found':>8}{'hits':>8}{'p, median':>12}{'worst':>10}"
          f"{'together':>11}")  # fmt: skip
    for each in found["survives"]:
        of = f"{each['found']}/{each['answers']}"
        print(f"{each['treatment']:36}{of:>8}{each['share']:>8.3f}{each['p']:>12.0e}"
              f"{each['worst']:>10.0e}{each['together']:>11.0e}")  # fmt: skip
    for name, perplexity in found["perplexity"].items():
        took_ms = 1e3 * found["seconds_per_token"][name]
        print(f"{name:16} perplexity {perplexity:6.2f}, {took_ms:5.1f} ms a token in a batch")
