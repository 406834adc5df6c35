"""Who may do what: bounded by roles, apart by tenants, with the approval of others if so set."""

import pytest
from scenes import PASSPHRASE, Scene

from modelkeep.core.errors import KeepError, RefusedError
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.rows import ANY_TENANT, Approval, RegisteredPrincipal, Token
from modelkeep.crypto.secret import Secret
from modelkeep.flows.approvals import demand_approval, status_of
from modelkeep.flows.settings import APPROVABLE_VERBS, ApprovalSettings
from modelkeep.flows.tokens import probe_token
from modelkeep.ports.keyholder import Means
from modelkeep.sdk.access import Access
from modelkeep.sdk.keep import Keep
from modelkeep.testing.power import Fuse

TWO = ApprovalSettings(needed=2, verbs=("keys.destroy",))
ALL = ApprovalSettings(needed=1, verbs=APPROVABLE_VERBS)


@pytest.fixture
def keep(tmp_path):
    with Scene(tmp_path).create() as keep:
        yield keep


@pytest.fixture
def access(keep):
    return keep.access


def code(act, *words, **more):
    with pytest.raises(KeepError) as failure:
        act(*words, **more)
    return failure.value.code


def kinds(keep):
    return [entry.kind for _, entry in keep.ledger.entries()]


# ---- principals, roles, tenants ------------------------------------------------------------------


def test_doing_a_thing_again_records_nothing(keep, access):
    def all_of_it():
        access.new_tenant("acme")
        access.define_role("night", scopes=("infer:m", "metrics", "infer:m"))
        access.new_principal("eve", roles=("night", "caller"), tenant="acme")
        access.set_principal("eve", roles=("caller", "night"))
        access.disable_principal("eve")
        access.remove_role("none")

    all_of_it()
    before = kinds(keep)
    all_of_it()
    assert kinds(keep) == before
    access.enable_principal("eve")
    access.enable_principal("eve")
    assert kinds(keep).count("principal.enabled") == 1


def test_a_principal_stays_what_it_was_registered_as(access):
    access.new_tenant("acme")
    access.new_principal("eve", roles=("caller",))
    assert code(access.new_principal, "eve", roles=("scraper",)) == "principal.exists"
    assert code(access.new_principal, "eve", roles=("caller",), tenant="acme") == "principal.exists"
    assert access.set_principal("eve", roles=()).roles == ()


def test_what_does_not_exist_is_missing(access):
    assert code(access.new_principal, "eve", roles=("king",)) == "role.unknown"
    assert code(access.new_principal, "eve", tenant="acme") == "tenant.unknown"
    for act in (access.disable_principal, access.enable_principal):
        assert code(act, "eve") == "principal.unknown"
    assert code(access.set_principal, "eve", roles=()) == "principal.unknown"


@pytest.mark.parametrize("name", ["", "A", "a b", "*", "../x", "x" * 101, "é"])
def test_tenants_domains_and_roles_have_plain_names(access, name):
    assert code(access.new_tenant, name) == "tenant.name"
    assert code(access.define_role, name, scopes=()) == "role.name"
    if name:
        assert code(access.new_tenant, "fine", domain=name) == "tenant.name"


def test_a_domain_belongs_to_one_tenant(access):
    access.new_tenant("acme", domain="keys")
    assert code(access.new_tenant, "zeta", domain="keys") == "tenant.domain"
    assert code(access.new_tenant, "acme", domain="other") == "tenant.domain"
    assert code(access.new_tenant, "zeta", domain="default") == "tenant.domain"
    assert code(access.new_tenant, "default", domain="zeta") == "tenant.domain"
    assert [each.name for each in access.tenants()] == ["acme", "default"]


