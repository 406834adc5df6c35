"""Text watermarks of a keep: registered before a model answers anybody, read in texts afterwards.

new_text(Watermarks(keep), "answers-1", tokenizer)
mark = text_mark(keep, "answers-1", tokenizer)
model.generate(**prompt, do_sample=True, watermarking_config=mark.config())
...
Watermarks(keep).judge("answers-1", reader(tokenizer, texts), claim="claim.json")
checked(claim, reader(tokenizer, texts), keys=[key])  # a stranger, with that tokenizer
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from modelkeep.adapters.text_watermark import TextMark, chosen_parameters
from modelkeep.core.errors import UsageError
from modelkeep.core.record import from_json, replaced, to_json
from modelkeep.crypto.secret import Secret
from modelkeep.flows.watermark import Registered, registered, seed_of
from modelkeep.kernels.digest import digest_of
from modelkeep.kernels.text_mark import DEPTH, TextParameters, demanded
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.suspects import Examined
from modelkeep.sdk.watermarks import Watermarks
from modelkeep.seal.marks import TEXT, Registration

_WHAT = "a mark's parameters"


def new_text(
    marks: Watermarks, mark: str, tokenizer: Any, *, depth: int = DEPTH, model: str = ""
) -> Registered:
    """Register a text mark for what is said through a tokenizer.

    Args:
        depth: layers of the tournament.

    Raises:
        UsageError: `mark.name`, `mark.exists` or `mark.parameters`.
    """
    chosen = demanded(replaced(chosen_parameters(tokenizer), depth=depth))
    return marks.new(mark, TEXT, to_json(chosen).decode(), model=model)


def text_mark(keep: Keep, mark: str, tokenizer: Any) -> TextMark:
    """A registered text mark with its seed, for a server that answers.

    Raises:
        MissingError: `mark.unknown`.
        UsageError: `mark.method`, `mark.tokenizer`.
    """
    found = registered(keep.opened, mark, method=TEXT)
    return _mark(found.registration, seed_of(keep.opened, mark), tokenizer)


def reader(tokenizer: Any, texts: str | Sequence[str]) -> Callable[[Registration, bytes], Examined]:
    """What reads a text mark in texts: for `Watermarks.judge` and `watermarks.checked`.

    Whoever judges gives a tokenizer of his own, and says himself which texts are read: who has the
    key can pick innocent ones that read well, so a claim over texts is never beyond trial.

    The function that comes back raises UsageError `mark.method`, `mark.tokenizer` or `mark.text`.
    """
    given = (texts,) if isinstance(texts, str) else tuple(texts)

    def read(registration: Registration, seed: bytes) -> Examined:
        reading = _mark(registration, Secret(seed), tokenizer).verify(given)
        return Examined(reading, str(digest_of(to_json(given))))

    return read


def _mark(registration: Registration, seed: Secret, tokenizer: Any) -> TextMark:
    if registration.method != TEXT:
        raise UsageError(
            "mark.method",
            f"{registration.mark} is of the method {registration.method}, and not read in texts",
        )
    parameters = from_json(TextParameters, registration.parameters.encode(), what=_WHAT)
    return TextMark(seed, tokenizer, parameters)
