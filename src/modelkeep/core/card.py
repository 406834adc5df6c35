"""What the makers of a model say of it: where it comes from, what it is for; signed with it.

The fields are those of a CycloneDX model card (CycloneDX 1.6, `modelCard`) that people fill in;
what can be read off the model itself (its tensors, its inputs) is not said twice.
"""

from __future__ import annotations

from modelkeep.core.record import Record


class DataSet(Record, frozen=True):
    """Data that a model was trained or judged on.

    Attributes:
        name: for people.
        digest: of the data, such as `blake3:…` or `sha256:…`; empty when it is not known.
        url: where it can be had.
        purpose: `training`, `validation`, `test` or another word.
    """

    name: str
    digest: str = ""
    url: str = ""
    purpose: str = "training"


class Metric(Record, frozen=True):
    """One figure that was measured.

    Attributes:
        kind: such as `accuracy`.
        slice: of which part of the data; empty for all of it.
    """

    kind: str
    value: float
    slice: str = ""


class Card(Record, frozen=True):
    """A model card; the default says nothing.

    Attributes:
        task: such as `classification` or `text-generation`.
        family: of architectures, such as `transformer`.
        architecture: such as `llama`.
        licence: an SPDX expression, such as `Apache-2.0`.
        supplier: who made it.
        datasets: what it was trained and judged on.
        run: id of the training run, in whatever system keeps those.
        code: revision of the code that trained it.
        metrics: what was measured.
        users: whom it is meant for.
        use_cases: what it is meant for.
        limitations: what it is known not to do well.
        tradeoffs: what was given up for what.
        ethics: risks for people, each with how it is met.
    """

    task: str = ""
    family: str = ""
    architecture: str = ""
    licence: str = ""
    supplier: str = ""
    datasets: tuple[DataSet, ...] = ()
    run: str = ""
    code: str = ""
    metrics: tuple[Metric, ...] = ()
    users: tuple[str, ...] = ()
    use_cases: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()
    tradeoffs: tuple[str, ...] = ()
    ethics: tuple[str, ...] = ()


BLANK = Card()
