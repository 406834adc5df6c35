"""One forward pass of a language model over the tokens of many streams, one behind the other.

The tokens of a step lie in one row, without padding between streams: projections, norms and the
feed-forward parts see one matrix, and only attention is computed stream by stream, over that
stream's own keys and values. `transformers` lets a model's attention be any function that is
registered by name, and hands what is called `cache` through to it; its own continuous batching
rests on the same two things.

Why a stream has the same tokens in every company, on a CPU to the last bit:

1. attention and chunks of prompts have the same shapes whatever else is in the step;
2. a matrix product gives the same last bits for a row whatever rows stand beside it, once there are
   enough rows: below four, MKL takes other kernels. So the row is filled up to a multiple of
   `rows_multiple`, which `steady_multiple` finds out on the machine at hand;
3. everything else works on each token by itself.

On a GPU the second does not hold, and equal scores may then fall either way.

A stream's keys and values lie in one block per layer, made at once for all that it may hear and
say: nothing is moved while it grows, and it never has to make room for another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import linear, scaled_dot_product_attention

from modelkeep.core.errors import UnavailableError

ATTENTION = "modelkeep_streams"
# Tried in this order; a row of one is what a token of a lonely stream would take.
_MULTIPLES = (1, 2, 4, 8, 16)
_PROBED_ROWS = 64


@dataclass(slots=True)
class StreamCache:
    """Keys and values of one stream, by layer: (heads, tokens, width)."""

    room_tokens: int
    layers: dict[int, tuple[Any, Any]] = field(default_factory=dict)

    def extended(self, layer: int, start: int, keys: Any, values: Any) -> tuple[Any, Any]:
        """Write new tokens at `start`; everything up to their end."""
        if layer not in self.layers:
            self.layers[layer] = tuple(
                each.new_empty((each.shape[0], self.room_tokens, each.shape[2]))
                for each in (keys, values)
            )
        end = start + keys.shape[1]
        both = self.layers[layer]
        both[0][:, start:end] = keys
        both[1][:, start:end] = values
        return both[0][:, :end], both[1][:, :end]


@dataclass(slots=True)
class Segment:
    """One stream's tokens of a step."""

    cache: StreamCache
    start: int
    tokens: Sequence[int]


