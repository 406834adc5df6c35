"""Goal: State made anew from the ledger is the State that was there, whatever happened before.

Method: random sequences of commands about who may do what; the power fails before or after any
State transaction, also while the next opening catches up. Then State is thrown away and made anew,
and every row is compared: with the rows before, and with a fold of the ledger's entries in memory.
"""

import contextlib
import dataclasses
import random
import time
import uuid

import psycopg
import pytest
from postgres_server import running_postgres
from scenes import PASSPHRASE, Scene

from modelkeep.adapters.state_postgres import PostgresState
from modelkeep.adapters.state_sqlite import SqliteState
from modelkeep.core.errors import KeepError
from modelkeep.core.projection import projected
from modelkeep.core.rows import TABLES, Applied, Approval, RegisteredPrincipal, Token
from modelkeep.flows.approvals import demand_approval
from modelkeep.flows.keep import record
from modelkeep.flows.settings import ApprovalSettings
from modelkeep.sdk.keep import Keep
from modelkeep.testing.memory import SeededEntropy
from modelkeep.testing.power import CuttingState, Fuse, PowerCut
from modelkeep.testing.state_contract import everything

NAMES = ("ann", "bob", "cyd")
CLIENT = {
    "client_id": "c" * 16,
    "client": "trainer",
    "public": "f" * 64,
    "expires_ns": 0,
    "size_bytes_max": 1,
}
ROLES = ("caller", "approver", "night")
APPROVALS = ApprovalSettings(needed=1, verbs=("keys.destroy",), expires_s=600.0)


class Life:
    """A keep on a simulated disk whose State transactions can be cut, before or after."""

    def __init__(self, scene, open_state, forget):
        self.scene = scene
        self.fuse = Fuse()
        self.open_state = open_state
        self.forget = forget
        self.keys = {}

    def open(self):
        world = dataclasses.replace(
            self.scene.world(Fuse()),
            entropy=SeededEntropy(time.time_ns()),
            open_state=lambda path: CuttingState(self.open_state(path), self.fuse),
        )
        return Keep(self.scene.keep_path, passphrase=PASSPHRASE, world=world)


def new_token(life, keep, rng):
    scopes = rng.choice([None, ("infer:m",), ("metrics", "infer:*")])
    name = rng.choice(NAMES)
    token_id, text = keep.access.new_token(name, scopes=scopes, expires_ns=rng.choice([0, 10**18]))
    life.keys[token_id] = text


def revoke(life, keep, rng):
    del life
    if tokens := keep.access.tokens():
        keep.access.revoke_token(rng.choice(tokens).token_id)


def principal(life, keep, rng):
    del life
    name, roles = rng.choice(NAMES), rng.sample(ROLES, rng.randrange(3))
    act = rng.choice(("new", "set", "disable", "enable"))
    if act == "new":
        tenant = rng.choice([each.name for each in keep.access.tenants()])
        keep.access.new_principal(name, roles=roles, tenant=tenant)
    elif act == "set":
        keep.access.set_principal(name, roles=roles)
    elif act == "disable":
        keep.access.disable_principal(name)
    else:
        keep.access.enable_principal(name)


def role(life, keep, rng):
    del life
    if rng.random() < 0.3:
        keep.access.remove_role("night")
    else:
        keep.access.define_role("night", scopes=rng.sample(("infer:m", "approve", "metrics"), 2))


def tenant(life, keep, rng):
    del life
    keep.access.new_tenant(rng.choice(("acme", "zeta")))


def version(rng, **facts):
    """What an entry says of one version."""
    return {"model": "m", "version": rng.randrange(1, 4), **facts}


def entry(life, keep, rng):
    """What other flows record and State projects."""
    del life
    kind, facts = rng.choice(
        [
            ("domain.created", {"domain": "d", "tenant": "acme"}),
            ("domain.revoked", {"domain": "d"}),
            ("domain.restored", {"domain": "d"}),
            ("domain.destroyed", {"domain": "d"}),
            ("keyring.changed", {"number": 0, "reason": "test"}),
            ("client.added", CLIENT),
            ("client.revoked", {"client_id": CLIENT["client_id"]}),
            ("inbox.accepted", {"client_id": CLIENT["client_id"], "submission": "5" * 32}),
            ("check.done", {"objects": 1}),
        ]
    )
    record(keep.opened, kind, facts)


