"""SavedModels, and functions of TensorFlow with the form of what they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from modelkeep.core.artifact import Port
from modelkeep.core.errors import UsageError
from modelkeep.kernels.arrays import NUMPY_BY_DTYPE, Array

_SERVING = "serving_default"
_DTYPES = {dtype.name: name for name, dtype in NUMPY_BY_DTYPE.items()}
Answer = Callable[[Mapping[str, Array]], list[Array]]


def saved_model(path: str) -> tuple[Callable[..., Any], list[Any], list[str]]:
    """The signature `serving_default`, or the only one: a function, its inputs, what it gives.

    Raises:
        UsageError: `conversion.inputs`.
    """
    model = tf.saved_model.load(path)  # it has to live on: a signature does not hold its numbers
    if _SERVING not in model.signatures and len(model.signatures) != 1:
        raise UsageError("conversion.inputs", f"the SavedModel has no signature {_SERVING!r}")
    called = _SERVING if _SERVING in model.signatures else next(iter(model.signatures))
    signature = model.signatures[called]
    named = signature.structured_input_signature[1]

    def said(*given: Any) -> Any:
        given_by_name = dict(zip(named, given, strict=True))
        return tf.nest.flatten(model.signatures[called](**given_by_name))

    forms = [tf.TensorSpec(each.shape, each.dtype, name=name) for name, each in named.items()]
    return said, forms, sorted(signature.structured_outputs)


def compiled(
    said: Callable[..., Any], inputs: Sequence[Any]
) -> tuple[Any, list[Any], tuple[Port, ...], Answer]:
    """A function as TensorFlow traces it, the forms it takes, and how it answers.

    Raises:
        UsageError: `conversion.inputs`.
    """
    forms = [tf.TensorSpec(each.shape, each.dtype, name=each.name) for each in inputs]
    ports = tuple(_port(each) for each in forms)
    traced = tf.function(said, autograph=False)

    def answer(given: Mapping[str, Array]) -> list[Array]:
        return [each.numpy() for each in traced(*[tf.constant(given[port.name]) for port in ports])]

    return traced, forms, ports, answer


def _port(form: Any) -> Port:
    if form.shape.rank is None:
        text = f"input {form.name} may have any number of dimensions"
        raise UsageError("conversion.inputs", text)
    shape = tuple(-1 if size is None else int(size) for size in form.shape)
    return Port(name=form.name, dtype=_DTYPES.get(form.dtype.name, form.dtype.name), shape=shape)
