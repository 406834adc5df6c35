"""A language model of a few thousand random weights: it says nonsense, and always the same."""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
from tensor_files import written

WIDTH, LAYERS, HEADS, CONTEXT = 32, 2, 2, 1024
MARKS = ("<|im_start|>", "<|im_end|>")
LETTERS = tuple(string.digits + string.ascii_letters + string.punctuation + " \n")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_language_model(folder: Path, *, seed: int = 5) -> Path:
    """Write a folder as transformers does: an architecture that is known, a token per letter."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(_config()))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer()))
    facts = {"eos_token": MARKS[1], "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    (folder / "README.md").write_text("No runtime needs this file.\n")
    written(folder / "model.safetensors", _weights(np.random.default_rng(seed)))
    return folder


def _config() -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(MARKS) + len(LETTERS),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "max_position_embeddings": CONTEXT,
        "eos_token_id": 1,
        "tie_word_embeddings": False,
        "dtype": "float32",
    }


def _tokenizer() -> dict[str, object]:
    words = {each: at for at, each in enumerate((*MARKS, *LETTERS))}
    added = [
        {
            "id": at,
            "content": mark,
            "special": True,
            **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
        }
        for at, mark in enumerate(MARKS)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "vocab": words, "merges": [], "unk_token": "?"},
    }


def _weights(random: np.random.Generator) -> dict[str, np.ndarray]:
    def drawn(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32) / np.float32(WIDTH**0.5)

    vocabulary = len(MARKS) + len(LETTERS)
    found = {"model.embed_tokens.weight": drawn(vocabulary, WIDTH)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{at}.{name}.weight"] = np.ones(WIDTH, np.float32)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            found[f"{at}.self_attn.{name}.weight"] = 2 * drawn(WIDTH, WIDTH)
        for name in ("gate_proj", "up_proj"):
            found[f"{at}.mlp.{name}.weight"] = 2 * drawn(2 * WIDTH, WIDTH)
        found[f"{at}.mlp.down_proj.weight"] = 2 * drawn(WIDTH, 2 * WIDTH)
    found["model.norm.weight"] = np.ones(WIDTH, np.float32)
    head = 3 * drawn(vocabulary, WIDTH)
    head[: len(MARKS)] = 0  # it does not end by itself but by rare chance
    found["lm_head.weight"] = head
    return found
