"""How bad a flaw is, as a word: the base score of CVSS 3.0 and 3.1 (FIRST, sections 7.1 and 5)."""

from __future__ import annotations

import re

_METRICS = {
    "AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
    "AC": {"L": 0.77, "H": 0.44},
    "PR": {"N": 0.85, "L": 0.62, "H": 0.27},
    "UI": {"N": 0.85, "R": 0.62},
    "S": {"U": 0.0, "C": 1.0},
    "C": {"H": 0.56, "L": 0.22, "N": 0.0},
    "I": {"H": 0.56, "L": 0.22, "N": 0.0},
    "A": {"H": 0.56, "L": 0.22, "N": 0.0},
}
# Rights weigh more where the flaw reaches past what they are rights of.
_RIGHTS_CHANGED = {"N": 0.85, "L": 0.68, "H": 0.5}
_WORDS = ((9.0, "critical"), (7.0, "high"), (4.0, "medium"), (0.1, "low"), (0.0, "none"))
_VECTOR = re.compile(r"CVSS:3\.[01]((?:/[A-Za-z]{1,4}:[A-Za-z]){8,30})")


def severity_word(vector: str) -> str:
    """The word for a vector; the vector itself where it is of another version, or none."""
    score = base_score(vector)
    if score is None:
        return vector
    return next(word for least, word in _WORDS if score >= least)


def base_score(vector: str) -> float | None:
    """From 0.0 to 10.0; None for what is no vector of CVSS 3."""
    found = _VECTOR.fullmatch(vector)
    if found is None:
        return None
    pairs = [each.split(":") for each in found[1][1:].split("/")]
    chosen = dict(pairs)
    if len(chosen) != len(pairs) or not all(
        chosen.get(name) in values for name, values in _METRICS.items()
    ):
        return None
    weight = {name: values[chosen[name]] for name, values in _METRICS.items()}
    is_changed = chosen["S"] == "C"
    rights = _RIGHTS_CHANGED[chosen["PR"]] if is_changed else weight["PR"]
    lost = 1 - (1 - weight["C"]) * (1 - weight["I"]) * (1 - weight["A"])
    impact = 7.52 * (lost - 0.029) - 3.25 * (lost - 0.02) ** 15 if is_changed else 6.42 * lost
    if impact <= 0:
        return 0.0
    ease = 8.22 * weight["AV"] * weight["AC"] * rights * weight["UI"]
    return _rounded_up(min((1.08 if is_changed else 1.0) * (impact + ease), 10.0))


def _rounded_up(score: float) -> float:
    """To one decimal, upwards; what floating point adds beyond the fifth does not count."""
    whole = round(score * 100_000)
    return whole / 100_000 if whole % 10_000 == 0 else (whole // 10_000 + 1) / 10
