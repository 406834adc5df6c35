"""What an estimator of scikit-learn says, in the order in which its ONNX form says it.

Of a classifier its labels, then its probabilities or decision scores; of what finds clusters its
labels and its distances; of a regressor its prediction; of what transforms its features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn.base

from modelkeep.kernels.arrays import Array


def has_probabilities(model: Any) -> bool | None:
    """Whether a classifier tells probabilities beside its labels; None of what is no classifier."""
    if not sklearn.base.is_classifier(model):
        return None
    return hasattr(model, "predict_proba")


def estimated(model: Any, rows: Array) -> list[Array]:
    """Its answers."""
    if has_probabilities(model):
        return [model.predict(rows), model.predict_proba(rows)]
    if has_probabilities(model) is not None:
        scores = model.decision_function(rows)
        pair = np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores
        return [model.predict(rows), pair]
    if hasattr(model, "predict") and hasattr(model, "transform"):
        return [model.predict(rows), model.transform(rows)]
    return [np.asarray(model.predict(rows) if hasattr(model, "predict") else model.transform(rows))]
