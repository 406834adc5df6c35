"""What we depend on: declared, used, accounted for and locked."""

from __future__ import annotations

import re
from importlib.metadata import packages_distributions

from tests.arch.source import ROOT, STANDARD, imported, modules, pyproject


def distribution(requirement: str) -> str:
    """The normalised name of what a requirement asks for."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match
    return re.sub(r"[-_.]+", "-", match[0]).lower()


# Imported inside one adapter each, where the user has them: they come in builds for each machine,
# of gigabytes, and no lock of ours should choose one.
BROUGHT = {
    "gguf",
    "joblib",
    "keras",
    "ray",
    "skops",
    "tensorflow",
    "tf2onnx",
    "torch",
    "transformers",
}


def declared() -> set[str]:
    """What a user installs, extras included."""
    project = pyproject()["project"]
    extras = project["optional-dependencies"].values()
    return {distribution(each) for group in (project["dependencies"], *extras) for each in group}


def used() -> set[str]:
    """Distributions that the package imports, but for what it offers to writers of tests."""
    homes = packages_distributions()
    roots = {
        name.partition(".")[0]
        for module in modules()
        if not module.name.startswith("modelkeep.testing.")
        for name, _ in imported(module)
    }
    found: set[str] = set()
    for root in roots - STANDARD - {"modelkeep"}:
        # A namespace (azure, google) belongs to many: those that we declare are meant.
        owners = {distribution(home) for home in homes.get(root, [root])}
        found |= owners & declared() or owners
    return found


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    assert used() - BROUGHT == declared()


def test_every_dependency_is_accounted_for():
    page = (ROOT / "docs" / "decisions" / "dependencies.md").read_text(encoding="utf-8")
    tools = {distribution(each) for each in pyproject()["dependency-groups"]["dev"]}
    rows = re.findall(r"^\| `([^`]+)`", page, flags=re.MULTILINE)
    accounted = {distribution(each) for each in rows}
    assert accounted == declared() | tools | BROUGHT


def locked(name: str) -> dict[str, set[str]]:
    """What a lock holds: each distribution with its versions."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found: dict[str, set[str]] = {}
    for requirement, version in re.findall(r"^([^\s=]+)==(\S+)", text, flags=re.MULTILINE):
        found.setdefault(distribution(requirement), set()).add(version)
    return found


def test_the_locks_hold_what_is_declared_at_the_same_versions():
    runtime, developers = locked("requirements.lock"), locked("requirements-dev.lock")
    tools = {distribution(each) for each in pyproject()["dependency-groups"]["dev"]}
    needed = {distribution(each) for each in pyproject()["project"]["dependencies"]}
    assert needed <= set(runtime)
    assert declared() | tools <= set(developers)
    assert runtime == {name: developers.get(name) for name in runtime}


def test_the_locks_name_no_place():
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"https?:|file:|index-url|find-links|trusted-host|/[a-z]+/", text)
