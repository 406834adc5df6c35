"""Models out of `.keras` files, in Keras's safe mode, without what they were trained with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

# A function of as many tensors as there are inputs, the inputs, the names of what it gives.
Loaded = tuple[Callable[..., Any], list[Any], list[str]]


def keras_model(path: str) -> Loaded:
    """A model, whose inputs have names, shapes and types."""
    model = keras.saving.load_model(path, compile=False, safe_mode=True)

    def said(*given: Any) -> Any:
        return keras.tree.flatten(
            model(list(given) if len(given) > 1 else given[0], training=False)
        )

    names = getattr(model, "output_names", None) or [model.layers[-1].name]  # of a Sequential
    return said, list(model.inputs), list(names)
