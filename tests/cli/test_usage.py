"""What is wrong with a command line is said like every other error, to people and to programs."""

import pytest
from command import modelkeep


@pytest.mark.parametrize(
    "words",
    [
        ("--json",),
        ("--json", "tokens"),
        ("tokens", "new", "--json"),
        ("tokens", "new", "alice", "--days", "soon", "--json"),
        ("scan", "--json", "--no-such-option", "x"),
        ("no-such-verb", "--json"),
        ("export", "digits", "-o", "-", "--json"),
        ("restore", "digits", "--to", "-", "--json"),
    ],
)
def test_programs_get_one_object(words):
    said = modelkeep(*words, wanted=2)
    assert not said.out
    facts = said.error
    assert facts.keys() == {"code", "message", "hint", "exit_status", "context"}
    assert (facts["code"], facts["exit_status"], facts["context"]) == ("usage.arguments", 2, {})
    assert facts["hint"].startswith("usage: modelkeep")


def test_a_slip_of_the_hand_is_answered_with_what_may_be_meant():
    assert "did you mean admit?" in modelkeep("admti", "x", wanted=2).err
    assert "did you mean list" in modelkeep("keys", "lits", wanted=2).err
    said = modelkeep("scan", "x", "--no-such-option", wanted=2).err
    assert "unrecognized arguments: --no-such-option" in said
    assert "hint: usage: modelkeep scan" in said


def test_people_get_a_line_and_the_usage_and_nothing_that_a_terminal_obeys():
    said = modelkeep("scan", "x", "--no\x1b[2J", wanted=2)
    assert said.err.startswith("modelkeep: error: ")
    assert "modelkeep: hint: usage: modelkeep" in said.err
    assert "\x1b" not in said.err


def test_a_receipt_with_a_position_beyond_all_numbers_is_refused(desk):
    for digits in ("9" * 19, "9" * 5000):
        receipt = f"gateway-0-0:{digits}"
        assert desk.refusal("ledger", "prove", receipt, wanted=2) == "receipt.form"