def versioned(life, keep, rng):
    """What the flows of versions record."""
    del life
    kind, facts = rng.choice(
        [
            ("alias.set", version(rng, alias=rng.choice(NAMES))),
            ("model.promoted", version(rng, alias=rng.choice(NAMES))),
            ("model.rolled_back", version(rng, alias=rng.choice(NAMES))),
            ("model.deprecated", version(rng, until_ns=1, replaced_by="m:3", note="")),
            ("model.deprecated", version(rng, until_ns=0, replaced_by="", note="old")),
            ("model.undeprecated", version(rng)),
            ("model.held", version(rng, note="case 7")),
            ("model.unheld", version(rng)),
            ("model.removed", {"model": "m", "versions": ("1",), "aliases": ("m:ann",)}),
        ]
    )
    record(keep.opened, kind, facts)


def admission(life, keep, rng):
    """What the flow of held admissions records."""
    del life
    named = {"hold_id": rng.choice(("a" * 16, "b" * 16)), "model": "m"}
    found = {"digest": "d", "subject": "m.pkl", "rules": ("scan.x",), "size_bytes": 1}
    kind, facts = rng.choice(
        [
            ("admission.held", {**named, **found}),
            ("admission.approved", {**named, "until_ns": 10**18, "why": "reviewed"}),
            ("admission.withdrawn", named),
        ]
    )
    record(keep.opened, kind, facts)


def identified(life, keep, rng):
    """What is recorded of passwords, certificates and issuers."""
    del life
    name, print_ = rng.choice(NAMES), {"fingerprint": rng.choice("ab") * 64}
    cost = {"memory_kib": 64, "passes": 1, "lanes": 1}
    secret = {"password_id": f"{rng.randrange(9):016}", "salt": "0" * 64, "verifier": "1" * 64}
    kind, facts = rng.choice(
        [
            ("account.password", {"principal": name, **secret, **cost}),
            ("account.removed", {"principal": name}),
            ("certificate.issued", {**print_, "principal": name, "begins_ns": 1, "expires_ns": 2}),
            ("certificate.revoked", print_),
            ("issuer.disabled", {"issuer": "corp"}),
            ("issuer.enabled", {"issuer": "corp"}),
        ]
    )
    record(keep.opened, kind, facts)


def trafficked(life, keep, rng):
    """What is recorded of canaries and shadows."""
    del life
    named = {"model": rng.choice(NAMES)}
    shares = {"canary": 2, "canary_lots": rng.randrange(10_001), "shadow": 0, "shadow_lots": 0}
    kind, facts = rng.choice(
        [
            ("traffic.set", {**named, **shares, "sticky": rng.random() < 0.5}),
            ("traffic.set", {**named, **shares, "sticky": False}),
            ("traffic.ended", {**named, "reason": "rollback"}),
        ]
    )
    record(keep.opened, kind, facts)


def approval(life, keep, rng):
    rows = keep.access.approvals()
    if not rows or rng.random() < 0.5:
        subject = rng.choice(NAMES)
        demand_approval(keep.opened, APPROVALS, verb="keys.destroy", subject=subject)
    else:
        keys = [life.keys[each.token_id] for each in keep.access.tokens() if not each.revoked]
        give = rng.choice((keep.access.give_approval, keep.access.refuse_approval))
        give(rng.choice(rows)[0].approval_id, rng.choice(keys))


COMMANDS = (
    *(new_token, new_token, revoke, principal, principal, role, tenant),
    *(entry, versioned, admission, identified, trafficked, approval),
)


def lived(life, rng, commands):
    """Run commands; most transactions are cut, half of them before, half after."""
    keep, cuts = life.open(), 0
    for _ in range(commands):
        life.fuse.at = life.fuse.count + rng.randrange(2) if rng.random() < 0.7 else None
        try:
            with contextlib.suppress(KeepError, IndexError, KeyError):
                rng.choice(COMMANDS)(life, keep, rng)
        except PowerCut:
            cuts += 1
            with contextlib.suppress(PowerCut, KeepError):
                keep.close()
            keep = reopened(life, rng)
    life.fuse.at = None
    keep.close()
    return cuts


