"""Limits only: what is left of a sandbox where the system offers nothing else (not Linux).

It says so: every other measure is off. Descriptors that were not granted are closed.
"""

from __future__ import annotations

import os
import resource
import sys

from modelkeep.core.errors import UnavailableError
from modelkeep.ports.sandbox import DESCRIPTORS, LIMITS, MEASURES, Grants, Limits, Measure

_FDS_MAX = 4096  # such a system starts processes with 256


class BareSandbox:
    """What POSIX alone can take from a process."""

    def enclose(self, grants: Grants) -> tuple[Measure, ...]:
        _demand(grants, ())
        return ()

    def lock_in(self, limits: Limits, grants: Grants) -> tuple[Measure, ...]:
        _demand(grants, (DESCRIPTORS, LIMITS))
        last = 2
        for fd in (*sorted(each for each in grants.descriptors if each > 2), _FDS_MAX):
            os.closerange(last + 1, fd)
            last = fd
        if limits.cpu_s:
            resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s + 1))
        for kind, bound in (
            (resource.RLIMIT_FSIZE, limits.file_bytes),
            (resource.RLIMIT_NOFILE, limits.descriptors),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(kind, (bound, bound))
        return self.explain(limits, grants)

    def explain(self, limits: Limits, grants: Grants) -> tuple[Measure, ...]:
        said = {
            DESCRIPTORS: f"{len(grants.descriptors)} kept",
            LIMITS: f"{limits.cpu_s} s of processor; memory is not bounded",
        }
        missing = f"not offered by this system ({sys.platform})"
        return tuple(
            Measure(name=name, is_on=name in said, why=said.get(name, missing)) for name in MEASURES
        )


def _demand(grants: Grants, offered: tuple[str, ...]) -> None:
    """Go on only if no more is demanded than there is.

    Raises:
        UnavailableError: `sandbox.demanded`.
    """
    missing = [each for each in grants.demanded if each not in offered and offered]
    if missing:
        raise UnavailableError(
            "sandbox.demanded", f"this system does not give {missing[0]!r} to a process"
        )
