"""Models that carry a mark, and marks read in suspects: what the seed of a registration does.

Marking changes bytes as they are read; nothing in plaintext is written by it. A suspect is only
looked at: its tensors are found by the layout of its format, and nothing in it is executed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from modelkeep.core.errors import UsageError
from modelkeep.core.record import from_json, to_json
from modelkeep.flows.keep import OpenKeep
from modelkeep.flows.watermark import Registered, registered, registered_new, seed_of
from modelkeep.kernels import trigger_mark, weight_mark
from modelkeep.kernels.arrays import Array
from modelkeep.kernels.tensors import identify, places_of
from modelkeep.kernels.trigger_mark import TriggerParameters, TriggerSet
from modelkeep.kernels.weight_mark import Embedded, WeightParameters
from modelkeep.seal.marks import TRIGGERS, WEIGHTS, Reading, Registration
from modelkeep.vault.streams import Plain

Files = Mapping[str, memoryview]


def weights_registered(
    keep: OpenKeep, mark: str, files: Files, *, bits: int = 0, margin: float = 0.0, model: str = ""
) -> Registered:
    """Register a weight mark for models with the tensors of this one.

    Args:
        bits: how many; 0 for what suits its size.
        margin: how far each bit is pushed; 0 for the usual.

    Raises:
        UsageError: `mark.room`, `mark.parameters`, `mark.exists` or `mark.name`.
    """
    chosen = weight_mark.chosen_parameters(
        _tensors(files), bits=bits, margin=margin or weight_mark.MARGIN
    )
    return registered_new(keep, mark, WEIGHTS, to_json(chosen).decode(), model=model)


def triggers_registered(
    keep: OpenKeep, mark: str, examples: Array, *, classes: int, count: int, model: str = ""
) -> tuple[Registered, TriggerSet]:
    """Make a trigger set of the owner's own examples, and register it.

    Raises:
        UsageError: `mark.examples`, `mark.parameters`, `mark.exists` or `mark.name`.
    """
    seed = seed_of(keep, mark).reveal()
    inputs = trigger_mark.trigger_inputs(seed, examples, count=count)
    chosen = trigger_mark.chosen_parameters(inputs, classes=classes)
    made = registered_new(keep, mark, TRIGGERS, to_json(chosen).decode(), model=model)
    return made, TriggerSet(inputs, trigger_mark.trigger_labels(seed, chosen))


def triggers_again(keep: OpenKeep, mark: str, examples: Array) -> TriggerSet:
    """The trigger set that was registered, from the same examples.

    Raises:
        MissingError: `mark.unknown`.
        UsageError: `mark.method`; `mark.triggers`, when other triggers come of these examples.
    """
    found = registered(keep, mark, method=TRIGGERS).registration
    seed, parameters = seed_of(keep, mark).reveal(), _triggers(found)
    inputs = trigger_mark.trigger_inputs(seed, examples, count=parameters.count)
    demand_inputs(found, inputs)
    return TriggerSet(inputs, trigger_mark.trigger_labels(seed, parameters))


def demand_inputs(registration: Registration, inputs: Array) -> None:
    """Go on only if these triggers are the registered ones.

    Raises:
        UsageError: `mark.triggers`.
    """
    if trigger_mark.inputs_digest(inputs) != _triggers(registration).inputs:
        raise UsageError(
            "mark.triggers",
            f"these are not the triggers that were registered as {registration.mark}",
            hint="they come of exactly the examples that the mark was registered with",
        )


def marking(keep: OpenKeep, mark: str, files: Files) -> Embedded:
    """What a weight mark changes in a model.

    Raises:
        MissingError: `mark.unknown`.
        UsageError: `mark.method`, `mark.model`, `mark.room` or `mark.archive`.
    """
    found = registered(keep, mark, method=WEIGHTS).registration
    places = places_of(files, _kinds(files))
    return weight_mark.marked(files, places, seed_of(keep, mark).reveal(), _weights(found))


def marked_files(
    keep: OpenKeep, marks: Sequence[str], files: tuple[Plain, ...], *, has_canary: bool
) -> tuple[Plain, ...]:
    """A model's files as they are to be kept: each mark is registered, a weight mark is laid on.

    A model that carries its mark already stays as it is. Trigger sets and marks of text are in
    what a model learned or in how it is used: they are only looked up.

    Raises:
        MissingError: `mark.unknown`.
        UsageError: as `marking`; `mark.several`, for more than one weight mark; `mark.canary`,
            when the mark would change what the canary's answer is.
    """
    found = [registered(keep, each).registration for each in dict.fromkeys(marks)]
    wanted = [each.mark for each in found if each.method == WEIGHTS]
    if not wanted:
        return files
    if len(wanted) > 1:
        raise UsageError("mark.several", "a model is given one weight mark at a time")
    made = marking(keep, wanted[0], {each.path: each.raw for each in files})
    for each in files:
        each.forget()
    if not made.changes:
        return files
    if has_canary:
        raise UsageError(
            "mark.canary",
            "the canary's answer is that of the model without its mark",
            hint="`modelkeep watermark embed` first, then make the canary with the marked model",
        )
    return tuple(_overlaid(each, made) for each in files)


def weights_read(registration: Registration, seed: bytes, files: Files) -> Reading:
    """Read a weight mark in a suspect.

    Raises:
        UsageError: `mark.suspect_form`, when no tensor of numbers is found in it.
        IntegrityError: `record.json`.
    """
    parameters, tensors = _weights(registration), _tensors(files)
    if not tensors:
        raise UsageError(
            "mark.suspect_form",
            "no tensors are found in the suspect",
            hint="safetensors, ONNX, GGUF, PyTorch archives and NumPy are known",
        )
    hits = weight_mark.hits_in(tensors, seed, parameters)
    return Reading(hits=hits, trials=parameters.bits, chance=0.5)


def answers_read(registration: Registration, seed: bytes, answers: Array) -> Reading:
    """Compare a suspect's answers with the labels of a trigger set.

    Raises:
        UsageError: `mark.answers`.
        IntegrityError: `record.json`.
    """
    parameters = _triggers(registration)
    hits = trigger_mark.matches_in(answers, seed, parameters)
    return Reading(hits=hits, trials=parameters.count, chance=1.0 / parameters.classes)


def _overlaid(file: Plain, made: Embedded) -> Plain:
    def read_into(start: int, target: memoryview) -> None:
        file.read_into(start, target)
        made.apply(file.path, start, target)

    return replace(file, read_into=read_into)


def _tensors(files: Files) -> list[weight_mark.Tensor]:
    return weight_mark.tensors_of(files, places_of(files, _kinds(files)))


def _kinds(files: Files) -> dict[str, str]:
    return {path: identify(view) for path, view in files.items()}


def _weights(registration: Registration) -> WeightParameters:
    raw = registration.parameters.encode()
    return weight_mark.demanded(from_json(WeightParameters, raw, what="a mark's parameters"))


def _triggers(registration: Registration) -> TriggerParameters:
    raw = registration.parameters.encode()
    return trigger_mark.demanded(from_json(TriggerParameters, raw, what="a mark's parameters"))
