"""What the keyholder does with what comes: garbage ends it, and it signs one growing log only."""

import base64
import contextlib
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.adapters.checkpoint_signer import ASK_PUBLIC, SIGN_ALIVE, SIGN_CHECKPOINT
from modelkeep.adapters.keyholder_process import Hello, Reply, Request, received, send
from modelkeep.core.record import to_msgpack
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.keyring import LockedRing, RingBody, Wrap
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer, verify, verify_bare
from modelkeep.ledger.checkpoint import parsed_tree_head
from modelkeep.ports.keyholder import Holders, RootRecipient
from modelkeep.workers.keyholder import EXIT_PROTOCOL, CheckpointKey, _conversation

pytestmark = pytest.mark.verify("keys")

SIGNER = Signer(Secret(b"s" * 32))
HELLO = Hello(
    source="passphrase",
    passphrase=b"p",
    words=(),
    identity=None,
    argon2=Argon2Settings(memory_kib=8, passes=1, lanes=1),
)
BODY = RingBody(identity=b"i" * 32, domains=(), ca_key=b"", ca_pem=b"")


def framed(raw):
    return len(raw).to_bytes(4, "big") + raw


def ended(sent):
    """How a conversation ends in which exactly these bytes come; and what was answered."""
    own, its = socket.socketpair()
    with own, its:
        own.setblocking(False)  # noqa: FBT003 - the library's own signature
        own.sendall(sent)
        own.shutdown(socket.SHUT_WR)
        own.settimeout(5)
        status = _conversation(its, None)
        its.close()
        replies = []
        with contextlib.suppress(ConnectionResetError):  # it ended before it had read everything
            while (reply := received(own, Reply)) is not None:
                replies.append(reply)
    return status, replies


# ---- garbage -------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_no_bytes_make_it_do_anything_but_end(raw):
    for sent in (raw, framed(raw), framed(to_msgpack(HELLO)) + raw):
        assert ended(sent)[0] in (0, EXIT_PROTOCOL)


@given(st.binary(max_size=60))
def test_a_message_that_is_no_request_ends_it(raw):
    status, replies = ended(framed(to_msgpack(HELLO)) + framed(raw))
    assert (status, replies) == (EXIT_PROTOCOL, [])


texts = st.text(max_size=20)
blobs = st.binary(max_size=60)
wraps = st.lists(
    st.builds(Wrap, kind=st.sampled_from(["source", "shares", "escrow", ""]),
              holder=st.sampled_from(["passphrase", "mkr1", ""]), wrapped=blobs),
    max_size=3,
).map(tuple)  # fmt: skip
rings = st.lists(
    st.builds(LockedRing, keep_id=texts, number=st.integers(-(2**63), 2**63 - 1), wraps=wraps,
              sealed=blobs),
    max_size=4,
).map(tuple)  # fmt: skip
recipients = st.lists(st.builds(RootRecipient, kind=texts, text=texts), max_size=2).map(tuple)
holders = st.builds(Holders, source=texts, passphrase=blobs, recipients=recipients)
requests = st.builds(
    Request,
    call=st.sampled_from(["unlock", "lock", "split", "close", "__init__", ""]),
    rings=rings,
    body=st.none() | st.just(BODY),
    keep_id=texts,
    number=st.integers(-(2**63), 2**63 - 1),
    holders=st.none() | holders,
    threshold=st.integers(-5, 20),
    total=st.integers(-5, 20),
)


@given(st.lists(requests, max_size=3))
def test_every_request_is_answered_or_refused_whatever_is_in_it(sent):
    status, replies = ended(b"".join(framed(to_msgpack(each)) for each in (HELLO, *sent)))
    assert status == 0
    assert len(replies) == len(sent)
    for each, reply in zip(sent, replies, strict=True):
        assert reply.body is None, "nothing of this opens"
        if each.call in ("close", "__init__", ""):
            assert reply.error["code"] == "keyholder.call"


def test_a_length_that_is_too_large_is_not_waited_for():
    assert ended(b"\x02\x00\x00\x01")[0] == EXIT_PROTOCOL


def test_a_parent_that_went_away_before_its_answer_is_no_error(capfd):
    own, its = socket.socketpair()
    with its:
        send(own, HELLO)
        send(own, Request(call="split", threshold=2, total=2))
        own.close()
        assert _conversation(its, None) == 0
    assert capfd.readouterr().err == ""


# ---- checkpoints ---------------------------------------------------------------------------------


def head(size, root=b"r" * 32, origin="log.example/1"):
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n".encode()


def test_it_signs_what_goes_on_and_the_same_again():
    key = CheckpointKey(SIGNER)
    for size, root in ((0, b"0" * 32), (3, b"3" * 32), (3, b"3" * 32), (900, b"9" * 32)):
        text = head(size, root)
        verify_bare(key.answer(SIGN_CHECKPOINT, text), text, public=SIGNER.public)


@pytest.mark.parametrize(
    "text",
    [
        head(2),
        head(3, b"x" * 32),
        head(3, origin="log.example/2"),
        head(4, origin="log.example/2"),
        head(-1),
        head(4).rstrip(b"\n"),
        head(4)[:-9] + b"\n",
        b"",
        b"\n\n\n",
        b"\xff" * 100,
        head(4).replace(b"\n4\n", b"\n04\n"),
        head(4).replace(b"\n", b"\r\n"),
    ],
)
def test_it_signs_nothing_smaller_nothing_forked_of_no_other_log_and_no_nonsense(text):
    key = CheckpointKey(SIGNER)
    assert key.answer(SIGN_CHECKPOINT, head(3))
    assert key.answer(SIGN_CHECKPOINT, text) == b""
    assert key.answer(SIGN_CHECKPOINT, head(5)), "a refusal changes nothing"


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["a", "b"]), st.sampled_from(["x.y", "z.y"])),
        max_size=12,
    )
)
def test_whatever_is_asked_what_was_signed_is_one_growing_log(asked):
    key, signed = CheckpointKey(SIGNER), []
    for size, root, origin in asked:
        text = head(size, root.encode() * 32, origin)
        if key.answer(SIGN_CHECKPOINT, text):
            signed.append(parsed_tree_head(text))
    assert len({origin for origin, _, _ in signed}) <= 1
    sizes = [size for _, size, _ in signed]
    assert sizes == sorted(sizes)
    assert len({(size, root) for _, size, root in signed}) == len(set(sizes))


@given(st.binary(max_size=120))
def test_noise_is_never_signed_as_a_checkpoint(noise):
    key = CheckpointKey(SIGNER)
    assert key.answer(SIGN_CHECKPOINT, noise) == b""
    for letter in (b"", b"x", b"P", b"C"):
        assert key.answer(letter, head(1)) == b""


def test_a_statement_that_a_store_is_up_to_date_cannot_be_taken_for_a_checkpoint():
    key = CheckpointKey(SIGNER)
    assert key.answer(ASK_PUBLIC, b"") == SIGNER.public
    signature = key.answer(SIGN_ALIVE, head(7))
    verify(signature, head(7), context="series/alive", public=SIGNER.public)
    with pytest.raises(Exception, match="signature"):
        verify_bare(signature, head(7), public=SIGNER.public)
    assert key.size == 0
