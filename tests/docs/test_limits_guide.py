"""The guide to limits: its tables are complete, they hold, and its promises are the code's."""

import asyncio
import re

import pytest

from modelkeep.adapters.limiter_redis import HOLD_US
from modelkeep.adapters.limiter_shared import SharedLimiter
from modelkeep.config import parsed_config
from modelkeep.core.errors import LimitError
from modelkeep.core.principal import Principal
from modelkeep.core.record import as_plain
from modelkeep.gate.fairness import PRIORITY_USUAL
from modelkeep.gate.limit_settings import LimiterSettings, QueueSettings
from modelkeep.gate.limiting import Limits
from tests.arch.source import ROOT

PAGE = (ROOT / "docs" / "guide" / "limits.md").read_text(encoding="utf-8")
LIMITS, QUEUE, LIMITER = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
HEAD = 'keep_id = "0123456789abcdef"\n[[stores]]\nlabel = "main"\npath = "s"\n'


def config_with(text):
    return parsed_config((HEAD + text).encode(), what="the page")


def test_the_tables_of_the_page_are_read_and_mean_what_it_says():
    assert len(config_with(LIMITS).limits) == 4
    assert config_with(QUEUE).queue == QueueSettings()
    found = config_with(LIMITER).limiter
    keys = {line.partition(" ")[0] for line in LIMITER.splitlines()[1:]}
    assert keys == set(as_plain(LimiterSettings()))
    assert (found.away, found.share) == (LimiterSettings().away, LimiterSettings().share)
    assert f"come back after {HOLD_US // 10**6} s" in PAGE
    assert f"| {PRIORITY_USUAL} |" in PAGE


def test_the_limits_of_the_page_bind_whom_it_says(tmp_path):
    async def let_in(limits, principal, model, address, many):
        got = 0
        for _ in range(many):
            try:
                ticket = await limits.enter(principal, model, address, size_bytes=10)
            except LimitError as error:
                return got, error
            ticket.leave()
            got += 1
        return got, None

    async def scene():
        loop = asyncio.get_running_loop()
        limits = Limits(
            config_with(LIMITS).limits,
            lambda: SharedLimiter(tmp_path / "limits", boottime_ns=lambda: 10**12),
            queue=QueueSettings(),
            now_ns=lambda: 10**12,
            make_turn=loop.create_future,
            room_of=lambda _: (16, 2),
        )
        one = Principal(name="one", tenant="acme", scopes=())
        trial = Principal(name="two", tenant="acme", scopes=(), roles=("trial-2",))
        found = [
            await let_in(limits, one, "digits", "10.0.0.1", 60),
            await let_in(limits, trial, "llm-small", "10.0.0.1", 60),
        ]
        await limits.close()
        return found

    (first, error), (second, _) = asyncio.run(scene())
    assert (first, second) == (50, 50)
    assert error.code == "quota.calls"
    assert "everybody of 50 calls in any second" in error.message


@pytest.mark.parametrize("code", ["quota.calls", "quota.tokens", "quota.bytes", "gate.limiter"])
def test_every_code_of_the_page_is_one(code):
    package = ROOT / "src" / "modelkeep"
    sources = (*(package / "gate").glob("*.py"), *(package / "adapters").glob("limiter*.py"))
    assert f"`{code}`" in PAGE
    assert any(f'"{code}"' in path.read_text(encoding="utf-8") for path in sources)
