"""The catalogue holds every kind that the code records, and none that it does not."""

from __future__ import annotations

import ast
import re

import pytest

from modelkeep.core.errors import UsageError
from modelkeep.ledger.kinds import CATALOGUE, OWN_FAMILIES, checked_own_kind, kind_named
from tests.arch.source import ROOT, called_name, modules

FORM = re.compile(r"[a-z]+\.[a-z_]+")
# Functions that record, or that make what is recorded; the kind is among their first arguments.
RECORDERS = frozenset({"Entry", "record", "_record", "_fact", "_tell", "_recorded"})


def written_kinds():
    """Kinds in calls that record: literals, either side of a choice, and named constants."""
    ours = [each for each in modules() if not each.name.startswith("modelkeep.testing")]
    constants = {
        target.id: node.value.value
        for module in ours
        for node in module.tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.isupper()
    }
    found = {}
    for module in ours:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and called_name(node) in RECORDERS:
                given = [
                    *node.args[:3],
                    *(each.value for each in node.keywords if each.arg == "kind"),
                ]
                for text in texts(given, constants):
                    found.setdefault(text, module.name)
    return found


def texts(nodes, constants):
    for node in nodes:
        if isinstance(node, ast.IfExp):
            yield from texts([node.body, node.orelse], constants)
        value = constants.get(node.id) if isinstance(node, ast.Name) else getattr(node, "value", "")
        if isinstance(value, str) and FORM.fullmatch(value):
            yield value


def test_every_kind_that_is_written_is_in_the_catalogue():
    missing = {kind: where for kind, where in written_kinds().items() if kind not in CATALOGUE}
    assert not missing, "add them to modelkeep.ledger.kinds"


def test_every_kind_of_the_catalogue_is_written_somewhere():
    catalogue = ("modelkeep.ledger.kinds", "modelkeep.ledger.model_kinds")
    source = "\n".join(module.text for module in modules() if module.name not in catalogue)
    own = {f"{family}." for family in OWN_FAMILIES}
    assert not {kind for kind in CATALOGUE if kind not in own and f'"{kind}"' not in source}


def test_every_kind_is_on_the_reference_page():
    page = (ROOT / "docs" / "reference" / "kinds.md").read_text(encoding="utf-8")
    for kind in CATALOGUE.values():
        row = next(
            (line for line in page.splitlines() if line.startswith(f"| `{kind.name}` |")), ""
        )
        assert kind.meaning in row, kind.name
        assert all(f"`{fact}`" in row for fact in kind.facts), kind.name


def test_a_kind_says_what_it_means_in_a_sentence():
    for kind in CATALOGUE.values():
        assert kind.meaning[0].isupper() or kind.meaning.startswith("modelkeep"), kind.name
        assert kind.meaning.rstrip("`").endswith((".", "facts.")), kind.name


def test_families_of_outsiders_stand_for_all_that_begins_so():
    assert kind_named("note.audit.done").name == "note."
    assert kind_named("x.ci").name == "x."
    assert kind_named("no.such") is None


@pytest.mark.parametrize("kind", ["note.a", "x.ci.deployed", "note.a.b.c.d", "x.7"])
def test_outsiders_write_below_their_families(kind):
    assert checked_own_kind(kind) == kind


@pytest.mark.parametrize(
    "kind",
    ["", "note", "note.", "x", "token.created", "note.A", "note..a", "note.a.b.c.d.e", "xy.z",
     "note.a\n", "note." + "a" * 70, "note.é"],
)  # fmt: skip
def test_outsiders_write_nowhere_else(kind):
    with pytest.raises(UsageError, match=r"ledger\.kind"):
        checked_own_kind(kind)
