"""Versions as an operator lives with them: aliases, approvals, holds, retention, lineage.

The property: whatever is done in whatever order, an alias never names a version that is gone, and
`retire` never takes what is on hold or what an alias names.
"""

import json
import random
import struct

import pytest
from scenes import Scene

from modelkeep.core.errors import KeepError, RefusedError
from modelkeep.core.policy import Policy, Use
from modelkeep.core.record import replaced
from modelkeep.core.rows import ALIAS_HISTORY_MAX, Alias, Approval, Hold
from modelkeep.flows.keep import record
from modelkeep.flows.lineage import exact
from modelkeep.flows.prune import PrunePolicy
from modelkeep.flows.settings import ApprovalSettings, RetentionSettings
from modelkeep.flows.standing import still_served, warnings_of
from modelkeep.sdk.upkeep import Upkeep
from modelkeep.sdk.versions import Versions

AGES_AGO_NS = 1
NEVER_NS = 2**62
GUARDED = ApprovalSettings(needed=1)


def file_of(folder, number):
    """A safetensors file of one tensor: as many versions as are wanted, cheaply."""
    header = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = folder / f"m{number}.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + struct.pack("<f", number))
    return path


class Shop:
    """An open keep, with what an operator types at hand."""

    def __init__(self, scene, keep):
        self.scene, self.keep, self.made = scene, keep, 0
        self.versions, self.upkeep = Versions(keep), Upkeep(keep)

    def admit(self, name="m", **how):
        self.made += 1
        return self.keep.admit(file_of(self.scene.folder, self.made), name=name, **how).version

    def alias(self, name="prod", model="m"):
        rows = self.keep.opened.state.rows(Alias)
        return next((row for row in rows if (row.model, row.alias) == (model, name)), None)

    def wish(self, **wishes):
        settings = RetentionSettings(**wishes)
        self.keep.config = replaced(self.keep.config, retention=settings)

    def guard(self, *verbs):
        approvals = ApprovalSettings(needed=1, verbs=verbs) if verbs else GUARDED
        self.keep.config = replaced(self.keep.config, approvals=approvals)
        self.versions = Versions(self.keep)

    def agreed(self, key):
        """Somebody else agrees to what is asked for."""
        (row,) = [each for each, said in self.keep.access.approvals() if said == "open"]
        self.keep.access.give_approval(row.approval_id, key)

    def there(self):
        return {(each.name, each.version) for each in self.keep.models()}

    def kinds(self):
        return [each.kind for _, each in self.keep.ledger.entries()]


@pytest.fixture
def shop(tmp_path):
    scene = Scene(tmp_path)
    with scene.create() as keep:
        yield Shop(scene, keep)


@pytest.fixture
def three(shop):
    """m:1, m:2 and m:3."""
    for _ in range(3):
        shop.admit()
    return shop


@pytest.fixture
def ann(shop):
    """The API key of an approver."""
    shop.keep.access.new_principal("ann", roles=("approver",))
    return shop.keep.access.new_token("ann")[1]


# ---- promotion and rollback ----------------------------------------------------------------------


def test_a_promotion_moves_the_alias_and_says_from_where_to_where_and_what(three):
    three.versions.promote("m:1", to="prod")
    move = three.versions.promote("m:3", to="prod", note="better")
    assert (move.version, move.previous, move.is_new) == (3, 1, True)
    entries = [each for _, each in three.keep.ledger.entries() if each.kind == "model.promoted"]
    assert entries[-1].facts == {
        "model": "m",
        "alias": "prod",
        "version": 3,
        "previous": 1,
        "manifest": move.digest,
        "note": "better",
    }
    assert move.digest == three.versions.of("m").versions[2].digest
    again = three.versions.promote("m:prod", to="prod")
    assert not again.is_new
    assert three.kinds().count("model.promoted") == 2


def test_a_rollback_goes_the_way_back_step_by_step(three):
    for version in (1, 2, 3):
        three.versions.promote(f"m:{version}", to="prod")
    assert three.alias().previous == (2, 1)
    assert three.versions.rollback("m:prod").version == 2
    assert three.versions.rollback("m:prod").version == 1
    with pytest.raises(RefusedError, match="can go back to none"):
        three.versions.rollback("m:prod")
    three.versions.promote("m:3", to="prod")
    assert three.versions.rollback("m:prod", to=1).version == 1


def test_a_rollback_goes_nowhere_that_the_alias_has_not_been(three):
    three.versions.promote("m:1", to="prod")
    three.versions.promote("m:2", to="prod")
    with pytest.raises(RefusedError) as refused:
        three.versions.rollback("m:prod", to=3)
    assert refused.value.code == "rollback.history"
    with pytest.raises(KeepError) as refused:
        three.versions.rollback("m:next")
    assert refused.value.code == "rollback.alias"


