"""Asking a model that was allowed one question, somewhere that it can do no harm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from modelkeep.core.artifact import CanaryTensor, Schema
from modelkeep.kernels.wire import Tensor
from modelkeep.ports.scanner import Unjudged


class Trial(Protocol):
    """Loads a model as a replica would, locked in as a replica is, and asks it once."""

    def answered(
        self, file: Unjudged, schema: Schema, inputs: Sequence[CanaryTensor]
    ) -> tuple[Tensor, ...]:
        """What the model gives for these inputs: one tensor for each of its outputs.

        Who answers had the model in it: what comes back is bounded and has the form of the schema,
        and nothing more is known of it.

        Raises:
            IntegrityError: `trial.failed`, when the model does not load, fails, ends its process
                or takes too long.
            UnavailableError: `trial.start`, when there is nobody to ask it, or when this machine
                does not lock in who would.
        """
        ...