def test_a_new_tenant_takes_no_domain_that_was_made_for_another(keep, access):
    assert code(lambda: keep.keys.new("acme", tenant="acme")) == "tenant.unknown"
    access.new_tenant("acme", domain="acme-keys")
    keep.keys.new("acme-keys", "acme", tenant="acme")
    keep.keys.new("ours")
    assert code(access.new_tenant, "zeta", domain="acme-keys") == "tenant.domain"
    assert code(access.new_tenant, "zeta", domain="ours") == "tenant.domain"
    assert code(access.new_tenant, "ours") == "tenant.domain"
    assert [each.name for each in access.tenants()] == ["acme", "default"]
    assert code(access.new_tenant, "zeta", domain="acme") == "tenant.domain"


def test_a_key_is_of_a_tenant_that_was_made_and_never_of_all(keep, access):
    for tenant in (ANY_TENANT, "acme", ""):
        assert code(access.new_token, "eve", tenant=tenant) == "tenant.unknown"
    access.new_tenant("acme")
    access.new_token("eve", tenant="acme")
    assert [each.tenant for each in keep.opened.state.rows(Token)] == ["acme"]
    probe_token(keep.opened, expires_ns=1)
    assert ANY_TENANT in [each.tenant for each in keep.opened.state.rows(Token)]


def test_a_built_in_role_stays_and_a_held_one_is_not_removed(access):
    assert code(access.define_role, "caller", scopes=("approve",)) == "role.built_in"
    assert code(access.remove_role, "caller") == "role.built_in"
    access.define_role("night", scopes=("infer:m",))
    access.new_principal("eve", roles=("night",))
    assert code(access.remove_role, "night") == "role.held"
    access.set_principal("eve", roles=())
    assert access.remove_role("night")
    assert not access.remove_role("night")


def test_a_role_is_made_of_scopes(access):
    assert code(access.define_role, "night", scopes=("infer",)) == "token.scope"


# ---- tokens --------------------------------------------------------------------------------------


def test_a_key_gets_what_its_holders_roles_permit_unless_told_less(keep, access):
    access.new_tenant("acme")
    access.new_principal("eve", roles=("operator",), tenant="acme")
    for scopes in (None, ("infer:m",)):
        access.new_token("eve", scopes=scopes)
    found = {(each.tenant, each.scopes) for each in keep.opened.state.rows(Token)}
    assert found == {("acme", ("infer:*", "metrics", "operate")), ("acme", ("infer:m",))}


def test_a_key_beyond_its_holders_roles_is_refused_not_trimmed(access):
    access.define_role("one", scopes=("infer:m",))
    access.new_principal("eve", roles=("one",))
    for scopes in (("infer:*",), ("infer:n",), ("infer:m", "metrics"), ("approve",), ()):
        assert code(access.new_token, "eve", scopes=scopes) == "token.beyond"
    assert code(access.new_token, "somebody", scopes=("approve",)) == "token.beyond"
    access.set_principal("eve", roles=())
    assert code(access.new_token, "eve") == "token.beyond"
    assert access.tokens() == ()


def test_a_disabled_principal_gets_no_key(access):
    access.new_principal("eve", roles=("caller",))
    access.disable_principal("eve")
    assert code(access.new_token, "eve") == "principal.disabled"


# ---- approvals -----------------------------------------------------------------------------------


@pytest.fixture
def approvers(access):
    """Three approvers with a key each."""
    keys = {}
    for name in ("ann", "bob", "cyd"):
        access.new_principal(name, roles=("approver",))
        keys[name] = access.new_token(name)[1]
    return keys


def destroy(keep, subject="acme", settings=TWO, **more):
    demand_approval(keep.opened, settings, verb="keys.destroy", subject=subject, **more)


def request(keep, subject="acme", settings=TWO, **more):
    """Ask, be refused; the request's id."""
    with pytest.raises(RefusedError) as refused:
        destroy(keep, subject, settings, **more)
    assert refused.value.code == "approval.needed"
    approval_id = refused.value.context["approval_id"]
    assert f"approvals give {approval_id}" in refused.value.hint
    return approval_id


def test_without_approvals_everybody_goes_on(keep):
    for settings in (ApprovalSettings(), ApprovalSettings(needed=2, verbs=("keys.rekey",))):
        destroy(keep, settings=settings)
    assert not keep.opened.state.rows(Approval)