def test_a_rollback_passes_over_what_is_gone_or_cannot_be_served(three):
    mortal = three.admit(policy=Policy(not_after_ns=NEVER_NS))
    for version in (1, 2, mortal, 3):
        three.versions.promote(f"m:{version}", to="prod")
    three.upkeep.remove("m:2")
    three.versions.deprecate(f"m:{mortal}", until="2000-01-01")
    move = three.versions.rollback("m:prod")
    assert move.version == 1
    assert len(move.skipped) == 2
    assert "ended" in move.skipped[0]


def test_a_rollback_to_a_version_that_is_gone_is_refused(three):
    three.versions.promote("m:1", to="prod")
    three.versions.promote("m:2", to="prod")
    three.upkeep.remove("m:1")
    for to in (0, 1):
        with pytest.raises(KeepError) as refused:
            three.versions.rollback("m:prod", to=to)
        assert refused.value.code == ("model.unknown" if to else "rollback.nowhere")
    assert three.alias().version == 2


def test_an_alias_forgets_what_was_long_ago(three):
    for turn in range(2 * ALIAS_HISTORY_MAX):
        three.versions.alias("m:prod", 1 + turn % 2)
    assert len(three.alias().previous) == ALIAS_HISTORY_MAX


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (Policy(uses=(Use.LOAD,)), "policy.use"),
        (Policy(not_after_ns=AGES_AGO_NS), "policy.expired"),
        (Policy(loaders=("supervisor",), hosts=("ab" * 16,)), ""),
    ],
)
def test_what_may_not_be_served_is_not_promoted_and_who_and_where_is_asked_elsewhere(
    shop, policy, code
):
    shop.admit(policy=policy)
    if not code:
        assert shop.versions.promote("m:1", to="prod").is_new
        return
    with pytest.raises(RefusedError) as refused:
        shop.versions.promote("m:1", to="prod")
    assert refused.value.code == code
    assert shop.alias() is None


def test_what_is_deprecated_is_promoted_only_by_force_and_never_after_its_end(three):
    three.versions.deprecate("m:1", until="2200-01-01", replaced_by="m:2")
    with pytest.raises(RefusedError) as refused:
        three.versions.promote("m:1", to="prod")
    assert refused.value.code == "promote.deprecated"
    move = three.versions.promote("m:1", to="prod", force=True)
    assert move.warnings == ("m:1 is deprecated until 2200-01-01T00:00:00Z; use m:2",)
    three.versions.deprecate("m:2", until="2000-01-01")
    with pytest.raises(RefusedError) as refused:
        three.versions.promote("m:2", to="prod", force=True)
    assert refused.value.code == "version.ended"
    assert three.versions.undeprecate("m:2")
    assert three.versions.promote("m:2", to="prod").is_new


# ---- approvals -----------------------------------------------------------------------------------


def test_a_promotion_waits_for_somebody_else_and_then_happens_once(three, ann):
    three.guard()
    with pytest.raises(RefusedError) as refused:
        three.versions.promote("m:2", to="prod")
    assert refused.value.code == "approval.needed"
    assert three.alias() is None
    three.agreed(ann)
    assert three.versions.promote("m:2", to="prod").version == 2
    assert three.alias().version == 2
    assert [each.used for each in three.keep.opened.state.rows(Approval)] == [True]


def test_an_approval_is_of_one_version_from_one_version(three, ann):
    three.versions.alias("m:prod", 1)
    three.guard()
    with pytest.raises(RefusedError):
        three.versions.promote("m:2", to="prod")
    three.agreed(ann)
    with pytest.raises(RefusedError):
        three.versions.promote("m:3", to="prod")
    record(three.keep.opened, "alias.set", {"model": "m", "alias": "prod", "version": 3})
    with pytest.raises(RefusedError):  # it was agreed to leave version 1, not version 3
        three.versions.promote("m:2", to="prod")


def test_alias_is_no_way_around(three, ann):
    three.guard()
    for version in (1, 2):
        with pytest.raises(RefusedError) as refused:
            three.versions.alias("m:prod", version)
        assert refused.value.code == "approval.needed"
    assert three.alias() is None
    rows = three.keep.opened.state.rows(Approval)
    three.keep.access.give_approval(rows[0].approval_id, ann)
    three.keep.access.give_approval(rows[1].approval_id, ann)
    assert three.versions.alias("m:prod", 1).version == 1
    assert not three.versions.alias("m:prod", 1).is_new
    with pytest.raises(RefusedError):  # what was agreed to began without an alias
        three.versions.alias("m:prod", 2)


