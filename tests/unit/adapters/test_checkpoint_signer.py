"""The recorder's end: it takes its own answers only, and says when nobody answers."""

import os
import socket
import threading

import pytest

from modelkeep.adapters import checkpoint_signer
from modelkeep.adapters.checkpoint_signer import NUMBER_BYTES, RemoteSigner, signing_pair
from modelkeep.core.errors import RefusedError, UnavailableError

PUBLIC = b"p" * 32
SIGNATURE = b"s" * 64


class Answerer:
    """The keyholder's end, answering as it is told: `answer(number, letter, message)`."""

    def __init__(self, answer):
        self.fd, its = signing_pair()
        self.socket = socket.socket(fileno=its)
        self.asked = []
        self.answer = answer
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self):
        while packet := self.socket.recv(4096):
            number, letter, message = packet[:8], packet[8:9], packet[9:]
            self.asked.append((letter, message))
            for reply in self.answer(number, letter, message):
                self.socket.send(reply)

    def close(self):
        os.close(self.fd)
        self.thread.join()
        self.socket.close()


@pytest.fixture
def answering():
    made = []

    def make(answer):
        made.append(Answerer(answer))
        return made[-1]

    yield make
    for each in made:
        each.close()


def honest(number, letter, _):
    return [number + (PUBLIC if letter == b"p" else SIGNATURE)]


def test_it_asks_for_the_public_key_and_for_signatures(answering):
    end = answering(honest)
    signer = RemoteSigner(end.fd)
    assert signer.public == PUBLIC
    assert signer.sign_bare(b"a checkpoint") == SIGNATURE
    assert signer.sign(b"alive", context="series/alive") == SIGNATURE
    assert end.asked == [(b"p", b""), (b"c", b"a checkpoint"), (b"a", b"alive")]


def test_replies_that_a_predecessor_still_had_coming_are_not_taken(answering):
    """A recorder that was killed between question and answer leaves the answer in the socket."""

    def answer(number, letter, message):
        stale = (int.from_bytes(number, "big") ^ 1).to_bytes(NUMBER_BYTES, "big")
        return [stale + b"x" * 64, b"short", stale, *honest(number, letter, message)]

    signer = RemoteSigner(answering(answer).fd)
    assert signer.public == PUBLIC
    assert [signer.sign_bare(b"n") for _ in range(3)] == [SIGNATURE] * 3


def test_a_successor_on_the_same_socket_reads_past_what_is_left(answering):
    end = answering(honest)
    with socket.socket(fileno=os.dup(end.fd)) as died:
        died.send(b"\0" * NUMBER_BYTES + b"c" + b"a checkpoint that nobody waits for")
    assert RemoteSigner(end.fd).sign_bare(b"mine") == SIGNATURE


@pytest.mark.parametrize("signature", [b"", b"s" * 63, b"s" * 65])
def test_an_empty_or_odd_answer_is_a_refusal(answering, signature):
    signer = RemoteSigner(
        answering(lambda number, letter, _: [number + (PUBLIC if letter == b"p" else signature)]).fd
    )
    with pytest.raises(RefusedError) as refused:
        signer.sign_bare(b"a checkpoint")
    assert refused.value.code == "keyholder.refused"


def test_no_context_but_the_one_is_signed_under(answering):
    end = answering(honest)
    signer = RemoteSigner(end.fd)
    with pytest.raises(RefusedError):
        signer.sign(b"a head", context="series/head")
    assert end.asked == [(b"p", b"")], "it is not even asked"


def test_nobody_answering_and_an_end_that_closed_are_said(answering, monkeypatch):
    monkeypatch.setattr(checkpoint_signer, "ANSWER_S_MAX", 0.05)
    with pytest.raises(UnavailableError) as silent:
        RemoteSigner(answering(lambda *_: []).fd)
    ours, its = signing_pair()
    os.close(its)
    with pytest.raises(UnavailableError) as closed:
        RemoteSigner(ours)
    os.close(ours)
    assert (silent.value.code, closed.value.code) == ("keyholder.lost", "keyholder.lost")


def test_threads_get_their_own_answers(answering):
    signer = RemoteSigner(answering(lambda n, x, m: [n + (PUBLIC if x == b"p" else m * 64)]).fd)
    found = {}

    def ask(letter):
        found[letter] = {signer.sign_bare(letter) for _ in range(50)}

    threads = [threading.Thread(target=ask, args=(bytes([65 + n]),)) for n in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == {letter: {letter * 64} for letter in (b"A", b"B", b"C", b"D")}
