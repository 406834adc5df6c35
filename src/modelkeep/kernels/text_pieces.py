"""Tokens become text that may leave: whole characters only, and never a part of a stop text.

`Detokeniser` holds tokens back until they make whole characters. A decoder of tokens works on what
it is given together (it drops a first space, joins bytes to characters), so new tokens are decoded
behind a few that came before, and what those alone would give is cut off. Half a character decodes
to U+FFFD at the end; at most three of them, since a character has four bytes.

`StopGuard` holds text back for as long as it may be the beginning of a stop text. The stop text
that is complete first ends the text, of two that are complete at once the longer one; so the answer
is the same however the text is cut into pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]

BROKEN = "\ufffd"
# Tokens of the prompt that the first ones of the text are decoded behind.
CONTEXT_TOKENS = 6
# A character is four tokens at most. Past this the model does say U+FFFD, or bytes that are none.
_HELD_TOKENS_MAX = 8
# What half a character decodes to at most.
_BROKEN_MAX = 3
# Past this what was held is given up to, so that a model that says no characters costs no more.
_WINDOW_TOKENS_MAX = 64


class Detokeniser:
    """The text of one growing list of tokens.

    Args:
        decode: of the tokenizer; says nothing for special tokens.
        context: tokens before the first one, such as the prompt's last.
    """

    __slots__ = ("_decode", "_said", "_settled", "_tokens")

    def __init__(self, decode: Decode, context: Sequence[int] = ()) -> None:
        self._decode = decode
        self._tokens = list(context[-CONTEXT_TOKENS:])
        while self._tokens and decode(self._tokens).startswith(BROKEN):
            del self._tokens[0]  # the rest of a character that began before
        self._settled = len(self._tokens)  # so many tokens are said in full
        self._said = decode(self._tokens) if self._tokens else ""

    def text_of(self, token: int) -> str:
        """The text that one more token completes; may be empty."""
        self._tokens.append(token)
        text = self._decode(self._tokens)
        held = len(self._tokens) - self._settled
        if held > _WINDOW_TOKENS_MAX:
            return self._settle(text)
        if not text.startswith(self._said):
            return ""  # bytes behind a character, until they are one themselves
        broken = len(text) - len(text.rstrip(BROKEN))
        if not broken:
            return self._settle(text) if len(text) > len(self._said) else ""
        whole = text[: len(text) - min(broken, _BROKEN_MAX)]
        if held <= _HELD_TOKENS_MAX or len(whole) <= len(self._said):
            return ""
        fresh, self._said = whole[len(self._said) :], whole
        return fresh

    def rest(self) -> str:
        """What is still held when no token follows; of an unfinished character nothing is said."""
        if len(self._tokens) == self._settled:
            return ""
        text = self._settle(self._decode(self._tokens))
        broken = len(text) - len(text.rstrip(BROKEN))
        return text[: len(text) - min(broken, _BROKEN_MAX)]

    def _settle(self, text: str) -> str:
        """Say everything; the tokens of this piece are what the next one is decoded behind."""
        fresh = self._tokens[self._settled :]
        said = self._decode(fresh)
        piece = text[len(self._said) :] if text.startswith(self._said) else said
        self._tokens, self._settled, self._said = fresh, len(fresh), said
        return piece


class StopGuard:
    """Lets text through up to the first stop text.

    Args:
        stops: none of them empty.
    """

    __slots__ = ("_held", "_stops", "is_stopped")

    def __init__(self, stops: Sequence[str]) -> None:
        assert all(stops), "an empty stop text"
        self._stops = tuple(stops)
        self._held = ""
        self.is_stopped = False

    def passed(self, text: str) -> str:
        """What may leave now; nothing once a stop text was complete."""
        if self.is_stopped:
            return ""
        if not self._stops:
            return text
        whole = self._held + text
        ends = []
        for stop in self._stops:
            at = whole.find(stop)
            if at >= 0:
                ends.append((at + len(stop), at))
        if ends:
            self.is_stopped = True
            self._held = ""
            return whole[: min(ends)[1]]
        keep = max(_overlap(whole, stop) for stop in self._stops)
        self._held = whole[len(whole) - keep :]
        return whole[: len(whole) - keep]

    def rest(self) -> str:
        """What was held, when no text follows: it was no stop text after all."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text begin the stop text."""
    for count in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:count]):
            return count
    return 0
