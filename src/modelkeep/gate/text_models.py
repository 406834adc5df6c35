"""Whether a kept model can be served as a language model, said of its manifest alone.

One GGUF file, or a folder as `transformers` writes it: config.json, weights in safetensors and a
tokenizer. Whether the runtime knows the architecture is seen when it is loaded; what can be said
without a byte of it is said here, before anything is decrypted.
"""

from __future__ import annotations

from modelkeep.core.artifact import Manifest
from modelkeep.core.record import Record

CONFIG = "config.json"
_TOKENIZERS = ("tokenizer.json", "vocab.txt")
# What the runtime looks at beside weights, if it is there; all else of a folder stays sealed.
_SMALL = (
    CONFIG,
    *_TOKENIZERS,
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
    "1_Pooling/config.json",
)


class TextForm(Record, frozen=True):
    """How a model is served as text.

    Attributes:
        files: paths of the files that its replicas need, in order; no others.
    """

    files: tuple[str, ...]


def text_form(manifest: Manifest) -> TextForm | None:
    """The files to give to a text replica; None for what is no language model.

    A model with a schema takes and gives tensors, whatever its files are called.
    """
    if manifest.schema is not None:
        return None
    paths = [each.path for each in manifest.files]
    if len(paths) == 1:
        return TextForm(files=tuple(paths)) if manifest.kind == "gguf" else None
    has_weights = any(_is_weights(path) for path in paths)
    if CONFIG not in paths or not has_weights or not set(_TOKENIZERS) & set(paths):
        return None
    return TextForm(files=tuple(path for path in paths if _is_weights(path) or path in _SMALL))


def _is_weights(path: str) -> bool:
    return path.endswith(".safetensors") and "/" not in path
