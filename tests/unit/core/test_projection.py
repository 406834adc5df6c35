"""State is a pure function of the ledger: of its entries and their order, of nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError
from modelkeep.core.projection import _KINDS, changes, projected
from modelkeep.core.record import to_json
from modelkeep.core.rows import (
    TABLES,
    Alias,
    Applied,
    Approval,
    Deprecation,
    Domain,
    DomainStatus,
    HeldAdmission,
    Hold,
    KeyringMark,
    RegisteredPrincipal,
    Token,
    row_of,
)
from modelkeep.testing.state_contract import STORY, entry, made

NOTHING = Applied(entries=0, head=0, snapshot="")
KINDS = st.sampled_from([*_KINDS, "vault.committed", "check.done", "unheard.of"])
TEXT = st.text(max_size=4)
FACT = st.one_of(TEXT, st.integers(), st.booleans(), st.none(), st.lists(TEXT).map(tuple))
# Every fact that some projection reads.
_FACTS = (
    "token_id secret_sha256 principal tenant scopes expires_ns model alias version domain roles "
    "role number approval_id verb subject digest requested_by needed by head snapshot "
    "client_id client public size_bytes_max submission versions aliases until_ns replaced_by note "
    "hold_id digest subject rules size_bytes why"
)
NAMES = st.sampled_from(_FACTS.split())
HOSTILE = st.builds(
    lambda kind, facts: Entry(kind=kind, at_ns=1, actor="x", facts=facts),
    KINDS,
    st.dictionaries(NAMES, FACT, max_size=12),
)


class Rows:
    """A State in a dict."""

    def __init__(self):
        self.applied = NOTHING
        self.rows = {}

    def present(self, kind, key):
        return self.rows.get((TABLES[kind], key))

    def apply(self, first, entries):
        self.applied, changed = projected(self.applied, first, entries, self.present)
        for each in changed:
            if each.row is None:
                self.rows.pop((each.table, each.key), None)
            else:
                self.rows[each.table, each.key] = each.row

    def all(self, kind):
        return [row for (table, _), row in sorted(self.rows.items()) if table == TABLES[kind]]


def after(*entries):
    state = Rows()
    state.apply(0, entries)
    return state


def story():
    """Sequences of sound entries about few things, so that they meet."""
    some = st.sampled_from
    return st.lists(some([*STORY, *map(made, "bc"), entry("check.done")]), max_size=30)


@given(story(), st.data())
def test_batches_of_any_size_and_any_repetition_come_to_the_same(entries, data):
    whole = after(*entries)
    state = Rows()
    while state.applied.entries < len(entries):
        first = data.draw(st.integers(0, state.applied.entries))
        last = data.draw(st.integers(first + 1, len(entries)))
        state.apply(first, entries[first:last])
    assert (state.applied, state.rows) == (whole.applied, whole.rows)


@given(st.lists(HOSTILE, max_size=5))
def test_whatever_an_entry_says_it_is_projected_or_refused(entries):
    state = after(*STORY)
    before = dict(state.rows)
    try:
        state.apply(len(STORY), entries)
    except IntegrityError:
        assert state.rows == before
    else:
        for (table, key), row in state.rows.items():
            kind = next(kind for kind, name in TABLES.items() if name == table)
            assert isinstance(row, kind)
            assert row_of(kind, to_json(row), key=key) == row


@given(st.sampled_from(list(TABLES)), st.binary(max_size=200))
def test_whatever_a_stored_row_holds_it_is_read_or_refused(kind, raw):
    try:
        row = row_of(kind, raw, key="k")
    except IntegrityError as error:
        said = error
        assert (said.code, "state rebuild" in said.hint) == ("state.row", True)
    else:
        assert isinstance(row, kind)


@pytest.mark.parametrize("kind", [*_KINDS, "vault.committed"])
def test_an_entry_without_its_facts_is_refused(kind):
    with pytest.raises(IntegrityError):
        after(entry(kind))


def test_a_kind_that_is_not_known_changes_nothing():
    assert changes(entry("something.new", model="a"), Rows().present) == ()


def test_what_speaks_of_nothing_known_changes_nothing():
    state = after(
        entry("token.revoked", token_id="a"),  # noqa: S106 - the id of a key
        entry("principal.changed", principal="eve", roles=()),
        entry("principal.disabled", principal="eve"),
        entry("approval.given", approval_id="1", by="eve"),
        entry("approval.refused", approval_id="1", by="eve"),
        entry("approval.used", approval_id="1"),
        entry("role.removed", role="night"),
    )
    assert state.rows == {}
    assert state.applied.entries == 7


def test_a_commit_moves_the_head_forward_only():
    commits = [entry("vault.committed", head=n, snapshot=f"s{n}") for n in (1, 3, 2)]
    again = entry("vault.committed", head=3, snapshot="other")
    state = after(*commits, again)
    assert state.applied == Applied(entries=4, head=3, snapshot="s3")


def test_a_token_has_the_tenant_it_says_or_that_of_its_entry():
    early = Entry(kind="token.created", at_ns=1, actor="x", tenant="t1", facts=made("a").facts)
    late = entry("token.created", **{**made("b").facts, "tenant": "t2"})
    assert [row.tenant for row in after(early, late).all(Token)] == ["t1", "t2"]


def test_a_disabled_principal_keeps_its_roles():
    state = after(
        entry("principal.created", principal="eve", tenant="t", roles=("a",)),
        entry("principal.disabled", principal="eve"),
        entry("principal.changed", principal="eve", roles=("b",)),
    )
    wanted = RegisteredPrincipal(name="eve", tenant="t", roles=("b",), disabled=True)
    assert state.all(RegisteredPrincipal) == [wanted]
    state.apply(3, [entry("principal.enabled", principal="eve")])
    assert not state.all(RegisteredPrincipal)[0].disabled


def test_a_destroyed_domain_stays_destroyed():
    kinds = ("created", "revoked", "restored", "destroyed", "restored", "revoked")
    state = Rows()
    found = []
    for at, kind in enumerate(kinds):
        more = {"tenant": "t"} if kind == "created" else {}
        state.apply(at, [entry(f"domain.{kind}", domain="d", **more)])
        found.append(str(state.all(Domain)[0].status))
    assert found == ["live", "revoked", "live", "destroyed", "destroyed", "destroyed"]


def test_the_first_domain_has_no_entry_of_its_own_and_can_be_revoked():
    wanted = Domain(name="default", tenant="default", status=DomainStatus.REVOKED)
    assert after(entry("domain.revoked", domain="default")).all(Domain) == [wanted]


def test_the_keyring_mark_never_goes_back():
    marks = [entry("keyring.changed", number=n, reason="r") for n in (1, 5, 3)]
    assert after(*marks).all(KeyringMark) == [KeyringMark(number=5)]


def test_an_approval_counts_each_principal_once_and_the_first_refusal():
    requested = next(each for each in STORY if each.kind == "approval.requested")
    given = [entry("approval.given", approval_id="1", by=by) for by in ("eve", "eve", "dan")]
    refused = [entry("approval.refused", approval_id="1", by=by) for by in ("kim", "dan")]
    (row,) = after(requested, *given, *refused).all(Approval)
    assert (row.given_by, row.refused_by, row.used) == (("eve", "dan"), "kim", False)
    assert (row.requested_ns, row.expires_ns, row.needed) == (1, 9, 2)


def test_two_aliases_never_share_a_row():
    names = [("a", "b-c"), ("a-b", "c"), ("a.b", "c"), ("a", "b")]
    entries = [entry("alias.set", model=m, alias=a, version=1) for m, a in names]
    found = after(*entries).all(Alias)
    assert [(row.model, row.alias) for row in found] == sorted(names)


def moved(kind, version, *, alias="prod"):
    return entry(kind, model="m", alias=alias, version=version)


def test_an_alias_remembers_the_way_that_it_came_and_goes_back_along_it():
    moves = [moved("alias.set", 1), moved("model.promoted", 2), moved("alias.set", 2)]
    (row,) = after(*moves, moved("model.promoted", 3)).all(Alias)
    assert (row.version, row.previous) == (3, (2, 1))
    back = [*moves, moved("model.promoted", 3), moved("model.rolled_back", 2)]
    (row,) = after(*back).all(Alias)
    assert (row.version, row.previous) == (2, (1,))
    (row,) = after(*back, moved("model.rolled_back", 1)).all(Alias)
    assert (row.version, row.previous) == (1, ())


def test_what_was_said_of_a_version_goes_with_it():
    said = {"model": "m", "until_ns": 0, "replaced_by": "", "note": ""}
    entries = [
        *(moved("alias.set", version, alias=alias) for version, alias in ((1, "a"), (2, "b"))),
        *(entry("model.deprecated", version=version, **said) for version in (1, 2)),
        *(entry("model.held", model="m", version=version, note="") for version in (1, 2)),
        entry("model.removed", model="m", versions=("1",), aliases=("m:a",)),
    ]
    state = after(*entries)
    for kind in (Alias, Deprecation, Hold):
        assert [row.version for row in state.all(kind)] == [2]
    state.apply(7, [entry("model.undeprecated", model="m", version=2)])
    assert (len(state.all(Deprecation)), len(state.all(Hold))) == (0, 1)
    state.apply(8, [entry("model.unheld", model="m", version=2)])
    assert not state.all(Hold)


def test_a_held_admission_waits_is_approved_withdrawn_and_waits_anew():
    named = {"hold_id": "a" * 16, "model": "m"}
    found = {"digest": "d", "subject": "m.pkl", "rules": ("scan.x",), "size_bytes": 1}
    held = entry("admission.held", **named, **found)
    said = entry("admission.approved", **named, until_ns=5, why="reviewed")
    assert not after(said).all(HeldAdmission)  # of what never waited
    (row,) = after(held, said).all(HeldAdmission)
    assert (row.until_ns, row.why, row.withdrawn, row.rules) == (5, "reviewed", False, ("scan.x",))
    (row,) = after(held, said, entry("admission.withdrawn", **named)).all(HeldAdmission)
    assert row.withdrawn
    (row,) = after(held, said, held).all(HeldAdmission)
    assert (row.approved_by, row.withdrawn) == ("", False)
