"""Fitted models of real libraries, each by a name: what honest pickles look like.

Used by the tests that no honest model is held, and by scripts/harmless_names.py. A maker raises
where its library is missing or too old.
"""
# ruff: noqa: PLC0415, E501, DTZ001, S106 - libraries that may be missing; lists of objects

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

_RANDOM = np.random.default_rng(7)
POINTS = np.abs(_RANDOM.normal(size=(40, 4))) + 0.1
CLASSES = np.array([0, 1] * 20)
VALUES = POINTS @ np.array([1.0, 2.0, 0.5, 1.5]) + 0.1
TEXTS = ["a cat sat", "a dog ran", "cats and dogs", "the end of it"] * 10


def estimators() -> Mapping[str, Callable[[], Any]]:
    """Every estimator of scikit-learn, as a maker of a fitted one."""
    from sklearn.utils import all_estimators

    return {f"sklearn {name}": _fitting(name, kind) for name, kind in all_estimators()}


def _fitting(name: str, kind: type) -> Callable[[], Any]:
    def make() -> Any:
        model = _made(name, kind)
        wide = np.column_stack([CLASSES, 1 - CLASSES])
        ways: tuple[Callable[[], Any], ...] = (
            lambda: model.fit(POINTS, CLASSES),
            lambda: model.fit(POINTS, VALUES),
            lambda: model.fit(POINTS, wide),
            lambda: model.fit(POINTS, np.column_stack([VALUES, VALUES])),
            lambda: model.fit(POINTS[:, 0], VALUES),
            lambda: model.fit(POINTS),
            lambda: model.fit(TEXTS),
            lambda: model.fit([{"a": 1, "b": 2.0}, {"a": 3}]),
            lambda: model.fit([("a", "b"), ("c",)]),
            lambda: model.fit(["a", "b", "a"]),
            lambda: model.fit(POINTS @ POINTS.T),
            lambda: model.fit(CLASSES),
        )
        error: Exception | None = None
        for way in ways:
            try:
                way()
            except Exception as raised:  # noqa: BLE001 - another estimator, other data
                error = error or raised
            else:
                return model
        raise error or AssertionError(name)

    return make


def _made(name: str, kind: type) -> Any:
    """An instance with the arguments that it cannot be made without."""
    from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
    from sklearn.preprocessing import StandardScaler

    regresses = "Regressor" in name or "Regression" in name
    base = Ridge() if regresses else LogisticRegression()
    wanted: dict[str, Any] = {
        "estimator": base,
        "base_estimator": base,
        "estimators": [("a", base), ("b", LinearRegression() if regresses else base)],
        "steps": [("scale", StandardScaler()), ("model", base)],
        "transformers": [("scale", StandardScaler(), [0, 1]), ("rest", "passthrough", [2, 3])],
        "transformer_list": [("scale", StandardScaler()), ("again", StandardScaler())],
        "param_grid": {"C": [1.0, 2.0]} if not regresses else {"alpha": [1.0, 2.0]},
        "param_distributions": {"C": [1.0, 2.0]},
        "dictionary": np.eye(4),
    }
    if name == "FunctionTransformer":
        return kind(func=np.log1p, inverse_func=np.expm1)
    if name.endswith("RandomProjection"):
        return kind(n_components=2)
    if name == "FrozenEstimator":
        return kind(base.fit(POINTS, CLASSES))
    if name == "SelfTrainingClassifier":
        return kind(base)
    if name == "MultiOutputRegressor":
        wanted["estimator"] = Ridge()
    given = inspect.signature(kind).parameters
    missing = {
        key: wanted[key]
        for key, each in given.items()
        if each.default is inspect.Parameter.empty and key in wanted
    }
    return kind(**missing)


# ---- more of scikit-learn ---------------------------------------------------------------------


def _boosted_losses() -> Any:
    from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor

    old = [
        GradientBoostingRegressor(loss=loss, n_estimators=2).fit(POINTS, VALUES)
        for loss in ("squared_error", "absolute_error", "huber", "quantile")
    ]
    new = [
        HistGradientBoostingRegressor(loss=loss, max_iter=2, quantile=0.5).fit(POINTS, VALUES)
        for loss in ("squared_error", "absolute_error", "poisson", "gamma", "quantile")
    ]
    return old + new


