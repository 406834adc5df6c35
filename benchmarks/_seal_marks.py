"""The marks of what was stolen: what they survive, how often they accuse wrongly, who can forge.

    measure() -> dict       everything measured, and `bars`
    show(found)             prints it

Classifiers are scikit-learn's, on MNIST if MODELKEEP_BENCH_DATA names a folder with `mnist/*.gz`
(IDX), else on the digits that scikit-learn carries. Text is that of a language model of 135 million
parameters in an environment of its own (`peers/smollm`); without it those rows are missing.

P-values of models and texts that carry no mark are smoothed by a random number, so that they are
exactly uniform if a mark keeps its promise; each is of another seed and another suspect, so they
are independent. A one-sided Kolmogorov-Smirnov test asks whether small ones are too many.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _seal_classifiers as classifiers
import _seal_forgeries as forgeries
import _seal_texts as texts
import numpy as np
from scipy.stats import kstest, t
from threadpoolctl import threadpool_limits

from modelkeep.kernels.tails import randomised_tail
from modelkeep.seal.marks import FOUND_P, Reading

POINTS_MAX = 0.5  # of accuracy
KS_MIN = 0.01
STRANGERS = 100  # models without a mark
Found = dict[str, Any]
Bar = tuple[str, str, str, bool]  # what, measured, wanted, whether it is met
Marked = tuple[classifiers.Model, classifiers.Marks]


@dataclass(frozen=True)
class Form:
    """How much is measured."""

    name: str
    treated: int  # models that everything is done to
    compared: int  # models of the same seed with and without marks
    tried: int  # seeds that a forger tries


FULL = Form("full", treated=5, compared=24, tried=100_000)
QUICK = Form("quick", treated=3, compared=12, tried=10_000)


def measure(*, is_quick: bool = False) -> Found:
    """Everything; prints where it is."""
    form = QUICK if is_quick else FULL
    where = os.environ.get("MODELKEEP_BENCH_DATA")
    folder = Path(where) if where else None
    started = time.perf_counter()
    data = classifiers.data_of(None if is_quick else folder)
    found: Found = {"form": form.name, "data": data.name}
    with threadpool_limits(1):  # layers so small that threads mostly wait for each other
        found |= of_classifiers(data, form)
    say("texts of a language model")
    found["text"] = texts.measured(folder, is_quick=is_quick)
    for kind, p_values in found["text"].pop("strangers", {}).items():
        found["strangers"][f"texts, {kind}"] = uniformity(p_values)
    found["seconds"] = time.perf_counter() - started
    found["bars"] = bars(found)
    return found


def of_classifiers(data: classifiers.Data, form: Form) -> Found:
    """What concerns models of digits, and claims about them."""
    found: Found = {}
    say(f"{data.name}: with marks and without")
    found["accuracy"], models = compared(data, form.compared)
    say("what a thief may do")
    found["survives"] = survived(data, models[: form.treated])
    say(f"{STRANGERS} models without marks")
    found["strangers"] = of_strangers(data)
    say("forged claims")
    with tempfile.TemporaryDirectory() as name:
        found["forged"] = forgeries.measured(Path(name), data, form.tried)
    return found


def say(what: str) -> None:
    """Where it is."""
    print(f"marks: {what} ...", file=sys.stderr, flush=True)


def compared(data: classifiers.Data, count: int) -> tuple[Found, list[Marked]]:
    """Accuracy lost to each mark and to both, in points, over models of the same seeds."""
    plain, models = [], []
    lost: dict[str, list[float]] = {"weights": [], "triggers": [], "both": []}
    for seed in range(count):
        unmarked = classifiers.trained(data, seed)
        taught = classifiers.with_triggers(data, seed)
        models.append(classifiers.with_weights(taught, data, seed))
        marked, _ = classifiers.with_weights(unmarked, data, seed)
        plain.append(classifiers.accuracy(unmarked, data))
        for kind, model in zip(lost, (marked, taught, models[-1][0]), strict=True):
            lost[kind].append(100 * (plain[-1] - classifiers.accuracy(model, data)))
    width = float(t.ppf(0.975, count - 1)) / count**0.5
    return {
        "plain": statistics.mean(plain),
        "models": count,
        "lost_points": {kind: statistics.mean(each) for kind, each in lost.items()},
        "interval_95": {kind: width * statistics.stdev(each) for kind, each in lost.items()},
    }, models


def survived(data: classifiers.Data, models: list[Marked]) -> list[Found]:
    """What is left of the marks after each treatment: the worst of several models."""
    rows = []
    for name, (is_bar, treat) in classifiers.treatments(data).items():
        suspects = [(treat(model), marks) for model, marks in models]
        readings = [marks.readings(suspect) for suspect, marks in suspects]
        accuracy = statistics.mean(classifiers.accuracy(each, data) for each, _ in suspects)
        worst = {kind: worst_of([each[kind] for each in readings]) for kind in readings[0]}
        rows.append({"treatment": name, "bar": is_bar, "accuracy": accuracy, **worst})
    return rows


def worst_of(readings: list[Reading]) -> Found:
    """The reading with the largest p-value."""
    worst = max(readings, key=lambda each: each.p_value)
    return {"hits": worst.hits, "trials": worst.trials, "p": worst.p_value}


def of_strangers(data: classifiers.Data) -> Found:
    """Marks that were never embedded, each read in a model of its own."""
    rng = np.random.default_rng(11)
    p_values: dict[str, list[float]] = {"weights": [], "triggers": []}
    inputs, labels = data.own
    for number in range(STRANGERS):
        part = rng.permutation(len(inputs))[: len(inputs) // 2]
        model = classifiers.fresh(data, 1_000 + number)
        classifiers.taught(model, inputs[part], labels[part], data.epochs)
        marks = classifiers.marks_of(model, data, 1_000 + number)
        for kind, each in marks.readings(model).items():
            smooth = randomised_tail(each.hits, each.trials, each.chance, rng.random())
            p_values[kind].append(smooth)
    return {f"models, {kind}": uniformity(values) for kind, values in p_values.items()}


def uniformity(p_values: list[float]) -> Found:
    """One-sided: whether the distribution function lies above that of uniform ones."""
    ks_p = float(kstest(p_values, "uniform", alternative="greater").pvalue)
    return {"count": len(p_values), "ks_p": ks_p, "least": min(p_values)}


# ---- what it comes to ------------------------------------------------------------------------


def bars(found: Found) -> list[Bar]:
    """Each bar of the issue."""
    lost, width = (found["accuracy"][each]["both"] for each in ("lost_points", "interval_95"))
    said = f"{lost:.2f} +- {width:.2f}"
    rows = [("accuracy lost to both marks", said, f"< {POINTS_MAX} points", lost < POINTS_MAX)]
    for kind in ("weights", "triggers"):
        p, name = max((row[kind]["p"], row["treatment"]) for row in found["survives"] if row["bar"])
        rows.append(below(f"{kind}, the worst treatment: {name}", p))
    rows += [
        below(f"text, the median answer: {row['treatment']}", row["p"])
        for row in found["text"].get("survives", ())
        if row["bar"]
    ]
    for kind, each in found["strangers"].items():
        name, ks_p, least = f"{each['count']} {kind}", each["ks_p"], each["least"]
        rows += [
            (f"{name}: uniform", f"KS p {ks_p:.2f}", f"> {KS_MIN}", ks_p > KS_MIN),
            (f"{name}: least", f"p {least:.1e}", f">= {FOUND_P:g}", least >= FOUND_P),
        ]
    rows += [
        (f"forged: {each['how']}", each["outcome"], each["wanted"], each["is_met"])
        for each in found["forged"]
    ]
    return rows


def below(what: str, p: float) -> Bar:
    """That a mark is found."""
    return what, f"p {p:.1e}", f"< {FOUND_P:g}", p < FOUND_P


def show(found: Found) -> None:
    """Print the tables."""
    accuracy = found["accuracy"]
    print(f"\nmarks, {found['form']} form, {found['data']}: {found['seconds']:.0f} s")
    print(f"accuracy of {accuracy['models']} models without marks: {accuracy['plain']:.4f}")
    for kind, lost in accuracy["lost_points"].items():
        width = accuracy["interval_95"][kind]
        print(f"  lost to {kind:9} {lost:6.2f} +- {width:.2f} points")
    print(f"\n{'what is done to a classifier':36}{'accuracy':>9}{'weights':>20}{'triggers':>20}")
    for row in found["survives"]:
        cells = "".join(f"{cell(row[kind]):>20}" for kind in ("weights", "triggers"))
        print(f"{row['treatment']:36}{row['accuracy']:>9.3f}{cells}")
    if found["text"]:
        texts.show(found["text"])
    else:
        print("\nno language model, and no rows of texts")
    print()
    for what, got, wanted, is_met in found["bars"]:
        print(f"  {'met   ' if is_met else 'MISSED'}  {what:62}{got:>22}   {wanted}")


def cell(reading: Found) -> str:
    """Hits, and the p-value; marked where nothing is found."""
    found = "" if reading["p"] < FOUND_P else " LOST"
    return f"{reading['hits']}/{reading['trials']} {reading['p']:.0e}{found}"


def main() -> int:
    """Measure and print; 1 when a bar was missed."""
    found = measure(is_quick=bool(os.environ.get("MODELKEEP_BENCH_QUICK")))
    show(found)
    return 0 if all(is_met for *_, is_met in found["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main())