def reopened(life, rng):
    """Open again; the power may fail while State catches up."""
    life.fuse.at = life.fuse.count + rng.randrange(2) if rng.random() < 0.3 else None
    with contextlib.suppress(PowerCut):
        return life.open()
    life.fuse.at = None
    return life.open()


def folded(keep):
    """The ledger's entries, folded in memory."""
    rows = {}

    def present(kind, key):
        return rows.get((TABLES[kind], key))

    entries = [each for _, each in keep.ledger.entries()]
    applied, changed = projected(Applied(entries=0, head=0, snapshot=""), 0, entries, present)
    rows = {(each.table, each.key): each.row for each in changed if each.row is not None}
    ordered = {table: [] for table in TABLES.values()}
    for (table, _), row in sorted(rows.items()):
        ordered[table].append(row)
    return applied, {table: tuple(found) for table, found in ordered.items()}


def demand_rebuilt(life, seed):
    with life.open() as keep:
        before = everything(keep.opened.state)
        assert before == folded(keep), f"seed {seed}"
    life.forget()
    with life.open() as keep:  # which records that it was opened
        after = everything(keep.opened.state)
        assert after == folded(keep), f"seed {seed}"
    assert after[1] == before[1], f"seed {seed}"
    assert (after[0].head, after[0].snapshot) == (before[0].head, before[0].snapshot)
    return before


@pytest.fixture
def scene(tmp_path):
    scene = Scene(tmp_path)
    scene.create().close()
    return scene


def run_all(scene, lives, make):
    image = scene.image()
    cuts, seen = 0, set()
    for _ in range(lives):
        seed = time.time_ns()
        rng = random.Random(seed)  # noqa: S311 - it chooses what happens, no key
        scene.show(image)
        with make() as life:
            cuts += lived(life, rng, rng.randrange(4, 16))
            seen |= {table for table, rows in demand_rebuilt(life, seed)[1].items() if rows}
    return cuts, seen


@pytest.mark.slow
@pytest.mark.verify("state")
def test_a_rebuilt_state_is_the_state_that_was_there(scene, count):
    def forget():
        for path in scene.keep_path.glob("state.db*"):
            path.unlink()

    @contextlib.contextmanager
    def life():
        yield Life(scene, SqliteState, forget)

    lives = count(100, full=1_000)
    cuts, seen = run_all(scene, lives, life)
    assert cuts > lives / 2
    assert seen == set(TABLES.values())


@pytest.mark.slow
@pytest.mark.verify("state")
def test_a_rebuilt_state_in_postgresql_is_the_state_that_was_there(scene, count):
    with running_postgres() as folder:
        url = f"postgresql://me@/postgres?host={folder}"

        @contextlib.contextmanager
        def life():
            origin = uuid.uuid4().hex

            def forget():
                with contextlib.closing(PostgresState(url, origin=origin)) as state:
                    state.forget()

            yield Life(scene, lambda _: PostgresState(url, origin=origin), forget)

        lives = count(10, full=100)
        cuts, _ = run_all(scene, lives, life)
        assert cuts > lives / 3
        with contextlib.closing(psycopg.connect(url)) as connection:
            origins = connection.execute("SELECT count(*) FROM modelkeep.applied").fetchone()
            assert origins == (lives,)


def test_every_kind_of_row_can_be_lived(scene):
    """The commands above reach what they mean to: else the comparison would prove little."""
    life = Life(scene, SqliteState, lambda: None)
    with life.open() as keep:
        keep.access.new_principal("ann", roles=("approver",))
        with pytest.raises(KeepError):
            demand_approval(keep.opened, APPROVALS, verb="keys.destroy", subject="x")
        token_id, _ = keep.access.new_token("ann")
        rows = keep.opened.state.rows
        assert [each.token_id for each in rows(Token)] == [token_id]
        assert [each.roles for each in rows(RegisteredPrincipal)] == [("approver",)]
        assert [each.subject for each in rows(Approval)] == ["x"]