def _multiclass() -> Any:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression, SGDClassifier
    from sklearn.svm import SVC

    y = np.arange(40) % 3
    return [
        GradientBoostingClassifier(n_estimators=2).fit(POINTS, y),
        GradientBoostingClassifier(n_estimators=2, loss="exponential").fit(POINTS, CLASSES),
        HistGradientBoostingClassifier(max_iter=2).fit(POINTS, y),
        CalibratedClassifierCV(LogisticRegression(), method="isotonic", cv=2).fit(POINTS, y),
        SVC(probability=False).fit(POINTS, y),
        *(
            SGDClassifier(loss=loss).fit(POINTS, y)
            for loss in ("hinge", "log_loss", "modified_huber", "squared_hinge", "perceptron",
                         "huber", "epsilon_insensitive", "squared_epsilon_insensitive")
        ),
    ]  # fmt: skip


def _kernels() -> Any:
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels

    both = kernels.ConstantKernel() * kernels.RBF() + kernels.WhiteKernel()
    every = (both, kernels.Matern(), kernels.RationalQuadratic(), kernels.DotProduct() ** 2,
             kernels.ExpSineSquared() + kernels.WhiteKernel(10.0), kernels.PairwiseKernel())  # fmt: skip
    return [
        GaussianProcessRegressor(kernel=each, optimizer=None).fit(POINTS, VALUES) for each in every
    ]


def _neighbours() -> Any:
    from sklearn.neighbors import BallTree, KDTree, KernelDensity, KNeighborsClassifier

    metrics = ("euclidean", "manhattan", "chebyshev", "minkowski")
    return [
        *(KNeighborsClassifier(metric=each, algorithm=algorithm).fit(POINTS, CLASSES)
          for each in metrics for algorithm in ("ball_tree", "kd_tree", "brute")),
        BallTree(POINTS, metric="canberra"), KDTree(POINTS), KernelDensity().fit(POINTS),
        BallTree(POINTS.astype(np.float32)), KDTree(POINTS.astype(np.float32)),
        BallTree(POINTS[:, :2], metric="haversine"),
        BallTree(POINTS > 1, metric="hamming"), BallTree(POINTS > 1, metric="jaccard"),
    ]  # fmt: skip


def _pipelines() -> Any:
    from sklearn.compose import ColumnTransformer, make_column_selector
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import make_scorer, mean_squared_error
    from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, TimeSeriesSplit
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), [0, 1]),
            ("kinds", OneHotEncoder(handle_unknown="ignore"), [2]),
            ("slice", "drop", slice(3, 4)),
            ("chosen", StandardScaler(), make_column_selector(pattern="x")),
        ]
    )
    del columns.transformers[3]
    search = GridSearchCV(
        LogisticRegression(), {"C": [1, 2]}, cv=StratifiedKFold(2), scoring="accuracy"
    )
    text = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression())
    steps = make_pipeline(FunctionTransformer(np.log1p), columns, LogisticRegression())
    return [
        steps.fit(POINTS, CLASSES), search.fit(POINTS, CLASSES), text.fit(TEXTS, CLASSES),
        CountVectorizer(dtype=np.float32, token_pattern=r"\w+").fit(TEXTS), KFold(3),
        TimeSeriesSplit(), make_scorer(mean_squared_error, greater_is_better=False),
        make_column_selector(dtype_include=np.number),
        *(FunctionTransformer(each) for each in (np.sqrt, np.exp, np.abs, np.nan_to_num)),
    ]  # fmt: skip


def _bunch() -> Any:
    from sklearn.datasets import load_iris

    return load_iris()


# ---- other libraries --------------------------------------------------------------------------


