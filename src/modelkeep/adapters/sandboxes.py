"""Which sandbox this system has."""

from __future__ import annotations

import sys

from modelkeep.ports.sandbox import Sandbox


def this_sandbox() -> Sandbox:
    """What this system can take from a process."""
    if sys.platform != "linux":
        from modelkeep.adapters.sandbox_bare import BareSandbox  # noqa: PLC0415 - only there

        return BareSandbox()
    from modelkeep.adapters.sandbox_linux import LinuxSandbox  # noqa: PLC0415 - as above

    return LinuxSandbox()
