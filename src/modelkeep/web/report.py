"""The report of a story as one self-contained HTML page: no script, no outside reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def rendered_report(
    *,
    title: str,
    version: str,
    at: str,
    steps: Sequence[Any],
    measures: Mapping[str, str],
    total_s: float,
) -> str:
    """Render the page; everything is escaped.

    Args:
        steps: each with number, title, at_s, seconds and lines of (kind, text).
        measures: figures by name.
    """
    environment = Environment(
        loader=PackageLoader("modelkeep.web"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("report.html").render(
        title=title, version=version, at=at, steps=steps, measures=measures, total_s=total_s
    )
