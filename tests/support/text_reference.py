"""What transformers itself says, by a script that runs in the environment that has it.

    python text_reference.py FILE    reads and writes JSON

`{"gguf": PATH, "prompts": [...], "tokens": N}` gives the likeliest continuation of each prompt by
itself; `{"folder": PATH, "texts": [...]}` gives a vector for each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def continued(path: Path, prompts: list[str], tokens: int) -> list[str]:
    """The likeliest continuations, one prompt after the other."""
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    said = []
    for prompt in prompts:
        turns = [{"role": "user", "content": prompt}]
        given = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        made = model.generate(**given, do_sample=False, max_new_tokens=tokens)
        fresh = made[0][given["input_ids"].shape[1] :]
        said.append(tokenizer.decode(fresh, skip_special_tokens=True))
    return said


def vectors(folder: Path, texts: list[str]) -> list[list[float]]:
    """The mean of each text's states, at length 1."""
    import torch  # noqa: PLC0415
    from transformers import BertModel, BertTokenizer  # noqa: PLC0415

    words = (folder / "vocab.txt").read_text().splitlines()
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    model = BertModel.from_pretrained(folder).eval()
    found = []
    with torch.no_grad():
        for text in texts:
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            mean = states.mean(dim=0)
            found.append((mean / mean.norm()).tolist())
    return found


def main(path: str) -> None:
    """Answer the question in a file, into that file."""
    asked = json.loads(Path(path).read_text())
    if "gguf" in asked:
        answer = continued(Path(asked["gguf"]), asked["prompts"], asked["tokens"])
    else:
        answer = vectors(Path(asked["folder"]), asked["texts"])
    Path(path).write_text(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1])