def test_a_rollback_waits_for_nobody_unless_it_is_asked_for(three, ann):
    three.versions.alias("m:prod", 1)
    three.versions.alias("m:prod", 2)
    three.guard()
    assert three.versions.rollback("m:prod").version == 1
    three.guard("models.rollback")
    three.versions.promote("m:2", to="prod")
    with pytest.raises(RefusedError) as refused:
        three.versions.rollback("m:prod")
    assert refused.value.code == "approval.needed"
    three.agreed(ann)
    assert three.versions.rollback("m:prod").version == 1


def test_lifting_a_hold_and_retiring_can_need_approval(three, ann):
    three.versions.hold("m:1", note="case 7")
    three.guard("models.unhold", "models.remove")
    with pytest.raises(RefusedError):
        three.versions.unhold("m:1")
    three.agreed(ann)
    assert three.versions.unhold("m:1")
    three.wish(keep_last=2)
    with pytest.raises(RefusedError):
        three.versions.retire()
    assert three.there() == {("m", 1), ("m", 2), ("m", 3)}
    three.agreed(ann)
    assert three.versions.retire().versions == ("m:1",)


# ---- removal, holds, retention -------------------------------------------------------------------


def test_an_alias_whose_version_was_removed_by_force_is_gone_with_it(three):
    three.versions.promote("m:3", to="prod")
    three.versions.deprecate("m:3")
    three.upkeep.remove("m:3", force=True)
    assert three.alias() is None
    assert [each.status for each in three.keep.models()] == ["live", "live"]


def test_what_is_on_hold_is_not_removed_even_by_force_until_the_hold_is_lifted(three):
    three.versions.hold("m:2", note="case 7")
    for reference in ("m:2", "m"):
        with pytest.raises(RefusedError) as refused:
            three.upkeep.remove(reference, force=True)
        assert refused.value.code == "remove.held"
        assert "case 7" in refused.value.message
    assert three.versions.unhold("m:2")
    assert not three.versions.unhold("m:2")
    three.upkeep.remove("m:2")
    assert not three.keep.opened.state.rows(Hold)


def test_retention_takes_what_is_old_and_says_why_the_rest_stays(shop):
    for _ in range(7):
        shop.admit(base="m:1" if shop.made == 5 else "")  # m:6 was made from m:1
    for version in (3, 4, 6):
        shop.versions.promote(f"m:{version}", to="prod")
    shop.versions.hold("m:2")
    assert shop.versions.retire().versions == ()  # no wish
    shop.wish(keep_last=1)
    found = shop.versions.retire(dry_run=True)
    assert found.versions == ("m:3", "m:5")
    assert {each.version: each.reason for each in found.spared} == {
        "m:1": "m:6 was made from it",
        "m:2": "on hold",
        "m:4": "prod can go back to it",
        "m:6": "named by prod",
    }
    assert found.kept == 1
    assert shop.versions.retire() == found
    assert shop.kinds().count("model.removed") == 1
    assert not {("m", 3), ("m", 5)} & shop.there()
    assert shop.versions.rollback("m:prod").version == 4


def test_young_versions_and_other_names_stay(shop):
    for name in ("m", "m", "n", "n"):
        shop.admit(name)
    shop.wish(keep_last=1, keep_within_s=1e9)
    assert shop.versions.retire().versions == ()
    shop.wish(keep_last=1)
    assert shop.versions.retire("n").versions == ("n:1",)
    assert shop.there() == {("m", 1), ("m", 2), ("n", 2)}
    with pytest.raises(KeepError, match="there is no model nobody"):
        shop.versions.retire("nobody")


def test_the_end_of_a_deprecation_is_retirement_unless_somebody_still_points_there(three):
    for version in (2, 3):
        three.versions.deprecate(f"m:{version}", until="2000-01-01")
    three.versions.alias("m:old", 2)
    found = three.versions.retire()
    assert found.versions == ("m:3",)  # the newest, but at its end
    assert [each.reason for each in found.spared] == ["named by old"]


def test_retirement_and_prune_free_the_bytes(shop):
    for _ in range(3):
        shop.admit()
    shop.wish(keep_last=1)
    shop.versions.retire()
    report = shop.upkeep.prune(PrunePolicy(keep_last=1))
    assert report.dropped > 0
    assert sum(each.packs for each in report.stores) > 0


def test_a_start_of_the_service_passes_over_what_has_ended_or_refuses_it_by_name(three):
    three.versions.deprecate("m:1", until="2000-01-01")
    three.versions.deprecate("m:2", replaced_by="m:3")
    told = []
    opened, all_of_them = three.keep.opened, [("m", 1), ("m", 2), ("m", 3)]
    kept = still_served(opened, all_of_them, is_named=False, warn=told.append)
    assert kept == (("m", 2), ("m", 3))
    assert told == [*warnings_of(opened, "m", 1), "m:2 is deprecated; use m:3"]
    with pytest.raises(RefusedError) as refused:
        still_served(opened, all_of_them, is_named=True)
    assert refused.value.code == "version.ended"


