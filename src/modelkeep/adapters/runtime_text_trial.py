"""Proves, before a language model answers anybody, that streams change nothing in what it computes.

Architectures of `transformers` differ in what they hand to attention. Instead of a list of those
that are right, each model is tried once at its start: two texts are computed by the model's own
attention, one after the other, then together by ours, one of them in two portions. Only if the
scores are the same, to rounding, does it serve. The trial also says how much a token takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from modelkeep.adapters.runtime_text_batch import (
    ATTENTION,
    Segment,
    StreamCache,
    packed,
    steady_multiple,
)
from modelkeep.core.errors import UsageError

_LONG, _SHORT, _CUT = 12, 5, 7
# Of the widest score: rounding is a millionth of it in float32 and a hundredth in bfloat16.
_TOLERANCE = 1e-4
_TOLERANCE_HALF = 5e-2

_UNFIT = "this architecture cannot be computed stream by stream"
_HINT = "serve it by a server of its own and name that in [[upstreams]]"


def proven(model: Any) -> tuple[int, int]:
    """Give a model our attention, which `runtime_text_load` has registered, and prove it.

    Returns:
        The multiple of rows from which on results are steady, and bytes of a token's keys and
        values in all layers together.

    Raises:
        UsageError: `text.architecture`.
    """
    words = min(model.config.get_text_config().vocab_size, 1000)
    texts = [[(7 * at + 3) % words for at in range(many)] for many in (_LONG, _SHORT)]
    multiple = steady_multiple(_weights_of_each_shape(model)) if model.device.type == "cpu" else 1
    try:
        alone = [_scores(model, text) for text in texts]
        model.set_attn_implementation(ATTENTION)
        caches = [StreamCache(_LONG), StreamCache(_SHORT)]
        first = [
            Segment(caches[0], 0, texts[0][:_CUT]),
            Segment(caches[1], 0, texts[1]),
        ]
        said, _ = packed(model, first, [_CUT + _SHORT - 1], rows_multiple=multiple)
        rest = Segment(caches[0], _CUT, texts[0][_CUT:])
        then, _ = packed(model, [rest], [_LONG - _CUT - 1], rows_multiple=multiple)
    except Exception as error:
        raise UsageError("text.architecture", f"{_UNFIT}: {error!s:.200}", hint=_HINT) from error
    tolerance = _TOLERANCE if model.dtype == torch.float32 else _TOLERANCE_HALF
    for mine, own in ((then[0], alone[0]), (said[0], alone[1])):
        most = float(np.abs(own).max())
        away = float(np.abs(mine - own).max())
        if not away <= tolerance * most:
            why = f"its scores are {away:.3g} away from its own"
            raise UsageError("text.architecture", f"{_UNFIT}: {why}", hint=_HINT)
    return multiple, _token_bytes(caches[0])


def _scores(model: Any, text: list[int]) -> Any:
    ids = torch.tensor([text], device=model.device)
    return model(input_ids=ids, use_cache=False).logits[0, -1].float().cpu().numpy()


def _weights_of_each_shape(model: Any) -> list[Any]:
    found: dict[tuple[int, ...], Any] = {}
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            found.setdefault(tuple(module.weight.shape), module.weight)
    return list(found.values())


def _token_bytes(cache: StreamCache) -> int:
    return sum(each.nbytes // cache.room_tokens for pair in cache.layers.values() for each in pair)
