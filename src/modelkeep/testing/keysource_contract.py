"""What every KeySource promises, as a suite: inherit, and give the two fixtures it names."""

from __future__ import annotations

from typing import Protocol

import pytest

from modelkeep.core.errors import IntegrityError, RefusedError
from modelkeep.crypto.secret import Secret
from modelkeep.ports.keysource import KeySource

RAW = bytes(range(32))
KEY = Secret(RAW)


class KeySources(Protocol):
    """Gives sources: `sources()` the same one again, `sources(other=True)` one that is not it."""

    def __call__(self, *, other: bool = False) -> KeySource:
        """Open a key source."""
        ...


class KeySourceContract:
    """The promises of `modelkeep.ports.keysource.KeySource`."""

    def test_what_was_wrapped_is_unwrapped_by_another_process(self, sources: KeySources) -> None:
        wrapped = sources().wrap(KEY)
        assert sources().unwrap(wrapped) == KEY

    def test_the_wrapped_bytes_do_not_show_the_key(self, sources: KeySources) -> None:
        wrapped = sources().wrap(KEY)
        assert RAW not in wrapped
        assert RAW.hex().encode() not in wrapped

    def test_wrapping_twice_gives_different_bytes(self, sources: KeySources) -> None:
        source = sources()
        assert source.wrap(KEY) != source.wrap(KEY)

    def test_another_source_is_refused(self, sources: KeySources) -> None:
        with pytest.raises(RefusedError) as refusal:
            sources(other=True).unwrap(sources().wrap(KEY))
        assert refusal.value.code.startswith("keys.")

    def test_no_flipped_bit_ever_gives_a_key(self, sources: KeySources) -> None:
        source = sources()
        wrapped = source.wrap(KEY)
        for at in range(len(wrapped) * 8):
            changed = bytearray(wrapped)
            changed[at // 8] ^= 1 << (at % 8)
            with pytest.raises((IntegrityError, RefusedError)):
                source.unwrap(bytes(changed))

    def test_no_truncation_ever_gives_a_key(self, sources: KeySources) -> None:
        source = sources()
        wrapped = source.wrap(KEY)
        for length in range(len(wrapped)):
            with pytest.raises((IntegrityError, RefusedError)):
                source.unwrap(wrapped[:length])

    def test_what_is_no_wrapped_key_is_an_integrity_error(self, sources: KeySources) -> None:
        for rubbish in (b"", b"{", b"[]", b"\xff" * 100, b'{"kdf":1}'):
            with pytest.raises(IntegrityError):
                sources().unwrap(rubbish)

    def test_it_says_its_kind(self, sources: KeySources) -> None:
        assert sources().kind.isidentifier()