# ---- lineage -------------------------------------------------------------------------------------


def test_a_lineage_goes_down_to_what_is_not_here_and_up_to_what_was_made(shop):
    shop.admit("base", base="llama:7")
    shop.admit("m", base="base:1")
    shop.admit("m", base="m:1")
    shop.admit("m", base="base:1")
    found = shop.versions.lineage("m:2")
    assert [(each.reference, each.gap, each.depth) for each in found.bases] == [
        ("m:1", "", 1),
        ("base:1", "", 2),
        ("llama:7", "unknown", 3),
    ]
    below = shop.versions.lineage("base").descendants
    assert [(each.reference, each.depth) for each in below] == [("m:1", 1), ("m:2", 2), ("m:3", 1)]
    shop.upkeep.remove("base:1")
    assert shop.versions.lineage("m:2").bases[-1].gap == "removed"


def test_a_lineage_that_is_a_circle_ends(shop):
    shop.admit("a", base="b:1")
    shop.admit("b", base="a:1")
    found = shop.versions.lineage("a:1")
    assert [(each.reference, each.gap) for each in found.bases] == [("b:1", ""), ("a:1", "cycle")]
    assert [each.reference for each in found.descendants] == ["b:1"]
    shop.versions.promote("a:1", to="prod")
    shop.wish(keep_last=1)
    assert shop.versions.retire().versions == ()


@pytest.mark.parametrize("text", ["m", "m:prod", "m:", ":1", "a:b:1", "M:1", "m:" + "9" * 40, ""])
def test_only_a_number_names_a_base_for_good(text):
    assert exact(text) is None


# ---- whatever the order --------------------------------------------------------------------------

ALIASES = ("prod", "next")


def command(shop, rng):
    """One thing that an operator might do."""
    name = rng.choice(("m", "n"))
    version = rng.randrange(1, 7)
    reference, alias = f"{name}:{version}", rng.choice(ALIASES)
    versions = shop.versions
    return rng.choice(
        [
            lambda: shop.admit(name, base=rng.choice(("", "m:1", reference))),
            lambda: versions.promote(reference, to=alias, force=rng.random() < 0.5),
            lambda: versions.promote(reference, to=alias),
            lambda: versions.alias(f"{name}:{alias}", version),
            lambda: versions.rollback(f"{name}:{alias}", to=rng.choice((0, 0, version))),
            lambda: versions.deprecate(reference, until=rng.choice(("", "2000-01-01"))),
            lambda: versions.undeprecate(reference),
            lambda: versions.hold(reference),
            lambda: versions.unhold(reference),
            lambda: shop.upkeep.remove(
                rng.choice((reference, reference, name)), force=rng.random() < 0.3
            ),
            lambda: versions.retire(*rng.choice(((), (), (name,)))),
        ]
    )


def demand_sound(shop, before, held, named, is_retire):
    there = shop.there()
    rows = shop.keep.opened.state.rows
    for row in rows(Alias):
        assert (row.model, row.version) in there, row
    assert {(row.model, row.version) for row in rows(Hold)} <= there
    gone = before - there
    assert not gone & held
    if is_retire:
        assert not gone & named


@pytest.mark.verify("versions")
def test_no_alias_names_what_is_gone_and_nothing_held_or_named_is_retired(shop, count):
    image = shop.scene.image()
    shop.keep.close()
    retired = removed = 0
    statuses = set()
    for seed in range(count(6, full=300)):
        rng = random.Random(seed)  # noqa: S311 - it chooses what happens, no key
        shop.scene.show(image)
        with shop.scene.open() as keep:
            here = Shop(shop.scene, keep)
            here.wish(keep_last=rng.randrange(3), keep_rollbacks=rng.randrange(3))
            for name in ("m", "m", "n"):
                here.admit(name)
            for _ in range(40):
                before, rows = here.there(), keep.opened.state.rows
                held = {(row.model, row.version) for row in rows(Hold)}
                named = {(row.model, row.version) for row in rows(Alias)}
                act = command(here, rng)
                is_retire = "retire" in act.__code__.co_names
                try:
                    act()
                except KeepError as error:
                    statuses.add(error.exit_status)
                demand_sound(here, before, held, named, is_retire)
                went = bool(before - here.there())
                retired += went and is_retire
                removed += went and not is_retire
    assert retired
    assert removed
    assert statuses <= {2, 3, 5}
