"""What leaves of a text on its way: whole characters, and never a part of a stop text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelkeep.kernels.text_pieces import BROKEN, Detokeniser, StopGuard

texts = st.text(st.sampled_from("ab é日😀\n") | st.characters(codec="utf-8"), max_size=40)


class Bytes:
    """A tokenizer whose tokens are pieces of UTF-8, cut anywhere."""

    def __init__(self, pieces):
        self.pieces = pieces

    def decode(self, tokens):
        return b"".join(self.pieces[token] for token in tokens).decode("utf-8", "replace")

    def strictly(self, tokens):
        """As the decoders with byte fallback: all bytes of a run are characters, or none is."""
        raw = b"".join(self.pieces[token] for token in tokens)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "".join(chr(each) if each < 128 else BROKEN for each in raw)


def cut(raw, data):
    pieces = []
    while raw:
        count = data.draw(st.integers(1, 3))
        pieces.append(raw[:count])
        raw = raw[count:]
    return pieces


@given(texts, st.data())
def test_a_text_is_said_whole_and_no_character_in_halves(text, data):
    pieces = cut(text.encode(), data)
    for decode in (Bytes(pieces).decode, Bytes(pieces).strictly):
        detokeniser = Detokeniser(decode)
        said = [detokeniser.text_of(token) for token in range(len(pieces))]
        said.append(detokeniser.rest())
        if BROKEN not in text:
            assert "".join(said) == text
            assert not any(BROKEN in each for each in said)


@given(texts, texts, st.data())
def test_what_was_said_before_is_not_said_again(before, text, data):
    first, then = cut(before.encode(), data), cut(text.encode(), data)
    tokenizer = Bytes([*first, *then])
    detokeniser = Detokeniser(tokenizer.decode, range(len(first)))
    said = [detokeniser.text_of(len(first) + at) for at in range(len(then))]
    if BROKEN not in before + text:
        assert "".join(said) + detokeniser.rest() == text


@given(st.lists(st.binary(min_size=1, max_size=3), max_size=300))
def test_bytes_that_are_no_text_neither_stop_it_nor_pile_up(pieces):
    longest = 0

    def decode(tokens):
        nonlocal longest
        longest = max(longest, len(tokens))
        return Bytes(pieces).decode(tokens)

    detokeniser = Detokeniser(decode)
    for token in range(len(pieces)):
        detokeniser.text_of(token)
    detokeniser.rest()
    assert longest <= 140


def test_the_first_half_of_a_character_is_not_said_at_the_end():
    tokenizer = Bytes([b"a", "😀".encode()[:3]])
    detokeniser = Detokeniser(tokenizer.decode)
    assert detokeniser.text_of(0) + detokeniser.text_of(1) + detokeniser.rest() == "a"


def first_complete(text, stops):
    """Where a text ends: before the stop text that is complete first, of those the longest."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - len(max(found, key=len))]
    return None


short = st.text(st.sampled_from("abc"), min_size=1, max_size=4)


@given(st.lists(st.text(st.sampled_from("abc"), max_size=5)), st.lists(short, max_size=3))
def test_a_text_ends_before_its_stop_text_however_it_is_cut(pieces, stops):
    guard = StopGuard(stops)
    said = "".join(guard.passed(piece) for piece in pieces)
    whole = "".join(pieces)
    wanted = first_complete(whole, stops)
    assert guard.is_stopped == (wanted is not None)
    if wanted is None:
        held = guard.rest()
        assert said + held == whole
        assert not held or any(stop.startswith(held) for stop in stops)
    else:
        assert said == wanted
        assert guard.passed("more") + guard.rest() == ""


@given(st.text(st.sampled_from("abc"), max_size=12), short)
def test_no_part_of_a_stop_text_leaves_before_it_is_known(text, stop):
    guard = StopGuard((stop,))
    said = ""
    for letter in text + stop:
        said += guard.passed(letter)
    assert guard.is_stopped
    assert stop not in said
    assert (text + stop).startswith(said + stop)
