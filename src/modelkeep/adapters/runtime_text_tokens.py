"""Texts to tokens and back: the tokenizer of a model, and its chat template.

The template is rendered by `transformers`, in Jinja's sandbox; the scanner looked at it when the
model was admitted. What a client says must not pass for what the template says: a text that holds a
special token (`<|im_end|>`, `</s>`) is cut inside it before it is turned into tokens, so that it
stays text. Nothing is added to what the model reads.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.record import parsed_json
from modelkeep.core.text import Message

DESCRIPTORS = "/proc/self/fd"
# The largest known have 35 MB; configurations, templates and word lists of BERT's kind under 2 MB.
TOKENIZER_BYTES_MAX = 128 * 1024 * 1024
_FILE_BYTES_MAX = 8 * 1024 * 1024
# A private character that stands where a text is cut; it is taken out of texts that hold it.
_CUT = "\ue0f1"
_BERT_LIKE = frozenset({"bert", "distilbert", "electra", "mobilebert", "convbert"})
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")


class TextTokens:
    """One model's tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        with suppress(Exception):  # Jinja loads what it describes failures with at the first one
            tokenizer.apply_chat_template([], chat_template="{{ raise_exception('') }}")
        marks = sorted(set(tokenizer.all_special_tokens), key=len, reverse=True)
        marks += [str(each) for each in tokenizer.get_added_vocab() if str(each) not in marks]
        marks = [each for each in marks if len(each) > 1]
        self._marks = re.compile("|".join(map(re.escape, marks))) if marks else None

    @property
    def end(self) -> int | None:
        """The token that ends a text."""
        end: int | None = self._tokenizer.eos_token_id
        return end

    @property
    def has_template(self) -> bool:
        """Whether it can turn conversations into tokens."""
        return bool(self._tokenizer.chat_template)

    def of_text(self, text: str) -> list[int]:
        """The tokens of a prompt, with those that the tokenizer puts around every text."""
        tokens: list[int] = self._tokenizer(text).input_ids
        return tokens

    def of_chat(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of a conversation, up to where the model speaks next.

        Raises:
            UsageError: `text.template`, when the model has none or it refuses these messages.
        """
        if not self.has_template:
            raise UsageError(
                "text.template",
                "this model has no chat template",
                hint="ask it for a completion of a prompt",
            )
        plain = [{"role": each.role, "content": self._cut(each.content)} for each in messages]
        try:
            text = self._tokenizer.apply_chat_template(
                plain, add_generation_prompt=True, tokenize=False
            )
        except Exception as error:
            raise UsageError(
                "text.template", f"the model's chat template refuses these messages: {error!s:.200}"
            ) from error
        tokens: list[int] = []
        for part in text.split(_CUT):
            tokens += self._tokenizer(part, add_special_tokens=False).input_ids
        return tokens

    def decoded(self, tokens: Sequence[int]) -> str:
        """The text of tokens; nothing for special ones."""
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _cut(self, text: str) -> str:
        text = text.replace(_CUT, "")
        if self._marks is None:
            return text
        return self._marks.sub(lambda found: found[0][:1] + _CUT + found[0][1:], text)


def gguf_tokens(folder: str, name: str) -> TextTokens:
    """The tokenizer of a GGUF file."""
    from transformers import AutoTokenizer  # noqa: PLC0415

    return TextTokens(
        AutoTokenizer.from_pretrained(folder, gguf_file=name, trust_remote_code=False)
    )


def folder_tokens(files: Mapping[str, int], *, kind: str) -> TextTokens:
    """The tokenizer of a folder: tokenizer.json, or the word list of a model of BERT's kind.

    Raises:
        UsageError: `text.files`.
        IntegrityError: `runtime.load` or `record.json`.
    """
    facts = _json(files, "tokenizer_config.json")
    try:
        if "tokenizer.json" in files:
            _demand_small(files, "tokenizer.json", TOKENIZER_BYTES_MAX)
            tokenizer = _of_json(files["tokenizer.json"], facts)
        elif "vocab.txt" in files and kind in _BERT_LIKE:
            tokenizer = _of_words(file_bytes(files, "vocab.txt"), facts)
        else:
            raise UsageError(
                "text.files",
                "the folder has no tokenizer that can be read here",
                hint="it needs a tokenizer.json, which `save_pretrained` writes",
            )
    except (UsageError, IntegrityError):
        raise
    except Exception as error:
        raise IntegrityError("runtime.load", f"the tokenizer does not load: {error!s:.200}") from (
            error
        )
    template = _template(files, facts)
    if template:
        tokenizer.chat_template = template
    return TextTokens(tokenizer)


def _of_json(fd: int, facts: Mapping[str, Any]) -> Any:
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    special = {}
    for name in _SPECIAL:
        stated = facts.get(name)
        text = stated.get("content") if isinstance(stated, dict) else stated
        if isinstance(text, str):
            special[name] = text
    made = PreTrainedTokenizerFast(tokenizer_file=f"{DESCRIPTORS}/{fd}", **special)
    made.backend_tokenizer.no_truncation()  # what is too long is refused, not cut
    made.backend_tokenizer.no_padding()
    return made


def _of_words(raw: bytes, facts: Mapping[str, Any]) -> Any:
    from transformers import BertTokenizer  # noqa: PLC0415

    words = raw.decode().splitlines()
    return BertTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        do_lower_case=bool(facts.get("do_lower_case", True)),
    )


def _template(files: Mapping[str, int], facts: Mapping[str, Any]) -> str:
    if "chat_template.jinja" in files:
        return file_bytes(files, "chat_template.jinja").decode()
    stated = facts.get("chat_template") or ""
    if isinstance(stated, list):  # several, by name
        named = {str(each.get("name")): each.get("template") for each in stated}
        stated = named.get("default") or ""
    return str(stated)


def _json(files: Mapping[str, int], name: str) -> Mapping[str, Any]:
    if name not in files:
        return {}
    facts = parsed_json(file_bytes(files, name), what=name)
    return facts if isinstance(facts, dict) else {}


def file_bytes(files: Mapping[str, int], name: str) -> bytes:
    """One of the model's small files, whole.

    Raises:
        UsageError: `text.files`.
    """
    size = _demand_small(files, name, _FILE_BYTES_MAX)
    return os.pread(files[name], size, 0)


def _demand_small(files: Mapping[str, int], name: str, most: int) -> int:
    if name not in files:
        raise UsageError("text.files", f"the model's folder has no {name}")
    size = os.fstat(files[name]).st_size
    if size > most:
        raise UsageError("text.files", f"{name} has {size} bytes: no real one is so large")
    return size
