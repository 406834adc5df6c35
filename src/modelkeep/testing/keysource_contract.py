"""What every KeySource promises, as a suite: inherit, and give the fixtures it names.

`sources` is needed. `unavailable` gives a source whose world is down; sources that have no world
(a passphrase) leave it out. A source over a network may try fewer damages with `step`.
"""

from __future__ import annotations

import base64
from typing import ClassVar, Protocol

import pytest

from modelkeep.core.errors import IntegrityError, KeepError, RefusedError, UnavailableError
from modelkeep.core.record import as_plain, parsed_json, to_json
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.wrapped_key import WRAPPED_BYTES_MAX
from modelkeep.ports.keysource import KeySource

RAW = bytes(range(32))
KEY = Secret(RAW)
SHOWN = (RAW, RAW.hex().encode(), base64.b64encode(RAW)[:40], repr(RAW).encode()[2:60])


class KeySources(Protocol):
    """Gives sources: `sources()` the same one again, `sources(other=True)` one that is not it."""

    def __call__(self, *, other: bool = False) -> KeySource:
        """Open a key source."""
        ...


def everything_said(error: BaseException) -> bytes:
    """All that an error could print, with what is behind it."""
    seen: list[str] = []
    at: BaseException | None = error
    while at is not None:
        seen += [str(at), repr(at)]
        if isinstance(at, KeepError):
            seen.append(str(at.as_facts()))
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return "\n".join(seen).encode(errors="backslashreplace")


class KeySourceContract:
    """The promises of `modelkeep.ports.keysource.KeySource`."""

    step: ClassVar[int] = 1
    """Every how many bits one is flipped, and bytes one cut; 7 still meets each place in a byte."""

    @pytest.fixture
    def unavailable(self) -> KeySource | None:
        """A source whose world is down; None where there is no world."""
        return None

    def test_what_was_wrapped_is_unwrapped_by_another_process(self, sources: KeySources) -> None:
        wrapped = sources().wrap(KEY)
        assert sources().unwrap(wrapped) == KEY

    def test_the_wrapped_bytes_do_not_show_the_key(self, sources: KeySources) -> None:
        wrapped = sources().wrap(KEY)
        assert not any(shown in wrapped for shown in SHOWN)

    def test_the_wrapped_bytes_are_within_their_bound(self, sources: KeySources) -> None:
        assert len(sources().wrap(KEY)) <= WRAPPED_BYTES_MAX

    def test_wrapping_twice_gives_different_bytes(self, sources: KeySources) -> None:
        source = sources()
        assert source.wrap(KEY) != source.wrap(KEY)

    def test_another_source_is_refused(self, sources: KeySources) -> None:
        with pytest.raises(RefusedError) as refusal:
            sources(other=True).unwrap(sources().wrap(KEY))
        assert refusal.value.code.startswith("keys.")
        assert not any(shown in everything_said(refusal.value) for shown in SHOWN)

    def test_no_flipped_bit_ever_gives_a_key(self, sources: KeySources) -> None:
        source = sources()
        wrapped = source.wrap(KEY)
        for at in range(0, len(wrapped) * 8, self.step):
            changed = bytearray(wrapped)
            changed[at // 8] ^= 1 << (at % 8)
            with pytest.raises((IntegrityError, RefusedError)) as refusal:
                source.unwrap(bytes(changed))
            assert not any(shown in everything_said(refusal.value) for shown in SHOWN)

    def test_no_truncation_ever_gives_a_key(self, sources: KeySources) -> None:
        source = sources()
        wrapped = source.wrap(KEY)
        for length in range(0, len(wrapped), self.step):
            with pytest.raises((IntegrityError, RefusedError)):
                source.unwrap(wrapped[:length])

    def test_no_field_cut_short_ever_gives_a_key(self, sources: KeySources) -> None:
        """As a store's owner would do it: the form stays right, the content is cut."""
        source = sources()
        fields = dict(parsed_json(source.wrap(KEY), what="the wrapped key"))
        raw = base64.b64decode(fields["box"])
        for length in range(0, len(raw), self.step):
            cut = as_plain(fields) | {"box": base64.b64encode(raw[:length]).decode()}
            with pytest.raises((IntegrityError, RefusedError)):
                source.unwrap(to_json(cut))

    def test_what_is_no_wrapped_key_is_an_integrity_error(self, sources: KeySources) -> None:
        for rubbish in (b"", b"{", b"[]", b"\xff" * 100, b'{"kdf":1}', b'{"kind":"x","box":""}'):
            with pytest.raises(IntegrityError):
                sources().unwrap(rubbish)

    def test_more_bytes_than_a_wrapped_key_has_are_not_even_read(self, sources: KeySources) -> None:
        source = sources()
        for many in (b" " * (WRAPPED_BYTES_MAX + 1), source.wrap(KEY) + b" " * WRAPPED_BYTES_MAX):
            with pytest.raises(IntegrityError) as refusal:
                source.unwrap(many)
            assert refusal.value.code == "keysource.size"

    def test_a_world_that_is_down_may_be_tried_again(
        self, sources: KeySources, unavailable: KeySource | None
    ) -> None:
        if unavailable is None:
            pytest.skip("this source has no world that could be down")
        for attempt in (
            lambda: unavailable.wrap(KEY),
            lambda: unavailable.unwrap(sources().wrap(KEY)),
        ):
            with pytest.raises(UnavailableError) as failure:
                attempt()
            assert failure.value.code == "keysource.unavailable"
            assert failure.value.retryable
            assert not any(shown in everything_said(failure.value) for shown in SHOWN)

    def test_it_says_its_kind(self, sources: KeySources) -> None:
        assert sources().kind.isidentifier()
