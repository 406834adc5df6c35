"""A text mark from its registration to a claim that a stranger checks."""

import time

import numpy as np
import pytest
from marked_texts import Words, marked_text, plain_text
from scenes import Scene

from modelkeep.core.errors import IntegrityError, RefusedError, UsageError
from modelkeep.kernels.text_mark import TextParameters, text_key
from modelkeep.sdk.text_marks import new_text, reader, text_mark
from modelkeep.sdk.watermarks import Watermarks, checked
from modelkeep.seal.marks import TRIES_LOG2_MIN


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)


@pytest.fixture
def keep(scene):
    with scene.create() as keep:
        yield keep


def said_with(keep, mark: str, tokens: int = 300) -> str:
    """What a model says on a server that applies the mark."""
    from modelkeep.flows.watermark import seed_of  # noqa: PLC0415

    key = text_key(seed_of(keep.opened, mark).reveal(), TextParameters())
    return Words().decode(marked_text(np.random.default_rng(1), key, tokens))


def test_a_registered_mark_is_claimed_and_a_stranger_finds_it_again(scene, tmp_path):
    with scene.create() as keep:
        new_text(Watermarks(keep), "answers-1", Words(), model="chat")
        text = said_with(keep, "answers-1")
        assert text_mark(keep, "answers-1", Words()).verify(text).p_value < 1e-12
    with scene.open() as keep:
        read = reader(Words(), text)
        found = Watermarks(keep).judge("answers-1", read, claim=tmp_path / "claim.json")
        assert found.is_found
        assert "made with our seed" in " ".join(found.assumptions)
        key = keep.ledger.verifier_key()
    claim = scene.disk.read(tmp_path / "claim.json")
    done = checked(claim, read, keys=[key])
    assert done.judgement.is_found
    assert not done.is_beyond_trial
    with pytest.raises(IntegrityError, match="another suspect"):
        checked(claim, reader(Words(), text + " 7"), keys=[key])


def test_what_people_wrote_is_not_claimed(keep, tmp_path):
    new_text(Watermarks(keep), "answers-1", Words())
    text = Words().decode(plain_text(np.random.default_rng(2), 300))
    with pytest.raises(RefusedError, match="not found"):
        Watermarks(keep).judge("answers-1", reader(Words(), text), claim=tmp_path / "claim.json")


def test_texts_that_the_claimant_picked_are_never_beyond_trial(scene, tmp_path):
    """The key is registered, then others write; who has the key claims what reads best of it."""
    with scene.create() as keep:
        new_text(Watermarks(keep), "liar", Words())
        key = keep.ledger.verifier_key()
    published_ns = time.time_ns()
    texts = [Words().decode(plain_text(np.random.default_rng(n), 100)) for n in range(400)]
    with scene.open() as keep:
        mark = text_mark(keep, "liar", Words())
        best = sorted(texts, key=lambda each: mark.verify(each).p_value)[:40]
        Watermarks(keep).judge("liar", reader(Words(), best), claim=tmp_path / "claim.json")
    claim = scene.disk.read(tmp_path / "claim.json")
    done = checked(claim, reader(Words(), best), keys=[key], before_ns=published_ns)
    assert done.judgement.is_found
    assert done.judgement.tries_log2 > TRIES_LOG2_MIN
    assert not done.is_beyond_trial
    assert "can pick innocent texts" in " ".join(done.judgement.assumptions)
    with scene.open() as keep:  # all that were written, by whomever they were chosen
        assert not Watermarks(keep).judge("liar", reader(Words(), texts)).is_found


def test_a_mark_without_a_tokenizer_is_not_read(keep):
    Watermarks(keep).new("bare", "text", '{"depth":20,"tokenizer":""}')
    with pytest.raises(UsageError) as caught:
        Watermarks(keep).judge("bare", reader(Words(), "1 2 3 4 5 6"))
    assert caught.value.code == "mark.tokenizer"


def test_a_mark_of_another_kind_or_tokenizer_is_not_read_in_texts(keep):
    marks = Watermarks(keep)
    new_text(marks, "answers-1", Words())
    marks.new("weights-1", "weights", "{}")
    with pytest.raises(UsageError) as caught:
        marks.judge("weights-1", reader(Words(), "1 2 3 4 5 6"))
    assert caught.value.code == "mark.method"
    with pytest.raises(UsageError) as caught:
        marks.judge("answers-1", reader(Words(9), "1 2 3 4 5 6"))
    assert caught.value.code == "mark.tokenizer"
