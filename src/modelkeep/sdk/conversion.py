"""Models turned into other forms, without a keep: tensors into safetensors, programs into ONNX.

Safetensors are made without unpickling anything. ONNX is made by the framework that the model is
of, in a process of its own that is locked in: only there the model is loaded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from modelkeep.adapters.conversion_process import MEMORY_BYTES, WAIT_S, ConversionAsk, asked
from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.file_streams import file_target
from modelkeep.core.errors import UsageError
from modelkeep.core.record import Record
from modelkeep.core.verdict import judged
from modelkeep.flows.convert import Converted, converted, demand_allowed
from modelkeep.kernels.agreement import Agreement
from modelkeep.kernels.formats import identify
from modelkeep.kernels.zips import members_of
from modelkeep.scan.settings import ScanSettings
from modelkeep.sdk.files import mapped, steady, walked
from modelkeep.sdk.scanning import scanned_paths, scanned_view

# What a framework's converter imports, by the name under which pip knows it.
_PACKAGES = {
    "sklearn": {"sklearn": "scikit-learn", "skl2onnx": "skl2onnx"},
    "skops": {"sklearn": "scikit-learn", "skl2onnx": "skl2onnx", "skops": "skops"},
    "keras": {"keras": "keras", "tensorflow": "tensorflow", "tf2onnx": "tf2onnx"},
    "savedmodel": {"tensorflow": "tensorflow", "keras": "keras", "tf2onnx": "tf2onnx"},
}
# joblib compresses, and a pickle is told by its content.
_PICKLED = frozenset(("pickle", "zlib", "gzip", "bzip2", "lzma", "xz", "lz4"))
_CPU_SHARE = 4
# Of addresses, per byte of the model: what it is loaded to, its copies, and the result.
_COPIES = 8
TOLERANCE = 1e-4


def convert(
    path: Path | str,
    to: Path | str,
    *,
    force: bool = False,
    settings: ScanSettings | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Converted:
    """Write the tensors of one file as safetensors, if a scan allows the file.

    The bytes that are scanned are the ones that are converted; the new file appears whole or not
    at all.

    Args:
        force: replace a file that exists.

    Raises:
        RefusedError: `convert.verdict`.
        UsageError: `convert.format`, `convert.form`, `file.exists`, `file.read` or `file.changed`.
        MissingError: `file.missing`.
        IntegrityError: when the file does not hold what it claims.
        UnavailableError: `scan.worker.start`.
    """
    source, target = Path(path), Path(to)
    with steady(source) as file:

        @contextmanager
        def opened() -> Iterator[Callable[[bytes], None]]:
            with file_target(RealDisk(), target, force=force) as write:
                yield write
                file.demand_steady()  # before the new file has its name

        verdict = scanned_view(source.name, file.raw, settings or ScanSettings(), fd=file.fd)
        return converted(source.name, file.raw, verdict, opened, progress=progress)


class ConvertedModel(Record, frozen=True):
    """An ONNX model that was written, and how well it agreed with what it was made from.

    Attributes:
        framework: `sklearn`, `skops`, `keras` or `savedmodel`.
        unsheltered: measures of the sandbox that this machine does not give.
    """

    framework: str
    size_bytes: int
    agreement: Agreement
    unsheltered: tuple[str, ...] = ()


def to_onnx(
    path: Path | str,
    to: Path | str,
    *,
    force: bool = False,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    settings: ScanSettings | None = None,
    wait_s: float = WAIT_S,
    memory_bytes: int = MEMORY_BYTES,
) -> ConvertedModel:
    """Write a model of Keras, TensorFlow or scikit-learn as ONNX, if both say the same.

    A copy that nobody else can write to is scanned and converted. A process of its own, locked in,
    loads it, converts it, and has both forms answer random inputs of several batch sizes.

    Args:
        force: replace a file that exists.
        tolerance: share of a number that the ONNX model's may differ by; a tenth of it comes
            beside it. Labels must be equal.
        wait_s: by the clock; then the process is killed.
        memory_bytes: of addresses that it may take, beside its libraries and the model.

    Raises:
        RefusedError: `convert.verdict`.
        UsageError: `conversion.kind`, `conversion.package`, `conversion.inputs`,
            `conversion.tolerance`, `file.exists`, `file.read` or `file.changed`.
        MissingError: `file.missing`.
        IntegrityError: `conversion.failed`, or `conversion.differs`: the two do not say the same.
        UnavailableError: `conversion.start`, `conversion.ended` or `scan.worker.start`.
    """
    source, target = Path(path), Path(to)
    scanning = settings or ScanSettings()
    if not 0 <= tolerance < 1:
        raise UsageError("conversion.tolerance", f"{tolerance} is no share of a number")
    with (
        tempfile.TemporaryDirectory(prefix="modelkeep-") as made,
        file_target(RealDisk(), target, force=force) as write,
    ):
        place = _copied(source, Path(made))
        found = [one for each in scanned_paths([place], scanning) for one in each.verdict.findings]
        demand_allowed(source.name, judged(found))
        framework = _framework(place)
        if framework == "keras":  # which tells its files by their names
            place = place.rename(place.with_suffix(".keras"))
        size_bytes = sum(each.stat().st_size for each in (place, *place.rglob("*")))
        ask = ConversionAsk(
            framework=framework,
            path=str(place),
            rtol=tolerance,
            atol=tolerance / 10,
            seed=seed,
            memory_bytes=memory_bytes + _COPIES * size_bytes,
            cpu_s=int(_CPU_SHARE * wait_s) + 1,
        )
        raw, reply = asked(ask, wait_s=wait_s)
        assert reply.agreement is not None, "an answer without it is an error"
        demand_allowed(target.name, scanned_view(target.name, memoryview(raw), scanning))
        write(raw)
    return ConvertedModel(
        framework=framework,
        size_bytes=len(raw),
        agreement=reply.agreement,
        unsheltered=reply.unsheltered,
    )


def _copied(source: Path, folder: Path) -> Path:
    """The model's files where nobody else writes.

    Raises:
        UsageError: `conversion.kind`.
    """
    found = walked(source)
    if found.links or found.skipped:
        raise UsageError(
            "conversion.kind",
            f"{source} holds links or special files: {[*found.skipped, *dict(found.links)][0]}",
            hint="a SavedModel is a folder of plain files",
        )
    place = folder / source.resolve().name
    for each in found.files:
        copy = place / each.path if found.folders else place
        copy.parent.mkdir(parents=True, exist_ok=True)
        with steady(found.place_of(each.path)) as file:
            copy.write_bytes(file.raw)
    return place


def _framework(place: Path) -> str:
    """What a model is of, by its content; what that needs is installed.

    Raises:
        UsageError: `conversion.kind` or `conversion.package`.
    """
    framework = "savedmodel" if (place / "saved_model.pb").is_file() else ""
    if place.is_file():
        with mapped(place) as view:
            kind = identify(view)
            names = {each.name for each in members_of(view)} if kind == "zip" else set()
        if "model.weights.h5" in names and "config.json" in names:
            framework = "keras"
        elif "schema.json" in names:
            framework = "skops"
        elif kind in _PICKLED:
            framework = "sklearn"
    if not framework:
        raise UsageError(
            "conversion.kind",
            f"{place.name} is no .keras file, SavedModel folder or estimator of scikit-learn",
            hint="programs of PyTorch are served as they are; docs/guide/runtimes.md",
        )
    for module, package in _PACKAGES[framework].items():
        if find_spec(module) is None:
            raise UsageError(
                "conversion.package",
                f"{place.name} needs {package}, which is not installed here",
                hint=f"pip install {' '.join(_PACKAGES[framework].values())}",
            )
    return framework