def _arrays() -> Any:
    kinds = ("f2", "f4", "f8", "i1", "i8", "u4", "?", "c8", "c16", "U3", "S4", "M8[D]", "m8[ns]")
    table = np.zeros(3, dtype=[("a", "f4"), ("b", "U5"), ("c", "i8", (2,))])
    return {
        "kinds": [np.zeros((2, 3), kind) for kind in kinds],
        "objects": np.array([{"a": 1}, None, "x"], dtype=object),
        "fortran": np.asfortranarray(np.ones((3, 4))),
        "table": table,
        "record": table.view(np.recarray),
        "scalars": [np.float64(1), np.int32(2), np.str_("x"), np.bool_(1), np.datetime64("2020")],
        "masked": np.ma.masked_array([1, 2], mask=[0, 1]),
        "matrix": np.asmatrix(np.eye(2)),
        "random": [np.random.RandomState(1), np.random.default_rng(1), np.random.SeedSequence(3),
                   np.random.Generator(np.random.Philox(1)), np.random.Generator(np.random.SFC64(1)),
                   np.random.Generator(np.random.PCG64DXSM(1))],
        "types": [np.float32, np.dtype("f4"), np.int64, float, int, str, type(None)],
        "polynomial": [np.poly1d([1, 2]), np.polynomial.Polynomial([1, 2, 3])],
    }  # fmt: skip


def _sparse() -> Any:
    from scipy import interpolate, sparse, spatial

    points = np.linspace(0, 1, 9)
    kinds = ("csr", "csc", "coo", "bsr", "dia", "dok", "lil")
    return [
        *(getattr(sparse, f"{each}_matrix")(np.eye(3)) for each in kinds),
        *(getattr(sparse, f"{each}_array")(np.eye(3)) for each in kinds),
        spatial.cKDTree(POINTS),
        spatial.KDTree(POINTS),
        interpolate.interp1d(points, points),
        interpolate.CubicSpline(points, points),
        interpolate.BSpline(points, points[:5], 3),
        interpolate.UnivariateSpline(points, points),
        interpolate.RegularGridInterpolator((points, points), np.ones((9, 9))),
    ]


def _distributions() -> Any:
    from scipy import stats

    return [
        stats.uniform(0, 1), stats.norm(), stats.randint(1, 5), stats.loguniform(1e-3, 1),
        stats.beta(1, 2), stats.expon(scale=2), stats.truncnorm(0, 1), stats.genhyperbolic(1, 2, 1),
    ]  # fmt: skip


def _frames() -> Any:
    import pandas as pd

    when = pd.date_range("2020-01-01", periods=3, tz="UTC")
    frame = pd.DataFrame(
        {
            "a": [1, 2, 3], "b": [1.5, None, 2.5], "c": ["x", "y", None],
            "d": pd.Categorical(["p", "q", "p"]), "e": when, "f": pd.array([1, None, 3], "Int64"),
            "g": pd.array([True, None, False], "boolean"), "h": pd.array(["a", None, "b"], "string"),
            "i": pd.to_timedelta([1, 2, 3], unit="s"), "j": pd.period_range("2020", periods=3, freq="D"),
            "k": pd.arrays.SparseArray([0, 0, 1]), "l": pd.interval_range(0, 3),
            "m": pd.array([1.5, None, 2.5], "Float64"), "n": pd.date_range("2020", periods=3),
        }
    )  # fmt: skip
    return [
        frame, frame["a"], frame.set_index(["a", "c"]), frame.T, pd.Timestamp("2020"),
        pd.Timedelta("1s"), pd.NaT, pd.NA, pd.Index(["a", "b"]), pd.RangeIndex(3),
        pd.Index([1, 2]), pd.Index([1.5]), pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]),
        frame.dtypes, pd.Period("2020"), pd.Interval(0, 1), pd.offsets.Day(2),
        pd.offsets.MonthEnd(), pd.offsets.BDay(), pd.CategoricalIndex(["a"]), when.tz,
        pd.Series([1, 2], name="x").rolling(2).mean(),
    ]  # fmt: skip


def _plain() -> Any:
    import argparse
    import collections
    import datetime
    import decimal
    import fractions
    import functools
    import pathlib
    import re
    import types
    import uuid

    zone = datetime.timezone(datetime.timedelta(hours=1), "X")
    return [
        collections.OrderedDict(a=1), collections.defaultdict(list, a=[1]),
        collections.Counter("aab"), collections.deque([1, 2], 5), datetime.datetime(2020, 1, 1),
        datetime.date(2020, 1, 1), datetime.timedelta(1), datetime.datetime(2020, 1, 1, tzinfo=zone),
        decimal.Decimal("1.5"), fractions.Fraction(1, 3), uuid.UUID(int=7), {1, 2}, frozenset("ab"),
        pathlib.PurePosixPath("a/b"), re.compile("a+b", re.IGNORECASE), range(3), slice(1, 2), 1j,
        b"bytes", bytearray(b"abc"), argparse.Namespace(a=1), types.SimpleNamespace(a=1), type(None),
        functools.partial(np.clip, a_min=0, a_max=1), NotImplemented, Ellipsis, int, dict,
        collections.defaultdict(int, a=1), 2**80, -5, True, None, "text",
    ]  # fmt: skip


