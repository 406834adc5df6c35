"""The data of benchmarks/vault: a family of models made from one seed, streamed, written once.

A tensor is made in blocks, and its base and all fine-tunes of it are written side by side, so that
memory stays small whatever the size. A fine-tune is what mixed-precision training leaves: fp32
master weights, moved, rounded to bf16. (Started from the base's rounded weights, most of a small
move would be rounded away: an easier case, 0.09 of raw at least and not 0.11, that is not taken.)
A checkpoint is what AdamW leaves: its
moments start at their stationary law and then see real steps on noisy gradients.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

SEED = 20_261_121
BLOCK = 1 << 20  # elements; a block and what is made of it stay in the caches
DELTAS = {"finetune-0.001": 0.001, "finetune-0.005": 0.005, "finetune-0.02": 0.02}
LAST_QUARTER = "finetune-last-quarter"
LAST_QUARTER_DELTA = 0.005
STEPS_BEFORE, STEPS_BETWEEN = 5, 20
LORA_RANK = 16
VERSION = 2  # of what is made; another one makes cached data again

Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Form:
    """How large the family is."""

    name: str
    base: Transformer
    trained: Transformer
    folder_mb: int


@dataclass(frozen=True)
class Transformer:
    """The shape of a decoder."""

    layers: int
    width: int
    inner: int
    keys: int  # width of keys and of values: few heads are shared
    vocabulary: int

    def tensors(self) -> dict[str, Tensor]:
        """Names as public models have them, in the order of a file: by name."""
        matrices = {
            "self_attn.q_proj": (self.width, self.width),
            "self_attn.k_proj": (self.keys, self.width),
            "self_attn.v_proj": (self.keys, self.width),
            "self_attn.o_proj": (self.width, self.width),
            "mlp.up_proj": (self.inner, self.width),
            "mlp.down_proj": (self.width, self.inner),
        }
        found = {
            "model.embed_tokens.weight": Tensor((self.vocabulary, self.width), 0.02),
            "model.norm.weight": Tensor((self.width,), 0.05, mean=1.0),
        }
        for layer in range(self.layers):
            at = f"model.layers.{layer}"
            for name, shape in matrices.items():
                full = f"{at}.{name}.weight"
                # What writes into the residual stream starts smaller; no two tensors are alike.
                gain = (2 * self.layers) ** -0.5 if name.endswith(("o_proj", "down_proj")) else 1.0
                gain *= float(np.exp(0.15 * random_of("sigma", full).standard_normal()))
                found[full] = Tensor(shape, gain / shape[1] ** 0.5, layer=layer)
            for name in ("input_layernorm", "post_attention_layernorm"):
                found[f"{at}.{name}.weight"] = Tensor((self.width,), 0.05, mean=1.0, layer=layer)
        return dict(sorted(found.items()))


@dataclass(frozen=True)
class Tensor:
    """One tensor of the generated models: Gaussian."""

    shape: tuple[int, ...]
    sigma: float
    mean: float = 0.0
    layer: int = -1

    @property
    def count(self) -> int:
        """Elements."""
        return int(np.prod(self.shape))


FULL = Form(
    "full",
    base=Transformer(layers=20, width=1024, inner=4096, keys=128, vocabulary=32_000),
    trained=Transformer(layers=8, width=384, inner=1536, keys=384, vocabulary=8_000),
    folder_mb=40,
)
QUICK = Form(
    "quick",
    base=Transformer(layers=20, width=320, inner=1280, keys=64, vocabulary=10_000),
    trained=Transformer(layers=8, width=128, inner=512, keys=128, vocabulary=4_000),
    folder_mb=4,
)


def make_family(folder: Path, form: Form, write_tables: Callable[[Path, int], bool]) -> None:
    """Write the family, or leave it as it is when it is there already."""
    tables = folder / "folder"
    tables.mkdir(parents=True, exist_ok=True)
    has_tables = write_tables(tables, form.folder_mb * 3 // 8)
    is_wanted = {"version": VERSION, "seed": SEED, "form": form.name, "tables": has_tables}
    stamp = folder.parent / f"{folder.name}.json"
    if stamp.exists() and json.loads(stamp.read_text()) == is_wanted:
        return
    models(folder, form.base)
    lora(folder / "lora", form.base)
    checkpoints(folder / "training", form.trained)
    documents(tables, form.folder_mb)
    # BorgBackup's files cache leaves out what is as new as the newest file: let that be this one.
    time.sleep(0.1)
    (folder / "README.txt").write_text("Made by benchmarks/vault of modelkeep; nothing is real.\n")
    stamp.write_text(json.dumps(is_wanted))


def models(folder: Path, form: Transformer) -> None:
    """The base and its fine-tunes, side by side."""
    tensors = form.tensors()
    first_tuned = form.layers - form.layers // 4
    shapes = {name: ("BF16", tensor.shape) for name, tensor in tensors.items()}
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(safetensors(folder / name / "model.safetensors", shapes)[0])
            for name in ("base", *DELTAS, LAST_QUARTER)
        }
        for name, tensor in tensors.items():
            random = {each: random_of(each, name) for each in files}
            for count in blocks(tensor.count):
                master = random["base"].standard_normal(count, dtype=np.float32)
                master *= np.float32(tensor.sigma)
                master += np.float32(tensor.mean)
                files["base"].write(bf16(master))
                for each, delta in DELTAS.items():
                    files[each].write(moved(master, delta * tensor.sigma, random[each]))
                is_tuned = tensor.layer >= first_tuned
                delta = LAST_QUARTER_DELTA * tensor.sigma if is_tuned else 0.0
                files[LAST_QUARTER].write(moved(master, delta, random[LAST_QUARTER]))
    for name in files:
        (folder / name / "config.json").write_text(json.dumps(vars(form), indent=2) + "\n")


def moved(master: Floats, sigma: float, random: np.random.Generator) -> Halves:
    """Weights after a training that moved them."""
    if not sigma:
        return bf16(master)
    drawn = random.standard_normal(master.size, dtype=np.float32)
    drawn *= np.float32(sigma)
    drawn += master
    return bf16(drawn)


def bf16(values: Floats) -> Halves:
    """Round fp32 to bf16, to the nearest, ties to even."""
    bits = values.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + odd + np.uint32(0x7FFF)) >> np.uint32(16)).astype(np.uint16)


def lora(folder: Path, form: Transformer) -> None:
    """An adapter as PEFT writes it: A uniform as it was initialised, then moved; B small."""
    tensors = {}
    for name, tensor in form.tensors().items():
        if "_proj" in name:
            at = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{at}.lora_A.weight"] = (LORA_RANK, tensor.shape[1])
            tensors[f"{at}.lora_B.weight"] = (tensor.shape[0], LORA_RANK)
    tensors = dict(sorted(tensors.items()))
    shapes = {name: ("F32", shape) for name, shape in tensors.items()}
    with safetensors(folder / "adapter_model.safetensors", shapes)[0] as stream:
        for name, shape in tensors.items():
            random = random_of("lora", name)
            made = random.standard_normal(shape, dtype=np.float32) * np.float32(0.002)
            if "lora_A" in name:
                made += random.uniform(-1, 1, shape).astype(np.float32) / np.float32(
                    shape[1] ** 0.5
                )
            stream.write(made)
    config = {"peft_type": "LORA", "r": LORA_RANK, "lora_alpha": 32, "lora_dropout": 0.05}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def checkpoints(folder: Path, form: Transformer) -> None:
    """Parameters and Adam's moments at two steps of one training."""
    tensors = form.tensors()
    kinds = ("model", "optimizer.exp_avg", "optimizer.exp_avg_sq")
    shapes = {
        f"{kind}.{name}": ("F32", tensor.shape)
        for kind in kinds
        for name, tensor in tensors.items()
    }
    with ExitStack() as stack:
        files, places = [], {}
        for step in (10_000, 10_000 + STEPS_BETWEEN):
            path = folder / f"step-{step}" / "checkpoint.safetensors"
            stream, places = safetensors(path, shapes)
            files.append(stack.enter_context(stream))
        for name, tensor in tensors.items():
            at = 0
            random = random_of("adam", name)
            for count in blocks(tensor.count):
                for stream, state in zip(files, adam(random, tensor, count), strict=True):
                    for kind, values in zip(kinds, state, strict=True):
                        stream.seek(places[f"{kind}.{name}"] + 4 * at)
                        stream.write(values)
                at += count


