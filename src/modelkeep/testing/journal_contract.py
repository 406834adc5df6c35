"""What every Journal promises, as a suite: inherit, and give a fixture named `opened`."""

from __future__ import annotations

from typing import Protocol

import pytest

from modelkeep.core.errors import MissingError
from modelkeep.ports.journal import Journal


class Opened(Protocol):
    """Opens the same journal, again and again."""

    def __call__(self, *, writable: bool) -> Journal:
        """Open it as its writer or as a reader."""
        ...


def frames_from(journal: Journal, start: int = 0) -> list[tuple[int, bytes]]:
    """Everything that a journal gives from a position on."""
    return list(journal.read(start))


class JournalContract:
    """The promises of `modelkeep.ports.journal.Journal`.

    The fixture's segments must be small (at most 1,000 bytes), so that there are several.
    """

    def test_a_new_journal_is_empty(self, opened: Opened) -> None:
        journal = opened(writable=True)
        assert journal.next_position() == 0
        assert frames_from(journal) == []

    def test_positions_count_frames_without_gaps(self, opened: Opened) -> None:
        journal = opened(writable=True)
        assert journal.append([b"a", b"b"]) == 0
        assert journal.append([b"c"]) == 2
        assert journal.next_position() == 3
        assert frames_from(journal) == [(0, b"a"), (1, b"b"), (2, b"c")]

    def test_nothing_appended_changes_nothing(self, opened: Opened) -> None:
        journal = opened(writable=True)
        journal.append([b"a"])
        assert journal.append([]) == 1
        assert journal.next_position() == 1

    def test_frames_may_be_empty_and_hold_any_byte(self, opened: Opened) -> None:
        journal = opened(writable=True)
        frames = [b"", bytes(range(256)), b"\xff" * 40, b""]
        journal.append(frames)
        assert [frame for _, frame in frames_from(journal)] == frames

    def test_reading_starts_anywhere(self, opened: Opened) -> None:
        journal = opened(writable=True)
        for number in range(100):
            journal.append([b"%d" % number * 7])
        for start in (0, 1, 50, 99):
            assert [at for at, _ in frames_from(journal, start)] == list(range(start, 100))
        assert frames_from(journal, 100) == []

    def test_what_was_appended_is_there_after_opening_again(self, opened: Opened) -> None:
        first = opened(writable=True)
        for number in range(50):
            first.append([b"%d" % number * 9])
        before = frames_from(first)
        first.close()
        again = opened(writable=True)
        assert again.next_position() == 50
        assert frames_from(again) == before
        assert again.append([b"more"]) == 50

    def test_a_reader_follows_the_writer(self, opened: Opened) -> None:
        writer = opened(writable=True)
        writer.append([b"a"])
        reader = opened(writable=False)
        assert frames_from(reader) == [(0, b"a")]
        for number in range(60):
            writer.append([b"%d" % number * 9, b"x"])
            assert reader.next_position() == writer.next_position()
        assert frames_from(reader, 1) == frames_from(writer, 1)

    def test_a_reader_of_nothing_finds_nothing(self, opened: Opened) -> None:
        reader = opened(writable=False)
        assert reader.next_position() == 0
        assert frames_from(reader) == []

    def test_dropping_never_touches_what_must_stay(self, opened: Opened) -> None:
        journal = opened(writable=True)
        for number in range(100):
            journal.append([b"%02d" % number * 20])
        for position in (0, 1, 30, 77, 100):
            journal.drop_before(position)
            kept = [at for at, _ in frames_from(journal, position)]
            assert kept == list(range(position, 100))
        assert journal.append([b"next"]) == 100

    def test_what_was_dropped_has_expired(self, opened: Opened) -> None:
        journal = opened(writable=True)
        for number in range(100):
            journal.append([b"%02d" % number * 20])
        journal.drop_before(90)
        with pytest.raises(MissingError) as expired:
            frames_from(journal, 0)
        assert expired.value.code == "journal.expired"
        reader = opened(writable=False)
        with pytest.raises(MissingError):
            frames_from(reader, 0)

    def test_positions_go_on_after_everything_was_dropped(self, opened: Opened) -> None:
        journal = opened(writable=True)
        for number in range(40):
            journal.append([b"%02d" % number * 20])
        journal.drop_before(40)
        journal.close()
        again = opened(writable=True)
        assert again.next_position() == 40
        assert again.append([b"more"]) == 40

    def test_closing_twice_is_closing(self, opened: Opened) -> None:
        journal = opened(writable=True)
        journal.append([b"a"])
        journal.close()
        journal.close()
