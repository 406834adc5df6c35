"""Suspects: files and folders in which a mark is read, with the digest that names them in a claim.

A suspect is somebody else's file. Its tensors are found by layouts that are checked; where it has
to be asked (an ONNX model and a trigger set), it is scanned first, as what is admitted is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelkeep.core.artifact import Port, Schema
from modelkeep.core.errors import UsageError
from modelkeep.core.verdict import demand_allowed
from modelkeep.flows.marking import answers_read, demand_inputs, weights_read
from modelkeep.flows.scanning import schema_of
from modelkeep.kernels.arrays import NUMPY_BY_DTYPE, Array
from modelkeep.kernels.digest import digest_of
from modelkeep.kernels.onnx_split import split_onnx
from modelkeep.kernels.tensors import identify
from modelkeep.kernels.trigger_mark import array_in, classes_said
from modelkeep.scan.settings import ScanSettings
from modelkeep.sdk.files import Walked, mapped, walked
from modelkeep.sdk.scanning import scanned_view
from modelkeep.seal.marks import TRIGGERS, WEIGHTS, Reading, Registration

_INPUTS = "inputs"
# Triggers that a model is asked at once, where its batch is free.
_BATCH = 64
_BATCH_VALUES_MAX = 1 << 28  # as many as a trigger set may have


@dataclass(frozen=True, slots=True)
class Examined:
    """What a mark gave in a suspect.

    Attributes:
        suspect: its digest.
        is_model: whether a model was read or asked here; not so for answers and texts, which
            whoever has the seed can write or pick.
    """

    reading: Reading
    suspect: str
    is_model: bool = False


def examined(
    registration: Registration, seed: bytes, suspect: Path, *, triggers: Path | None = None
) -> Examined:
    """Read a mark in a suspect.

    Args:
        suspect: a model's file or folder; for a trigger set its answers (.npy) or an ONNX model.
        triggers: the file of the trigger set, where a model is to be asked.

    Raises:
        MissingError: `file.missing`.
        UsageError: `mark.suspect_form`, `mark.answers`, `mark.triggers`, `mark.array`;
            `mark.method`, for a mark that is read in another way.
        RefusedError: `verdict.*`, for a model that may not be run.
    """
    if registration.method == WEIGHTS:
        with files_at(suspect) as files:
            reading = weights_read(registration, seed, files)
            return Examined(reading, suspect_digest(files), is_model=True)
    if registration.method == TRIGGERS:
        with mapped(suspect) as view:
            is_model = identify(view) == "onnx"
            answers = _answers(registration, suspect, view, triggers)
            reading = answers_read(registration, seed, answers)
            return Examined(reading, str(digest_of(view)), is_model=is_model)
    raise UsageError(
        "mark.method",
        f"a mark of the method {registration.method} is not read in a model",
        hint="modelkeep.sdk.text_marks reads it in texts, with the tokenizer that wrote them",
    )


@contextmanager
def files_at(path: Path) -> Iterator[Mapping[str, memoryview]]:
    """The files of a model, mapped into memory, by their paths.

    Raises:
        MissingError: `file.missing`.
        UsageError: `file.read` or `tree.*`.
    """
    with files_of(walked(path)) as files:
        yield files


@contextmanager
def files_of(found: Walked) -> Iterator[Mapping[str, memoryview]]:
    """Likewise, of what was walked through.

    Raises:
        MissingError: `file.missing`.
        UsageError: `file.read`.
    """
    with ExitStack() as stack:
        yield {
            each.path: stack.enter_context(mapped(found.place_of(each.path)))
            for each in found.files
        }


def suspect_digest(files: Mapping[str, memoryview]) -> str:
    """The digest of a file whatever its name is, or of the list of a folder's files."""
    digests = {path: digest_of(view) for path, view in sorted(files.items())}
    if len(digests) == 1:
        return str(*digests.values())
    listed = "".join(f"{digest} {path}\n" for path, digest in digests.items())
    return str(digest_of(listed.encode()))


def _answers(
    registration: Registration, suspect: Path, view: memoryview, triggers: Path | None
) -> Array:
    kind = identify(view)
    if kind == "npy":
        return array_in(view)
    if kind != "onnx" or triggers is None:
        raise UsageError(
            "mark.suspect_form",
            f"{suspect} holds neither answers nor a model that can be asked",
            hint="answers as .npy; or an ONNX model, with --triggers FILE to ask it",
        )
    with mapped(triggers) as stored:
        inputs = array_in(stored, _INPUTS)
        demand_inputs(registration, inputs)
        demand_allowed(scanned_view(suspect.name, view, ScanSettings()), subject=suspect.name)
        schema = schema_of(view, kind)
        assert schema is not None  # an ONNX model has one
        return _asked(view, schema, inputs)


def _asked(model: memoryview, schema: Schema, inputs: Array) -> Array:
    """An ONNX model's answers: its classes, or else its scores.

    A model with a fixed batch is asked a whole one at the end too: what fills it up is cut off.

    Raises:
        UsageError: `mark.suspect_form`, when it does not take one array, or no such as these.
        IntegrityError: `runtime.load`.
        UnavailableError: `runtime.failed`.
    """
    from modelkeep.adapters.runtime_onnx import OnnxRuntime  # noqa: PLC0415 - slow to import

    if len(schema.inputs) != 1 or schema.inputs[0].dtype not in NUMPY_BY_DTYPE:
        raise UsageError("mark.suspect_form", "the suspect does not take one array of numbers")
    port = schema.inputs[0]
    given = _fitted(inputs, port)
    batch, filling = _BATCH, 0
    if port.shape and port.shape[0] > 0:
        batch = port.shape[0]
        filling = -len(given) % batch
        given = given.take(range(len(given) + filling), axis=0, mode="wrap")
    runtime = OnnxRuntime(split_onnx(model), model, schema=schema, threads=1)
    parts: dict[str, list[Array]] = {}
    for start in range(0, len(given), batch):
        for name, part in runtime.answer({port.name: given[start : start + batch]}).items():
            parts.setdefault(name, []).append(part)
    said = classes_said(parts)
    return said[: len(said) - filling]


def _fitted(inputs: Array, port: Port) -> Array:
    """Triggers in the type and shape that a model takes; one free size may come of the others.

    Raises:
        UsageError: `mark.suspect_form`.
    """
    own = inputs.shape[1:] if inputs.ndim == len(port.shape) else (-1,) * len(port.shape[1:])
    sizes = [size if size > 0 else got for size, got in zip(port.shape[1:], own, strict=True)]
    batch = max(port.shape[:1], default=0)
    try:
        if inputs.size == 0 or inputs.ndim == 0 or batch * inputs[0].size > _BATCH_VALUES_MAX:
            raise ValueError("nothing to ask, or too much at once")
        return inputs.astype(NUMPY_BY_DTYPE[port.dtype]).reshape(len(inputs), *sizes)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            "mark.suspect_form",
            f"the suspect takes arrays of the shape {port.shape}; the triggers have {inputs.shape}",
            hint="ask it in the form that it takes, and save what it answers as .npy",
        ) from error
