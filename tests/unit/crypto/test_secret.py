"""A Secret reaches no log, error, JSON document or pickle by accident."""

import copy
import json
import pickle

import pytest

from modelkeep.core.record import to_json, to_msgpack
from modelkeep.crypto.secret import Secret

RAW = b"the canary in the mine"
SECRET = Secret(RAW)


@pytest.mark.parametrize("show", [str, repr, "{}".format, "{!r}".format, "%s".__mod__, ascii])
def test_it_never_prints(show):
    assert (
        show(SECRET) == ascii("Secret(…)")[1:-1] if show is ascii else show(SECRET) == "Secret(…)"
    )
    assert "canary" not in show([SECRET])
    assert "canary" not in str(ValueError(SECRET))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_never_pickled_nor_copied_by_way_of_it(protocol):
    with pytest.raises(TypeError):
        pickle.dumps(SECRET, protocol)
    with pytest.raises(TypeError):
        pickle.dumps({"inside": [SECRET]}, protocol)
    with pytest.raises(TypeError):
        copy.deepcopy(SECRET)


@pytest.mark.parametrize("encode", [json.dumps, to_json, to_msgpack])
def test_it_is_never_encoded(encode):
    for value in (SECRET, [SECRET], {"key": SECRET}):
        with pytest.raises(TypeError):
            encode(value)


def test_it_has_no_dictionary_no_hash_and_no_bytes():
    assert not hasattr(SECRET, "__dict__")
    for use in (hash, bytes, iter, memoryview):
        with pytest.raises(TypeError):
            use(SECRET)


def test_equal_secrets_are_equal_and_to_nothing_else():
    assert Secret(RAW) == SECRET
    assert Secret(RAW + b"!") != SECRET
    assert Secret(b"") != SECRET
    assert SECRET != RAW
    assert len(SECRET) == len(RAW)


def test_reveal_is_the_one_exit():
    assert SECRET.reveal() == RAW
