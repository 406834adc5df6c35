"""What a key may do is what it and its principal's roles both permit, never more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.principal import Principal, is_permitted
from modelkeep.core.roles import BUILT_IN_ROLES, WIDE_SCOPES, bounded, is_scope, scopes_of
from modelkeep.core.rows import Role

ANY = st.sampled_from([*WIDE_SCOPES, "infer:m", "infer:n", "infer:o"])
SCOPES = st.lists(ANY, max_size=5).map(tuple)


def permits(scopes, scope):
    return is_permitted(Principal(name="p", tenant="t", scopes=scopes), scope)


@given(SCOPES, SCOPES, ANY)
def test_a_key_may_do_exactly_what_both_permit(scopes, allowed, scope):
    both = permits(scopes, scope) and permits(allowed, scope)
    assert permits(bounded(scopes, allowed), scope) is both


@given(SCOPES, ANY)
def test_without_registration_a_key_may_call_and_be_scraped_and_nothing_else(scopes, scope):
    is_usual = scope == "metrics" or scope.startswith("infer:")
    assert permits(bounded(scopes, None), scope) is (is_usual and permits(scopes, scope))


@given(SCOPES)
def test_no_role_permits_nothing(scopes):
    assert bounded(scopes, ()) == ()
    assert bounded((), scopes) == ()


def test_roles_add_up_and_one_that_is_gone_permits_nothing():
    defined = [Role(name="night", scopes=("infer:m",)), Role(name="empty", scopes=())]
    assert scopes_of(["night", "scraper", "empty", "gone"], defined) == ("infer:m", "metrics")
    assert scopes_of([], defined) == ()


def test_a_built_in_role_cannot_be_replaced_by_a_defined_one():
    assert scopes_of(["caller"], [Role(name="caller", scopes=("approve",))]) == ("infer:*",)


def test_every_built_in_role_is_made_of_scopes():
    assert set(BUILT_IN_ROLES) == {"caller", "scraper", "operator", "approver", "auditor"}
    assert all(is_scope(scope) for scopes in BUILT_IN_ROLES.values() for scope in scopes)
    assert [name for name, scopes in BUILT_IN_ROLES.items() if "approve" in scopes] == ["approver"]


@pytest.mark.parametrize("scope", ["", "*", "infer", "infer:", "Infer:m", "approve:*", "metrics:x"])
def test_what_is_no_scope_is_none(scope):
    assert not is_scope(scope)
