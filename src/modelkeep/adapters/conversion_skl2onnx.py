"""Estimators of scikit-learn into ONNX, by skl2onnx: those that take rows of numbers.

Inputs are 32 bits wide, which is what the ONNX model takes; the estimator is asked with the same
numbers, and computes 64 bits wide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import skl2onnx
from skl2onnx.common.data_types import FloatTensorType

from modelkeep.adapters.conversion_sklearn import estimated, has_probabilities
from modelkeep.core.artifact import Port
from modelkeep.core.errors import UsageError
from modelkeep.kernels.arrays import Array

# Later ones give operators whose runtime is younger than what people have.
OPSET = 18
INPUT = "x"
Answer = Callable[[Mapping[str, Array]], list[Array]]


def converted_estimator(model: Any) -> tuple[bytes, tuple[Port, ...], Answer]:
    """An estimator as ONNX, what it takes, and how it answers itself.

    Raises:
        UsageError: `conversion.inputs`.
        Exception: whatever the library raises of a model that it does not know.
    """
    many = getattr(model, "n_features_in_", None)
    if many is None or not int(many) > 0:
        raise UsageError("conversion.inputs", "the estimator does not take rows of numbers")
    form = [(INPUT, FloatTensorType([None, int(many)]))]
    tells = has_probabilities(model)
    wanted = {"zipmap": False} if tells else {"raw_scores": True}
    options = None if tells is None else {id(model): wanted}
    made = skl2onnx.to_onnx(model, initial_types=form, options=options, target_opset=OPSET)
    port = Port(name=INPUT, dtype="FP32", shape=(-1, int(many)))
    return (
        made.SerializeToString(),
        (port,),
        lambda inputs: estimated(model, inputs[INPUT].astype("f8")),
    )
