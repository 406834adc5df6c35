"""`modelkeep principals password`: read, never shown, kept as what nobody can test a guess on."""

import io
import sys

import pytest

PASSWORD = "correct horse battery staple"  # noqa: S105 - a test's


class Typed(io.TextIOWrapper):
    """Standard input that is no terminal."""

    def isatty(self):
        return False


@pytest.fixture
def typed(monkeypatch):
    def type_in(text):
        monkeypatch.setattr(sys, "stdin", Typed(io.BytesIO(text.encode())))

    return type_in


def test_a_password_is_set_changed_and_taken_away(desk, typed):
    desk.run("principals", "new", "robot", "--role", "caller")
    typed(PASSWORD + "\n")
    assert desk.json("principals", "password", "robot") == {"name": "robot", "has_password": True}
    typed(PASSWORD)
    assert "has a new password" in desk.run("principals", "password", "robot").out
    first, second = desk.entries("account.password")
    for name in ("salt", "verifier", "password_id"):
        assert first["facts"][name] != second["facts"][name]
    assert "removed" in desk.run("principals", "password", "robot", "--remove").out
    assert "no password" in desk.run("principals", "password", "robot", "--remove").out
    kinds = [kind for kind in desk.kinds() if kind.startswith("account.")]
    assert kinds == ["account.password", "account.password", "account.removed"]
    assert not any(PASSWORD.encode() in raw for raw in desk.files().values())


def test_who_is_not_registered_gets_no_password(desk, typed):
    typed(PASSWORD)
    assert desk.refusal("principals", "password", "eve", wanted=5) == "principal.unknown"


def test_a_password_is_neither_short_nor_endless(desk, typed):
    desk.run("principals", "new", "robot", "--role", "caller")
    for text in ("", "short", "x" * 1025):
        typed(text)
        out = desk.run("principals", "password", "robot", "--json", wanted=2)
        assert out.error["code"] == "account.password"
    assert not desk.entries("account.password")
