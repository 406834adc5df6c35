"""Estimators out of pickles, compressed or not, by joblib: in a process that is locked in only."""

from __future__ import annotations

from typing import Any

import joblib


def pickled_estimator(path: str) -> Any:
    """What a pickle holds; unpickling it runs whatever it says."""
    return joblib.load(path)
