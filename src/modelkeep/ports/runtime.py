"""What can answer: a loaded model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from modelkeep.kernels.arrays import Array


class Runtime(Protocol):
    """One loaded model in this process."""

    def answer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model once.

        Args:
            inputs: one array per input port, of its dtype and shape.

        Returns:
            One array per output port.

        Raises:
            UnavailableError: `runtime.failed`, when the model cannot compute on these inputs.
        """
        ...
