"""What every test shares: how much it counts, and which tests wait to be asked for.

A test that gains from more examples takes the fixture `count` and the mark `verify("NAME")`:

    @pytest.mark.verify("power")
    def test_every_cut_leaves_a_keep_that_opens(count):
        for seed in range(count(20, full=2_000)): ...

`./run test` runs it with 20, `./run verify power` with 2,000 (and Hypothesis with its full
counts); `./run verify` prints the names.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

# A loaded two-core machine must not fail a property for its speed: no deadline, no health check
# of speed. `derandomize` stays off: examples vary, and a failing one is printed and replayed.
settings.register_profile(
    "usual", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("full", settings.get_profile("usual"), max_examples=5_000)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("modelkeep")
    group.addoption("--verify", metavar="NAME", help="only this long check, with its full counts")
    group.addoption("--online", action="store_true", help="also what needs a real service outside")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("full" if config.getoption("--verify") else "usual")


def _marked(item: pytest.Item) -> list[tuple[object, ...]]:
    return [mark.args for mark in item.iter_markers("verify")]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    name = config.getoption("--verify")
    if name:
        chosen = [item for item in items if (name,) in _marked(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen
    if not config.getoption("--online"):
        for item in items:
            if item.get_closest_marker("online"):
                item.add_marker(pytest.mark.skip(reason="needs a real service; run with --online"))


@pytest.fixture(scope="session")
def count(request: pytest.FixtureRequest) -> Callable[..., int]:
    """How often: `count(20, full=2_000)`."""
    full_run = bool(request.config.getoption("--verify"))

    def chosen(usual: int, *, full: int) -> int:
        return full if full_run else usual

    return chosen


@pytest.fixture(autouse=True)
def _no_configuration_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test must not find the keep of whoever runs it."""
    for name in [name for name in os.environ if name.startswith("MODELKEEP_")]:
        monkeypatch.delenv(name)