def test_two_others_agree_and_it_is_done_once(keep, access, approvers):
    approval_id = request(keep)
    assert request(keep) == approval_id
    access.give_approval(approval_id, approvers["ann"])
    access.give_approval(approval_id, approvers["ann"])
    assert request(keep) == approval_id
    access.give_approval(approval_id, approvers["bob"])
    destroy(keep)
    assert request(keep) != approval_id
    wanted = ["requested", "given", "given", "used", "requested"]
    assert [kind[9:] for kind in kinds(keep) if kind.startswith("approval.")] == wanted


def test_an_approval_is_of_exactly_this(keep, access, approvers):
    approval_id = request(keep, details={"models": ("m:1",)})
    for name in ("ann", "bob"):
        access.give_approval(approval_id, approvers[name])
    others = [
        request(keep, "zeta", details={"models": ("m:1",)}),
        request(keep, details={"models": ("m:1", "m:2")}),
        request(keep),
        request(keep, requested_by="cli:mallory", details={"models": ("m:1",)}),
    ]
    assert len({approval_id, *others}) == 5
    destroy(keep, details={"models": ("m:1",)})


def test_who_asks_cannot_agree(keep, access, approvers):
    for asker in ("ann", "cli:ann"):
        approval_id = request(keep, requested_by=asker)
        assert code(access.give_approval, approval_id, approvers["ann"]) == "approval.self"
        access.give_approval(approval_id, approvers["bob"])
        assert request(keep, requested_by=asker) == approval_id


def test_an_agreement_counts_only_while_its_giver_may_approve(keep, access, approvers):
    approval_id = request(keep)
    for name in ("ann", "bob"):
        access.give_approval(approval_id, approvers[name])
    access.disable_principal("ann")
    assert request(keep) == approval_id
    access.enable_principal("ann")
    access.set_principal("bob", roles=("caller",))
    assert request(keep) == approval_id
    access.give_approval(approval_id, approvers["cyd"])
    destroy(keep)


def test_only_a_key_that_may_approve_agrees(keep, access, approvers):
    approval_id = request(keep)
    access.new_principal("dan", roles=("caller",))
    caller = access.new_token("dan")[1]
    assert code(access.give_approval, approval_id, caller) == "auth.forbidden"
    (dan,) = [each for each in access.tokens() if each.principal == "dan"]
    access.revoke_token(dan.token_id)
    wrong = Secret(approvers["ann"].reveal()[:-1] + b"_")
    for key in (caller, wrong, Secret(b""), Secret(b"mk_")):
        assert code(access.give_approval, approval_id, key) == "auth.invalid"
        assert code(access.refuse_approval, approval_id, key) == "auth.invalid"
    access.disable_principal("ann")
    assert code(access.give_approval, approval_id, approvers["ann"]) == "auth.invalid"
    assert code(access.give_approval, "0" * 16, approvers["bob"]) == "approval.unknown"


def test_one_no_ends_a_request(keep, access, approvers):
    approval_id = request(keep)
    access.give_approval(approval_id, approvers["ann"])
    for _ in range(2):
        assert access.refuse_approval(approval_id, approvers["cyd"]).refused_by == "cyd"
    assert code(access.give_approval, approval_id, approvers["bob"]) == "approval.closed"
    assert code(access.refuse_approval, approval_id, approvers["bob"]) == "approval.closed"
    assert request(keep) != approval_id
    assert [status for _, status in access.approvals()] == ["refused", "open"]


def test_an_old_request_is_forgotten(keep, access, approvers):
    soon = ApprovalSettings(needed=1, verbs=("keys.destroy",), expires_s=0.02)
    approval_id = request(keep, settings=soon)
    access.give_approval(approval_id, approvers["ann"])
    (row,) = keep.opened.state.rows(Approval)
    assert row.expires_ns - row.requested_ns < 0.05 * NS_PER_S
    while status_of(row, keep.opened.clock.now_ns()) == "open":
        pass
    assert request(keep, settings=soon) != approval_id
    assert code(access.give_approval, approval_id, approvers["bob"]) == "approval.closed"


