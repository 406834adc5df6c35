"""Estimators out of the files of skops, whose types are named."""

from __future__ import annotations

from typing import Any

import skops.io

# A tree's indices are followed by scikit-learn without a check: what they reach is a process that
# is locked in, as with a pickled tree.
_TRUSTED = ("sklearn.tree._tree.Tree",)


def skops_estimator(path: str) -> Any:
    """What a file holds, if skops trusts its types, or we do."""
    return skops.io.load(path, trusted=[*_TRUSTED])
