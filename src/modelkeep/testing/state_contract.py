"""What every State promises, as a suite: inherit, and give a fixture named `opened`."""

from __future__ import annotations

from typing import Protocol

import pytest

from modelkeep.core.entry import Entry, Fact
from modelkeep.ports.state import Applied, State

A, B, C = "a", "b", "c"  # ids of keys


class Opened(Protocol):
    """Opens the same State, again and again; each time over a connection of its own."""

    def __call__(self) -> State:
        """Open it."""
        ...


def entry(kind: str, **facts: Fact) -> Entry:
    """One ledger entry."""
    return Entry(kind=kind, at_ns=1, actor="test", facts=facts)


def made(token_id: str, *, expires_ns: int = 0) -> Entry:
    """The entry of a new API key."""
    return entry(
        "token.created",
        token_id=token_id,
        secret_sha256="0" * 64,
        principal=f"holder of {token_id}",
        scopes=("infer:*", "metrics"),
        expires_ns=expires_ns,
    )


class StateContract:
    """The promises of `modelkeep.ports.state.State`."""

    def test_a_new_state_has_applied_nothing(self, opened: Opened) -> None:
        state = opened()
        assert state.applied() == Applied(entries=0, head=0, snapshot="")
        assert state.tokens() == ()
        assert state.aliases() == ()

    def test_what_was_applied_is_there_after_opening_again(self, opened: Opened) -> None:
        state = opened()
        state.apply(0, [made("a"), entry("vault.committed", head=1, snapshot="snapshot/x")])
        state.close()
        again = opened()
        assert again.applied() == Applied(entries=2, head=1, snapshot="snapshot/x")
        assert [token.token_id for token in again.tokens()] == ["a"]

    def test_a_token_keeps_every_field(self, opened: Opened) -> None:
        state = opened()
        state.apply(0, [made("a", expires_ns=2**63 - 1)])
        (token,) = state.tokens()
        assert token.principal == "holder of a"
        assert token.tenant == "default"
        assert token.scopes == ("infer:*", "metrics")
        assert token.secret_sha256 == "0" * 64
        assert token.expires_ns == 2**63 - 1
        assert not token.revoked

    def test_tokens_are_ordered_by_id_and_revoked_ones_stay(self, opened: Opened) -> None:
        state = opened()
        state.apply(0, [made("b"), made("a"), made("c"), entry("token.revoked", token_id=B)])
        assert [(each.token_id, each.revoked) for each in state.tokens()] == [
            ("a", False),
            ("b", True),
            ("c", False),
        ]

    def test_an_alias_moves_and_aliases_are_sorted(self, opened: Opened) -> None:
        state = opened()
        for model, alias, version in (("m", "prod", 1), ("m", "next", 2), ("a", "prod", 1)):
            at = state.applied().entries
            state.apply(at, [entry("alias.set", model=model, alias=alias, version=version)])
        state.apply(3, [entry("alias.set", model="m", alias="prod", version=2)])
        assert state.aliases() == (("a", "prod", 1), ("m", "next", 2), ("m", "prod", 2))

    def test_an_entry_that_says_nothing_to_state_still_counts(self, opened: Opened) -> None:
        state = opened()
        state.apply(0, [entry("check.done", objects=3), entry("something.new")])
        assert state.applied() == Applied(entries=2, head=0, snapshot="")

    def test_applying_again_changes_nothing(self, opened: Opened) -> None:
        """A replay after a crash repeats what was applied already, in whole or in part."""
        state = opened()
        story = [
            made("a"),
            entry("alias.set", model="m", alias="prod", version=1),
            entry("token.revoked", token_id=A),
            entry("vault.committed", head=1, snapshot="s"),
        ]
        state.apply(0, story)
        before = (state.applied(), state.tokens(), state.aliases())
        for first in range(len(story)):
            state.apply(first, story[first:])
            state.apply(0, story[: first + 1])
            assert (state.applied(), state.tokens(), state.aliases()) == before

    def test_a_batch_that_begins_before_what_was_applied_continues_it(self, opened: Opened) -> None:
        state = opened()
        state.apply(0, [made("a"), made("b")])
        state.apply(1, [made("b"), made("c")])
        assert state.applied().entries == 3
        assert len(state.tokens()) == 3

    def test_a_gap_is_an_assertion_error_and_changes_nothing(self, opened: Opened) -> None:
        state = opened()
        state.apply(0, [made("a")])
        with pytest.raises(AssertionError):
            state.apply(2, [made("b")])
        assert state.applied().entries == 1
        assert len(state.tokens()) == 1
        state.apply(1, [made("b")])
        assert state.applied().entries == 2

    def test_a_batch_is_applied_whole_or_not_at_all(self, opened: Opened) -> None:
        state = opened()
        with pytest.raises(KeyError):
            state.apply(0, [made("a"), entry("token.created")])
        assert state.applied().entries == 0
        assert state.tokens() == ()

    def test_the_revision_changes_when_another_connection_commits(self, opened: Opened) -> None:
        reader, writer = opened(), opened()
        before = reader.revision()
        assert reader.revision() == before
        writer.apply(0, [made("a")])
        after = reader.revision()
        assert after != before
        assert reader.revision() == after
        assert [token.token_id for token in reader.tokens()] == ["a"]

    def test_closing_twice_is_closing(self, opened: Opened) -> None:
        state = opened()
        state.close()
        state.close()
