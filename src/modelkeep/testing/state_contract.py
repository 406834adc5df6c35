"""What every State promises, as a suite: inherit, and give a fixture named `opened`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import pytest

from modelkeep.core.entry import Entry, Fact
from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import Record
from modelkeep.core.rows import (
    TABLES,
    Alias,
    Applied,
    Approval,
    Domain,
    DomainStatus,
    KeyringMark,
    RegisteredPrincipal,
    Role,
    Tenant,
    Token,
)
from modelkeep.ports.state import State

A, B = "a", "b"  # ids of keys


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


def everything(state: State) -> tuple[Applied, dict[str, tuple[Record, ...]]]:
    """All that a State holds."""
    return state.applied(), {table: state.rows(kind) for kind, table in TABLES.items()}


STORY: tuple[Entry, ...] = (
    made("a"),
    entry("alias.set", model="m", alias="prod", version=1),
    entry("token.revoked", token_id=A),
    entry("vault.committed", head=1, snapshot="s"),
    entry("tenant.created", tenant="acme", domain="acme"),
    entry("domain.created", domain="acme", tenant="acme"),
    entry("role.defined", role="night", scopes=("infer:m",)),
    entry("role.defined", role="day", scopes=()),
    entry("principal.created", principal="eve", tenant="acme", roles=("night",)),
    entry("principal.changed", principal="eve", roles=("night", "caller")),
    entry("principal.disabled", principal="eve"),
    entry("role.removed", role="day"),
    entry("domain.revoked", domain="acme"),
    entry("keyring.changed", number=3, reason="rotate"),
    entry(
        "approval.requested",
        approval_id="1",
        verb="keys.destroy",
        subject="acme",
        digest="0" * 64,
        requested_by="cli:root",
        expires_ns=9,
        needed=2,
    ),
    entry("approval.given", approval_id="1", by="eve"),
    entry("approval.given", approval_id="1", by="eve"),
    entry("approval.given", approval_id="1", by="dan"),
    entry("approval.used", approval_id="1"),
)


class StateContract:
    """The promises of `modelkeep.ports.state.State`."""

    def test_a_new_state_has_applied_nothing(self, opened: Opened) -> None:
        applied, rows = everything(opened())
        assert applied == Applied(entries=0, head=0, snapshot="")
        assert set(rows.values()) == {()}

    def test_what_was_applied_is_there_after_opening_again(self, opened: Opened) -> None:
        state = opened()
        state.apply(0, STORY)
        before = everything(state)
        state.close()
        again = opened()
        assert everything(again) == before
        assert again.applied() == Applied(entries=len(STORY), head=1, snapshot="s")

    def test_a_token_keeps_every_field(self, opened: Opened) -> None:
        state = opened()
        state.apply(0, [made("a", expires_ns=2**63 - 1)])
        wanted = Token(
            token_id=A,
            secret_sha256="0" * 64,
            principal="holder of a",
            tenant="default",
            scopes=("infer:*", "metrics"),
            expires_ns=2**63 - 1,
        )
        assert state.rows(Token) == (wanted,)

    def test_every_kind_of_row_comes_back_as_it_was(self, opened: Opened) -> None:
        state = opened()
        state.apply(0, STORY)
        (token,) = state.rows(Token)
        assert token.revoked
        assert state.rows(Alias) == (Alias(model="m", alias="prod", version=1),)
        assert state.rows(Tenant) == (Tenant(name="acme", domain="acme"),)
        assert state.rows(Domain) == (
            Domain(name="acme", tenant="acme", status=DomainStatus.REVOKED),
        )
        assert state.rows(Role) == (Role(name="night", scopes=("infer:m",)),)
        assert state.rows(RegisteredPrincipal) == (
            RegisteredPrincipal(
                name="eve", tenant="acme", roles=("night", "caller"), disabled=True
            ),
        )
        assert state.rows(KeyringMark) == (KeyringMark(number=3),)
        (approval,) = state.rows(Approval)
        assert (approval.given_by, approval.used) == (("eve", "dan"), True)

    def test_rows_are_ordered_by_key_byte_by_byte(self, opened: Opened) -> None:
        state = opened()
        names = ["b", "a", "A", "ä", "a-b", "a b", "aa", "Z", "日本", "~"]
        state.apply(0, [made(name) for name in names])
        state.apply(len(names), [entry("token.revoked", token_id=B)])
        found = [each.token_id for each in state.rows(Token)]
        assert found == sorted(names, key=str.encode)
        assert [each.token_id for each in state.rows(Token) if each.revoked] == ["b"]

    def test_an_alias_moves_and_aliases_are_sorted(self, opened: Opened) -> None:
        state = opened()
        for model, alias, version in (("m", "prod", 1), ("m", "next", 2), ("m-a", "prod", 1)):
            at = state.applied().entries
            state.apply(at, [entry("alias.set", model=model, alias=alias, version=version)])
        state.apply(3, [entry("alias.set", model="m", alias="prod", version=2)])
        found = [(each.model, each.alias, each.version) for each in state.rows(Alias)]
        assert found == [("m", "next", 2), ("m", "prod", 2), ("m-a", "prod", 1)]

    def test_an_entry_that_says_nothing_to_state_still_counts(self, opened: Opened) -> None:
        state = opened()
        state.apply(0, [entry("check.done", objects=3), entry("something.new")])
        assert state.applied() == Applied(entries=2, head=0, snapshot="")

    def test_applying_again_changes_nothing(self, opened: Opened) -> None:
        """A replay after a crash repeats what was applied already, in whole or in part."""
        state = opened()
        state.apply(0, STORY)
        before = everything(state)
        for first in range(len(STORY)):
            state.apply(first, STORY[first:])
            state.apply(0, STORY[: first + 1])
            assert everything(state) == before

    def test_batches_of_any_size_come_to_the_same(self, opened: Opened) -> None:
        """A later entry of a batch sees what an earlier one did."""
        state = opened()
        for first in range(len(STORY)):
            state.apply(first, [STORY[first]])
        before = everything(state)
        state.apply(len(STORY), STORY)
        again = everything(state)
        assert again[1] == before[1]
        assert again[0].entries == 2 * len(STORY)

    def test_a_batch_that_begins_before_what_was_applied_continues_it(self, opened: Opened) -> None:
        state = opened()
        state.apply(0, [made("a"), made("b")])
        state.apply(1, [made("b"), made("c")])
        assert state.applied().entries == 3
        assert len(state.rows(Token)) == 3

    def test_a_gap_is_an_assertion_error_and_changes_nothing(self, opened: Opened) -> None:
        state = opened()
        state.apply(0, [made("a")])
        with pytest.raises(AssertionError):
            state.apply(2, [made("b")])
        assert state.applied().entries == 1
        assert len(state.rows(Token)) == 1
        state.apply(1, [made("b")])
        assert state.applied().entries == 2

    def test_a_batch_is_applied_whole_or_not_at_all(self, opened: Opened) -> None:
        state = opened()
        with pytest.raises(IntegrityError):
            state.apply(0, [made("a"), entry("token.created")])
        assert everything(state)[1] == everything(opened())[1]
        assert state.applied().entries == 0
        assert state.rows(Token) == ()

    def test_the_revision_changes_when_another_connection_commits(self, opened: Opened) -> None:
        reader, writer = opened(), opened()
        before = reader.revision()
        assert reader.revision() == before
        writer.apply(0, [made("a")])
        after = reader.revision()
        assert after != before
        assert reader.revision() == after
        assert [token.token_id for token in reader.rows(Token)] == ["a"]

    def test_two_writers_never_interleave(self, opened: Opened) -> None:
        """Each of them applies the whole story in small batches; it counts once."""
        story = [made(f"{number:04}") for number in range(60)]

        def write() -> None:
            state = opened()
            for first in range(0, len(story), 3):
                state.apply(first, story[first : first + 3])
            state.close()

        opened().close()
        with ThreadPoolExecutor(3) as writers:
            for each in [writers.submit(write) for _ in range(3)]:
                each.result()
        state = opened()
        assert state.applied().entries == len(story)
        assert len(state.rows(Token)) == len(story)

    def test_closing_twice_is_closing(self, opened: Opened) -> None:
        state = opened()
        state.close()
        state.close()
