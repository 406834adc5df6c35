"""The pieces of a mount: read once, kept within a bound, never wrong after an error."""

import threading

import pytest

from modelkeep.adapters.mount_fuse import _Handle, _Pieces
from modelkeep.core.errors import IntegrityError
from modelkeep.ports.file_tree import Piece


class Letters:
    """A file of pieces of ten equal letters; counts what is read."""

    def __init__(self, text, *, bad=()):
        self.text, self.bad = text, set(bad)
        self.size_bytes = 10 * len(text)
        self.read_numbers = []
        self.may_go = threading.Event()
        self.may_go.set()

    def piece_at(self, offset):
        number = offset // 10
        if not 0 <= offset < self.size_bytes:
            return None
        return Piece(number, self.text[number].encode(), 10 * number, 10)

    def read(self, piece):
        self.may_go.wait(5)
        self.read_numbers.append(piece.number)
        if piece.number in self.bad:
            raise IntegrityError("vault.chunk", "damaged")
        return bytearray(10 * self.text[piece.number].encode())


@pytest.fixture
def pieces():
    made = _Pieces(60)
    yield made
    made.close()


def test_a_read_gives_the_bytes_wherever_it_begins(pieces):
    file = Letters("abcdefgh")
    whole = b"".join(10 * each.encode() for each in file.text)
    for start in range(0, 85, 7):
        for length in (0, 1, 13, 200):
            assert _Handle(file).read(pieces, start, length) == whole[start : start + length]


def test_what_was_read_is_not_read_again_and_equal_pieces_are_one(pieces):
    file = Letters("aba")
    for number in (0, 2, 0, 1):
        pieces.get(file, file.piece_at(10 * number))
    assert file.read_numbers == [0, 1]


def test_no_more_is_kept_than_was_allowed(pieces):
    file = Letters("abcdefghij")
    for number in range(10):
        pieces.get(file, file.piece_at(10 * number))
    assert pieces._size_bytes <= 60
    assert sum(len(each.result()) for each in pieces._held.values()) == pieces._size_bytes
    pieces.get(file, file.piece_at(0))
    assert file.read_numbers[-1] == 0


def test_several_threads_that_want_one_piece_read_it_once(pieces):
    file = Letters("a")
    file.may_go.clear()
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(pieces.get(file, file.piece_at(0))))
        for _ in range(4)
    ]
    for each in threads:
        each.start()
    file.may_go.set()
    for each in threads:
        each.join()
    assert file.read_numbers == [0]
    assert [bytes(each) for each in found] == [b"a" * 10] * 4


def test_what_failed_is_tried_again(pieces):
    file = Letters("a", bad=[0])
    with pytest.raises(IntegrityError):
        pieces.get(file, file.piece_at(0))
    file.bad.clear()
    assert bytes(pieces.get(file, file.piece_at(0))) == b"a" * 10
    assert pieces._size_bytes == 10


def test_who_reads_in_order_finds_the_next_piece_read(pieces):
    file = Letters("abc")
    handle = _Handle(file)
    handle.read(pieces, 0, 5)
    for _ in range(500):
        if 1 in file.read_numbers:
            break
        threading.Event().wait(0.01)
    assert file.read_numbers == [0, 1]
    _Handle(Letters("xyz")).read(pieces, 20, 5)
    assert len(pieces._held) == 3
