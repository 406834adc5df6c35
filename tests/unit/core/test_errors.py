"""The class says what to do: exit status, HTTP status, retry; the code may say it more finely."""

import json

import pytest

from modelkeep.core.errors import (
    HTTP_BY_CODE,
    ConfigError,
    IntegrityError,
    KeepError,
    LimitError,
    MissingError,
    RefusedError,
    UnavailableError,
    UsageError,
)

# The table of the style page, section 6.
TABLE = [
    (UsageError, 2, 400, False),
    (ConfigError, 2, 400, False),
    (RefusedError, 3, 403, False),
    (LimitError, 3, 429, False),
    (IntegrityError, 4, 502, False),
    (MissingError, 5, 404, False),
    (UnavailableError, 6, 503, True),
]


@pytest.mark.parametrize(("kind", "status", "http", "retryable"), TABLE)
def test_a_class_has_its_statuses(kind, status, http, retryable):
    error = kind("some.code", "something happened")
    assert (error.exit_status, error.http_status, error.retryable) == (status, http, retryable)
    assert isinstance(error, KeepError)


def test_there_are_no_other_classes():
    def below(kind):
        return {kind}.union(*(below(each) for each in kind.__subclasses__()))

    # SQLAlchemy wraps what a cell raises unless its class says otherwise: one private class does.
    ours = {
        each
        for each in below(KeepError)
        if each.__module__.startswith("modelkeep.") and not each.__name__.startswith("_")
    }
    assert ours == {KeepError, *(row[0] for row in TABLE)}


@pytest.mark.parametrize(("code", "http"), sorted(HTTP_BY_CODE.items()))
def test_a_code_and_what_stands_below_it_carry_a_finer_status(code, http):
    assert UsageError(code, "").http_status == http
    deeper = f"{code}.deeper"
    assert UsageError(deeper, "").http_status == HTTP_BY_CODE.get(deeper, http)


def test_a_prefix_counts_in_whole_words_only():
    assert UsageError("authors.unknown", "").http_status == 400
    assert RefusedError("auth.forbidden", "").http_status == 403
    assert RefusedError("auth.forbidden.model", "").http_status == 403
    assert RefusedError("auth.invalid", "").http_status == 401


def test_an_error_is_one_flat_printable_object():
    error = IntegrityError("vault.digest", "it is damaged", hint="run check", at=7, raw=b"\xff")
    facts = json.loads(json.dumps(error.as_facts()))
    assert facts == {
        "code": "vault.digest",
        "message": "it is damaged",
        "hint": "run check",
        "exit_status": 4,
        "context": {"at": "7", "raw": "b'\\xff'"},
    }
    assert str(error) == "it is damaged [vault.digest]"