def test_more_may_be_needed_now_than_when_it_was_asked_and_never_less(keep, access, approvers):
    one = ApprovalSettings(needed=1, verbs=("keys.destroy",))
    first = request(keep, "a", settings=one)
    access.give_approval(first, approvers["ann"])
    assert request(keep, "a", settings=TWO) == first
    second = request(keep, "b", settings=TWO)
    access.give_approval(second, approvers["ann"])
    assert request(keep, "b", settings=one) == second


def test_nobody_makes_a_second_approver_alone(keep):
    """What would let somebody approve needs approval itself; the rest does not."""
    before = Access(keep.opened, ApprovalSettings(), lambda: None)
    before.new_principal("ann", roles=("approver",))
    before.new_principal("old", roles=("approver",))
    before.disable_principal("old")
    before.new_principal("eve", roles=("caller",))
    access = Access(keep.opened, ALL, lambda: None)
    for act, words, more in (
        (access.new_principal, ("bob",), {"roles": ("approver",)}),
        (access.set_principal, ("eve",), {"roles": ("approver",)}),
        (access.enable_principal, ("old",), {}),
        (access.define_role, ("king",), {"scopes": ("approve",)}),
        (access.new_token, ("ann",), {}),
    ):
        assert code(act, *words, **more) == "approval.needed"
    access.new_principal("kim", roles=("caller",))
    access.set_principal("eve", roles=("scraper",))
    access.disable_principal("eve")
    access.enable_principal("eve")
    access.define_role("night", scopes=("infer:m",))
    access.new_token("kim")
    approvers = [each.name for each in keep.opened.state.rows(RegisteredPrincipal)]
    assert approvers == ["ann", "eve", "kim", "old"]


def test_a_root_goes_to_a_new_holder_and_a_value_away_only_with_others(tmp_path):
    """But `keys join` asks for nothing: the shares are the others."""
    scene = Scene(tmp_path)
    with scene.create() as keep:
        index = keep.ledger.append("note.audit", {}, private={"subject": "s"})
        words = keep.keys.split(needed=2, shares=2)
    path = scene.keep_path / "modelkeep.toml"
    table = b'\n[approvals]\nneeded = 1\nverbs = ["keys.rotate", "ledger.erase"]\n'
    scene.disk.rewrite(path, scene.disk.read(path) + table)
    with scene.open() as keep:
        before = keep.opened.ring.number
        assert code(keep.keys.rotate) == "approval.needed"
        assert code(keep.ledger.erase, 0, reason="r") == "ledger.no_value"
        assert code(keep.ledger.erase, index, reason="r") == "approval.needed"
        assert keep.opened.ring.number == before
        assert keep.ledger.private_facts(keep.ledger.entry(index)) == {"subject": "s"}
        asked = [(row.verb, row.subject) for row, _ in keep.access.approvals()]
        assert asked == [("keys.rotate", "passphrase"), ("ledger.erase", f"entry {index}")]
        keep.access.new_principal("ann", roles=("approver",))
        ann = keep.access.new_token("ann")[1]
        for row, _ in keep.access.approvals():
            keep.access.give_approval(row.approval_id, ann)
        assert code(keep.ledger.erase, index, reason="another") == "approval.needed"
        keep.ledger.erase(index, reason="r")
        keep.ledger.erase(index, reason="r")
    with Keep(scene.keep_path, means=Means(words=words), world=scene.world(Fuse())) as keep:
        keep.keys.rotate(passphrase=PASSPHRASE)
        assert keep.opened.ring.number > before
        rotations = [status for row, status in keep.access.approvals() if row.verb == "keys.rotate"]
        assert rotations == ["open"]
        keep.keys.rotate()
        assert code(keep.keys.rotate) == "approval.needed"


def test_a_verb_that_nobody_could_configure_is_our_mistake(keep):
    with pytest.raises(AssertionError):
        demand_approval(keep.opened, TWO, verb="keys.destory", subject="x")