def _xgboost() -> Any:
    import xgboost as xgb

    y3 = np.arange(40) % 3
    return [
        xgb.XGBClassifier(n_estimators=2).fit(POINTS, CLASSES),
        xgb.XGBClassifier(n_estimators=2, objective="multi:softprob").fit(POINTS, y3),
        xgb.XGBRegressor(n_estimators=2).fit(POINTS, VALUES),
        xgb.XGBRFClassifier(n_estimators=2).fit(POINTS, CLASSES),
        xgb.XGBRanker(n_estimators=2).fit(POINTS, CLASSES, qid=np.arange(40) // 10),
        xgb.train({}, xgb.DMatrix(POINTS, VALUES), 2),
    ]


def _lightgbm() -> Any:
    import lightgbm as lgb

    quiet = {"n_estimators": 2, "verbose": -1, "min_child_samples": 2}
    y3 = np.arange(40) % 3
    return [
        lgb.LGBMClassifier(**quiet).fit(POINTS, CLASSES),
        lgb.LGBMClassifier(**quiet).fit(POINTS, y3),
        lgb.LGBMRegressor(**quiet).fit(POINTS, VALUES),
        lgb.LGBMRanker(**quiet).fit(POINTS, CLASSES, group=[10] * 4),
        lgb.train({"verbose": -1}, lgb.Dataset(POINTS, VALUES), 2),
    ]


def _catboost() -> Any:
    import catboost

    quiet = {"iterations": 2, "verbose": False, "allow_writing_files": False}
    return [
        catboost.CatBoostClassifier(**quiet).fit(POINTS, CLASSES),
        catboost.CatBoostRegressor(**quiet).fit(POINTS, VALUES),
        catboost.CatBoost(quiet).fit(POINTS, VALUES),
    ]


def _torch_modules() -> Any:
    import torch
    from torch import nn

    layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True)
    return [
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(4, 2),
            nn.Softmax(dim=1),
        ),
        nn.LSTM(3, 4, 2), nn.GRU(3, 4), nn.RNN(3, 4), nn.Embedding(5, 3),
        nn.MultiheadAttention(8, 2), layer, nn.TransformerEncoder(layer, 2), nn.Transformer(8, 2, 1, 1),
        nn.LayerNorm(3), nn.GroupNorm(2, 4), nn.ModuleList([nn.GELU()]), nn.ModuleDict({"a": nn.Tanh()}),
        nn.ParameterList([nn.Parameter(torch.ones(2))]), nn.CrossEntropyLoss(),
        nn.utils.spectral_norm(nn.Linear(3, 3)),
        torch.optim.Adam([nn.Parameter(torch.ones(2))]), torch.ones(3), torch.nn.Parameter(torch.ones(2)),
        torch.utils.data.TensorDataset(torch.ones(3)), torch.device("cpu"), torch.float32,
        torch.Size([1, 2]), torch.ones(3).to_sparse(), torch.ones(2, dtype=torch.bfloat16),
        torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), torch.channels_last,
        torch.strided,
    ]  # fmt: skip


def _training_args() -> Any:
    from transformers import TrainingArguments

    return TrainingArguments(output_dir="out", use_cpu=True, report_to=[])


MODELS: Mapping[str, Callable[[], Any]] = {
    "numpy": _arrays,
    "plain": _plain,
    "scipy": _sparse,
    "distributions": _distributions,
    "pandas": _frames,
    "losses": _boosted_losses,
    "classes": _multiclass,
    "kernels": _kernels,
    "neighbours": _neighbours,
    "pipelines": _pipelines,
    "bunch": _bunch,
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
    "catboost": _catboost,
    "torch": _torch_modules,
    "training arguments": _training_args,
}
