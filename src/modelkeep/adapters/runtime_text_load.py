"""A language model from sealed memory files: its weights, its tokenizer and its chat template.

Theory of operation. Every file is a descriptor; nothing is written anywhere and no path on a disk
is opened for it. Two forms:

- one GGUF file. `transformers` reads it through `/proc/self/fd/N` and unpacks its blocks into
  float32, which is 4 to 8 times the file; the mapping is given up afterwards. Tokenizer, chat
  template and shape of the model come from the file.
- a folder: config.json, safetensors files and a tokenizer. The weights are tensors over the mapped
  pages, which all replicas of a model share, wherever the model computes in the type that the file
  has (float32 and, on a GPU, everything). What `torch` would have to convert is copied.

Code that a model brings is never run: architectures are those of `transformers`' own registry, an
`auto_map` is not looked at, and nothing is fetched (`ENVIRONMENT`). A configuration that asks for
quantised weights is refused: their libraries are not here.

A write to a weight over the mapped pages would end the process (`adapters.torch_views`): inference
makes none, and the weights are frozen.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from modelkeep.adapters.runtime_text_tokens import (
    DESCRIPTORS,
    TextTokens,
    file_bytes,
    folder_tokens,
    gguf_tokens,
)
from modelkeep.adapters.torch_views import torch_tensors
from modelkeep.core.artifact import TensorEntry
from modelkeep.core.digest import Digest
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.record import parsed_json
from modelkeep.kernels.ggufs import byte_order, gguf_tensors
from modelkeep.kernels.safetensors import safetensors_layout

# Set before the libraries are imported: no name is ever looked up, nothing is counted elsewhere, no
# bar is drawn, and threads that wait for a product do not burn what the gateway needs.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # with seven others on two cores: a step in 0.2 s, not in 4
}
# Rotary embeddings of these kinds change with the longest text of a step, beyond the context that
# the model was made for: then one stream would change another's.
_STRETCHED = frozenset({"dynamic", "longrope", "yarn-dynamic"})
_NO_DIGEST = Digest("blake3:" + 64 * "0")


@dataclass(frozen=True, slots=True)
class LoadedText:
    """A model that is ready to compute.

    Attributes:
        speaks: whether it makes text; else it makes vectors only.
        context_max: tokens that it was made for.
        ends: tokens after which nothing follows.
        pooling: how a text's vector is made of its tokens': `mean`, `cls` or `last`.
    """

    model: Any
    tokens: TextTokens
    speaks: bool
    context_max: int
    ends: frozenset[int]
    pooling: str = "mean"


def demand_text_libraries() -> None:
    """Import what a language model needs, without a word to the network.

    Raises:
        UsageError: `extra.missing`.
    """
    os.environ.update(ENVIRONMENT)
    try:
        import transformers  # noqa: PLC0415

        from modelkeep.adapters.runtime_text_batch import ATTENTION, attend  # noqa: PLC0415
        from modelkeep.adapters.runtime_text_gguf import reading_once  # noqa: PLC0415

        with reading_once():  # that it is there is seen before a model needs it
            transformers.AttentionInterface.register(ATTENTION, attend)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
    except ImportError as error:
        raise UsageError(
            "extra.missing",
            "language models run on torch and transformers, which are not installed",
            hint="pip install torch, then transformers, accelerate and gguf; "
            "docs/guide/language-models.md",
        ) from error


def run_on(threads: int) -> None:
    """Compute with so many threads.

    Raises:
        UsageError: `extra.missing`.
    """
    demand_text_libraries()
    from modelkeep.adapters.runtime_text_batch import computing  # noqa: PLC0415  # torch

    computing(threads)


def loaded_text(files: Mapping[str, int]) -> LoadedText:
    """Load a model from its files: names in its folder, and descriptors of memory files.

    Raises:
        UsageError: `text.files`, `text.architecture` or `extra.missing`.
        IntegrityError: `runtime.load`, `gguf.*`, `safetensors.*` or `record.json`.
    """
    demand_text_libraries()
    first = next(iter(files.values()), -1)
    if len(files) == 1 and os.pread(first, 4, 0) == b"GGUF":
        loaded = _of_gguf(first)
    elif "config.json" in files:
        loaded = _of_folder(files)
    else:
        raise UsageError(
            "text.files",
            "these files are no language model",
            hint="serve one GGUF file, or a folder with config.json, safetensors and a tokenizer",
        )
    _give_back()
    return loaded


def _give_back() -> None:
    """Have what the load gave up go back to the machine, as `adapters.runtime_onnx` does."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another allocator has no such thing
        ctypes.CDLL(None).malloc_trim(0)


def _of_gguf(fd: int) -> LoadedText:
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    from modelkeep.adapters.runtime_text_gguf import reading_once  # noqa: PLC0415

    with memoryview(_mapped(fd)) as view:
        gguf_tensors(view, byte_order(view))  # every bound, before a reader that checks fewer
    where: dict[str, Any] = {"gguf_file": str(fd), "trust_remote_code": False}
    try:
        with reading_once():
            config = AutoConfig.from_pretrained(DESCRIPTORS, **where)
            tokens = gguf_tokens(DESCRIPTORS, str(fd))
            model = AutoModelForCausalLM.from_pretrained(
                DESCRIPTORS, config=config, dtype="float32", **where
            )
    except Exception as error:
        raise IntegrityError("runtime.load", f"the model does not load: {error!s:.300}") from error
    return _ready(model, tokens, speaks=True, facts={})