def adam(
    random: np.random.Generator, tensor: Tensor, count: int
) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Parameters and moments of a piece of a tensor, before and after some steps of AdamW."""
    one, two, rate, decay, epsilon = map(np.float32, (0.9, 0.999, 1e-4, 0.01, 1e-8))

    def normal(scale: float = 1.0) -> Floats:
        return random.standard_normal(count, dtype=np.float32) * np.float32(scale)

    # Gradients: of another size in every tensor and every element, with a small steady part.
    size = np.exp(normal(0.5)) * np.float32(1e-4 * np.exp(random.standard_normal()))
    steady = size * normal(0.1)
    parameters = normal(tensor.sigma) + np.float32(tensor.mean)
    first = steady + size * normal((0.1 / 1.9) ** 0.5)
    second = size * size * (1 + normal((2 * 0.001 / 1.999) ** 0.5))
    for steps in (STEPS_BEFORE, STEPS_BETWEEN):
        for _ in range(steps):
            gradient = steady + size * normal()
            first *= one
            first += (1 - one) * gradient
            gradient *= gradient
            second *= two
            second += (1 - two) * gradient
            parameters *= 1 - rate * decay
            parameters -= rate * first / (np.sqrt(second) + epsilon)
        yield parameters, first, second


def documents(folder: Path, size_mb: int) -> None:
    """Text with the frequencies of words, JSON lines and CSV; Parquet is written by its peer."""
    random = random_of("documents")
    words = vocabulary(random)
    rank = np.arange(len(words))
    odds = 1 / (rank + 2.7)
    odds /= odds.sum()
    part = size_mb * 1_000_000 // 4
    for number in range(2):
        with (folder / f"text-{number}.txt").open("w") as stream:
            while stream.tell() < part // 2:
                drawn = words[random.choice(len(words), 20_000, p=odds)]
                ends = np.cumsum(random.integers(5, 25, 1_000))
                for sentence in np.split(drawn, ends[ends < len(drawn)]):
                    stream.write(" ".join(sentence).capitalize() + ".\n")
    with (folder / "records.jsonl").open("w") as stream:
        number = 0
        while stream.tell() < part:
            stream.write(json.dumps(record(number, random, words)) + "\n")
            number += 1
    with (folder / "table.csv").open("w") as stream:
        stream.write("step,loss,accuracy,learning_rate,host\n")
        step = 0
        while stream.tell() < part // 2:
            loss = 4 / (1 + step / 5000) ** 0.5 + random.normal(0, 0.02)
            stream.write(f"{step},{loss:.6f},{1 / (1 + loss):.4f},{1e-4:g},node-{step % 8}\n")
            step += 1


def record(number: int, random: np.random.Generator, words: npt.NDArray[np.str_]) -> dict[str, Any]:
    """One line as a service logs it."""
    picks = random.integers(0, 400, 6)
    return {
        "id": f"{random.integers(1 << 62):016x}",
        "timestamp": 1_763_700_000_000 + number * 37 + int(picks[0]),
        "model": f"model-{picks[1] % 7}",
        "status": 200 if picks[2] else 429,
        "latency_ms": round(float(random.gamma(3.0, 4.0)), 3),
        "tokens": {"prompt": int(picks[3]), "completion": int(picks[4])},
        "tags": [str(words[each]) for each in picks[4:]],
        "score": round(float(random.normal()), 6),
    }


def vocabulary(random: np.random.Generator) -> npt.NDArray[np.str_]:
    """Made-up words of one to four syllables."""
    syllables = [
        a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "is")
    ]
    counts = random.integers(1, 5, 30_000)
    made = {"".join(random.choice(syllables, count)) for count in counts}
    return np.array(sorted(made, key=lambda word: (len(word), zlib.crc32(word.encode()))))


def safetensors(
    path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]
) -> tuple[BinaryIO, dict[str, int]]:
    """Begin a file: an open stream behind its header, and where each tensor begins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    places, at = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = int(np.prod(shape)) * {"BF16": 2, "F32": 4}[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        places[name] = at
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    stream = path.open("wb")
    stream.write(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + at)
    return stream, {name: 8 + len(text) + place for name, place in places.items()}


def read_header(path: Path) -> dict[str, tuple[str, int, int]]:
    """Dtype, place and size of every tensor of a safetensors file."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    return {
        name: (each["dtype"], 8 + length + each["data_offsets"][0],
               each["data_offsets"][1] - each["data_offsets"][0])
        for name, each in header.items() if name != "__metadata__"
    }  # fmt: skip


def random_of(*names: str) -> np.random.Generator:
    """A stream of its own for everything that has a name, whatever is made before it."""
    words = [zlib.crc32(name.encode()) for name in names]
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([SEED, *words])))


def blocks(count: int) -> Iterator[int]:
    """The sizes of the pieces of a tensor."""
    while count > 0:
        yield min(count, BLOCK)
        count -= BLOCK


def entropies(folder: Path) -> dict[str, float]:
    """What a coder without a context cannot go below, as a part of raw: a check of the generator.

    The base: sign and mantissa raw, the exponent's entropy. A fine-tune: the entropy of the
    difference of the ordered bit patterns. Sampled from the larger tensors, one by one; a coder
    that looks at the base's exponent may go below it.
    """
    header = read_header(folder / "base" / "model.safetensors")
    sampled = [name for name, (_, _, size) in header.items() if size >= BLOCK][::7]
    found: dict[str, list[float]] = {}
    for name in sampled:
        base = sample(folder / "base", name)
        found.setdefault("base", []).append((8 + entropy((base >> 7) & 0xFF)) / 16)
        for each in DELTAS:
            difference = (ordered(sample(folder / each, name)) - ordered(base)).view(np.int16)
            zigzag = (difference << 1) ^ (difference >> 15)
            found.setdefault(each, []).append(entropy(zigzag.view(np.uint16)) / 16)
    return {each: float(np.mean(values)) for each, values in found.items()}


def sample(folder: Path, name: str) -> Halves:
    """The beginning of one bf16 tensor of a model."""
    path = folder / "model.safetensors"
    _, at, size = read_header(path)[name]
    return np.fromfile(path, np.uint16, min(size // 2, BLOCK), offset=at)


def ordered(bits: Halves) -> Halves:
    """Bit patterns of floats in the order of their values."""
    return np.where(bits >> 15, ~bits, bits | np.uint16(0x8000)).astype(np.uint16)


def entropy(symbols: npt.NDArray[Any]) -> float:
    """Bits a symbol, as if each came by itself."""
    counts = np.bincount(symbols.astype(np.int64))
    odds = counts[counts > 0] / symbols.size
    return float(-(odds * np.log2(odds)).sum())
