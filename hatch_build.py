"""Build hook: a wheel with the kernels in C where there is a compiler, a pure one elsewhere."""

from __future__ import annotations

import runpy
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeKernels(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles `src/modelkeep/kernels/native` and says what kind of wheel that makes."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Build the library; without one the wheel is pure and runs its Python."""
        root = Path(self.root)
        build = runpy.run_path(str(root / "scripts" / "build_native.py"))
        library, reason = build["built"]()
        if library is None:
            self.app.display_warning(f"a pure wheel: {reason}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["artifacts"].append(library.relative_to(root).as_posix())