def _of_folder(files: Mapping[str, int]) -> LoadedText:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: PLC0415

    from modelkeep.adapters.runtime_text_batch import kind_of_numbers  # noqa: PLC0415  # torch

    facts = parsed_json(file_bytes(files, "config.json"), what="config.json")
    kind = facts.get("model_type") if isinstance(facts, dict) else None
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise UsageError(
            "text.architecture",
            f"this runtime does not know the architecture {kind!r:.80}",
            hint="code that a model brings is never run; `docs/guide/language-models.md`",
        )
    if facts.get("quantization_config"):
        raise UsageError(
            "text.architecture",
            "the weights are quantised by a library that is not here",
            hint="serve the model's GGUF, or its plain safetensors",
        )
    weights = _weights(files)
    tokens = folder_tokens(files, kind=kind)
    try:
        config = CONFIG_MAPPING[kind].from_dict(facts)
        made, speaks = _model_class(config, facts)
        model = made.from_pretrained(
            None, config=config, state_dict=weights, dtype=kind_of_numbers(weights.values())
        )
    except KeyError as error:
        text = f"there is no language model of the architecture {kind}"
        raise UsageError("text.architecture", text) from error
    except Exception as error:
        raise IntegrityError("runtime.load", f"the model does not load: {error!s:.300}") from error
    more: dict[str, Any] = {}
    if "generation_config.json" in files:
        more = parsed_json(
            file_bytes(files, "generation_config.json"), what="generation_config.json"
        )
    return _ready(model, tokens, speaks=speaks, facts=more, pooling=_pooling(files))


def _ready(
    model: Any, tokens: TextTokens, *, speaks: bool, facts: Any, pooling: str = "mean"
) -> LoadedText:
    from modelkeep.adapters.runtime_text_batch import settled  # noqa: PLC0415  # torch

    model = settled(model)
    ends = {tokens.end}
    stated = [facts.get("eos_token_id")] if isinstance(facts, dict) else []
    for each in (*stated, getattr(model.generation_config, "eos_token_id", None)) if speaks else ():
        ends |= set(each) if isinstance(each, list) else {each}
    return LoadedText(
        model=model,
        tokens=tokens,
        speaks=speaks,
        context_max=_context_max(model.config),
        ends=frozenset(each for each in ends if isinstance(each, int)),
        pooling=pooling,
    )


def _model_class(config: Any, facts: Mapping[str, Any]) -> tuple[Any, bool]:
    """The class of the registry, and whether it makes text."""
    from transformers.models.auto.modeling_auto import (  # noqa: PLC0415
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_MAPPING,
    )

    stated = facts.get("architectures") or [""]
    if any(str(each).endswith(("ForCausalLM", "LMHeadModel")) for each in stated):
        return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], True
    return MODEL_MAPPING[type(config)], False


def _weights(files: Mapping[str, int]) -> dict[str, Any]:
    """All tensors of all safetensors files, over the mapped pages."""
    found: dict[str, Any] = {}
    for name, fd in sorted(files.items()):
        if not name.endswith(".safetensors") or "/" in name:
            continue
        view = memoryview(_mapped(fd))
        entries = [
            TensorEntry(
                name=each.name,
                dtype=each.dtype,
                shape=each.shape,
                offset=each.offset,
                length=each.length,
                digest=_NO_DIGEST,
            )
            for each in safetensors_layout(view).tensors
        ]
        found.update(torch_tensors(view, entries))
    if not found:
        raise UsageError(
            "text.files", "the folder has no weights", hint="weights are read from *.safetensors"
        )
    return found


def _pooling(files: Mapping[str, int]) -> str:
    """What sentence-transformers' own file says; the mean where there is none."""
    name = "1_Pooling/config.json"
    if name not in files:
        return "mean"
    facts = parsed_json(file_bytes(files, name), what=name)
    stated = [
        way
        for way, key in (
            ("mean", "pooling_mode_mean_tokens"),
            ("cls", "pooling_mode_cls_token"),
            ("last", "pooling_mode_lasttoken"),
        )
        if isinstance(facts, dict) and facts.get(key)
    ]
    if len(stated) != 1:
        raise UsageError("text.architecture", "this way of pooling is not known here")
    return stated[0]


def _context_max(config: Any) -> int:
    longest = int(getattr(config, "max_position_embeddings", 0) or 0)
    rope = getattr(config, "rope_parameters", None) or {}
    if isinstance(rope, dict) and rope.get("rope_type") in _STRETCHED:
        longest = int(rope.get("original_max_position_embeddings") or longest)
    return longest or 2048


def _mapped(fd: int) -> mmap.mmap:
    size = os.fstat(fd).st_size
    if not size:
        raise IntegrityError("runtime.load", "a memory file of the model is empty")
    return mmap.mmap(fd, size, prot=mmap.PROT_READ)
