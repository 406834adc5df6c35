"""All cases of the corpus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.corpus import (
    archived,
    graphs,
    keras_files,
    packed,
    pickled_forms,
    pickled_names,
    projects,
    tensorflow_files,
    texts,
    torch_files,
)
from tests.corpus.cases import Case, Recipes, Trap

RECIPES: Mapping[str, Recipes] = {
    "pickled names": pickled_names.cases,
    "pickled forms": pickled_forms.cases,
    "packed": packed.cases,
    "archives": archived.cases,
    "texts": texts.cases,
    "graphs": graphs.cases,
    "torch": torch_files.cases,
    "keras": keras_files.cases,
    "tensorflow": tensorflow_files.cases,
    "projects": projects.cases,
}


def corpus(traps: Path, *recipes: str) -> Iterator[Case]:
    """Make the cases of these recipes, or all; `traps` is where their traps will be."""
    for name in recipes or RECIPES:
        yield from RECIPES[name](lambda case: Trap(traps / case.replace(" ", "-")))