class _Step:
    """What attention needs to know of a step; `cache` in the words of `transformers`."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = segments
        self._masks: dict[tuple[int, int, int, int], Any] = {}

    def mask(self, start: int, length: int, groups: int, window: int) -> Any:
        """Who of a chunk sees what: the past, and of the chunk what is not behind it."""
        key = (start, length, groups, window)
        if key not in self._masks:
            row = torch.arange(start, start + length)[:, None]
            column = torch.arange(start + length)[None, :]
            seen = column <= row
            if window:
                seen &= column > row - window
            self._masks[key] = seen.repeat(groups, 1)
        return self._masks[key]


def attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    _mask: Any,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    cache: _Step | None = None,
    **_others: Any,
) -> tuple[Any, None]:
    """Attention of each stream over itself; the function that is registered by name."""
    if cache is None or softcap or _others.get("s_aux") is not None:
        raise NotImplementedError("this attention is computed stream by stream")
    heads, total, _ = query.shape[1:]
    groups = heads // key.shape[1]
    out = query.new_zeros((total, heads, value.shape[3]))
    window = sliding_window or 0
    at = 0
    for segment in cache.segments:
        length = len(segment.tokens)
        stop = at + length
        keys, values = segment.cache.extended(
            module.layer_idx, segment.start, key[0, :, at:stop], value[0, :, at:stop]
        )
        end = segment.start + length
        mask = None
        if length == 1:  # one token sees everything there is, or its window
            if window and end > window:
                keys, values = keys[:, -window:], values[:, -window:]
        else:
            mask = cache.mask(segment.start, length, groups, window).to(query.device)
        # Heads that share keys are rows of one product.
        rows = query[0, :, at:stop].reshape(key.shape[1], groups * length, query.shape[3])
        found = scaled_dot_product_attention(
            rows[None], keys[None], values[None], attn_mask=mask, scale=scaling
        )[0]
        out[at:stop] = found.reshape(heads, length, value.shape[3]).transpose(0, 1)
        at = stop
    return out[None], None


def packed(
    model: Any,
    segments: Sequence[Segment],
    wanted: Sequence[int],
    *,
    rows_multiple: int,
    hidden: bool = False,
) -> tuple[Any, Any]:
    """Scores of the wanted tokens and, if asked for, the last hidden state of every token.

    Args:
        wanted: which tokens of the row are followed by one that is drawn.

    Raises:
        UnavailableError: `runtime.failed`.
    """
    tokens = [token for each in segments for token in each.tokens]
    places = [at for each in segments for at in range(each.start, each.start + len(each.tokens))]
    fill = -len(tokens) % rows_multiple
    rows = list(wanted) + [0] * (-len(wanted) % rows_multiple)
    device = model.device
    try:
        said = model(
            input_ids=torch.tensor([tokens + [0] * fill], device=device),
            position_ids=torch.tensor([places + [0] * fill], device=device),
            use_cache=False,
            logits_to_keep=torch.tensor(rows or [0] * rows_multiple, device=device),
            output_hidden_states=hidden,
            cache=_Step(segments),
        )
    except Exception as error:
        raise UnavailableError("runtime.failed", f"the model failed: {error!s:.200}") from error
    states = _numbers(said.hidden_states[-1][0]) if hidden else None
    return _numbers(said.logits[0, : len(wanted)]), states


def encoded(model: Any, prompts: Sequence[Sequence[int]]) -> list[Any]:
    """The last hidden states of each text, from a model that reads both ways.

    Raises:
        UnavailableError: `runtime.failed`.
    """
    longest = max(map(len, prompts))
    ids = torch.zeros((len(prompts), longest), dtype=torch.long)
    mask = torch.zeros((len(prompts), longest), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
        mask[row, : len(prompt)] = 1
    try:
        said = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))
        states = said.last_hidden_state
    except Exception as error:
        raise UnavailableError("runtime.failed", f"the model failed: {error!s:.200}") from error
    return [_numbers(states[row, : len(prompt)]) for row, prompt in enumerate(prompts)]


def computing(threads: int) -> None:
    """Compute with so many threads, and keep nothing that only training needs.

    oneDNN is left out: it compiles products for shapes as they come, and a process that is locked
    in has no executable memory. MKL's are compiled already.
    """
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    torch.backends.mkldnn.set_flags(False)  # its one argument, by position only


def settled(model: Any) -> Any:
    """A loaded model, frozen, where it will compute."""
    model = model.eval().requires_grad_(requires_grad=False)
    return model.to("cuda") if torch.cuda.is_available() else model


def kind_of_numbers(weights: Iterable[Any]) -> Any:
    """What a model computes in: on a CPU float32, where results do not hang on neighbours."""
    if not torch.cuda.is_available():
        return torch.float32
    kinds = {each.dtype for each in weights if each.is_floating_point()}
    return torch.float32 if len(kinds) != 1 else kinds.pop()


def _numbers(tensor: Any) -> Any:
    return tensor.float().cpu().numpy()


def steady_multiple(weights: Sequence[Any]) -> int:
    """The least multiple of rows from which on each row's product is the same; 1 where none is."""
    for multiple in _MULTIPLES:
        if all(_is_steady(weight, multiple) for weight in weights):
            return multiple
    return 1


def _is_steady(weight: Any, multiple: int) -> bool:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(_PROBED_ROWS, weight.shape[1], generator=generator)
    rows = rows.to(device=weight.device, dtype=weight.dtype)
    whole = linear(rows, weight)
    return all(
        bool((linear(rows[:count], weight) == whole[:count]).all())
        for count in range(multiple, min(5 * multiple, _PROBED_ROWS), multiple)
    )
