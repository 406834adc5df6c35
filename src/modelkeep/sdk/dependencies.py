"""Python packages: which a model or an environment wants, what is known of them, a bill of them."""

from __future__ import annotations

import math
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.file_streams import file_target, small_bytes
from modelkeep.adapters.installed_packages import installed_packages, interpreter
from modelkeep.core.errors import IntegrityError, MissingError, UsageError
from modelkeep.core.limits import CONFIG_BYTES_MAX
from modelkeep.core.record import converted, replaced
from modelkeep.flows.provenance import Assess, is_list, wanted_by
from modelkeep.scan.admission_settings import AdvisorySettings, Tolerated, advisory_problems
from modelkeep.scan.advisory_files import RECORD_BYTES_MAX, RECORDS_MAX, Known, read_export
from modelkeep.scan.assessments import Assessment, assessed
from modelkeep.scan.boms import BOM_BYTES_MAX, is_bom, told_packages
from modelkeep.scan.environments import required_environment
from modelkeep.scan.inventory import SPECS, inventory
from modelkeep.scan.packages import Package
from modelkeep.scan.requirements import REQUIREMENTS_BYTES_MAX, required
from modelkeep.sdk.files import mapped
from modelkeep.wiring import KeepFolder, read_config

_FILES_MAX = 100_000
_YAML = (".yaml", ".yml")
_DAY_S = 86_400


def assessment(
    paths: Sequence[str | Path],
    *,
    advisories: str | Path,
    settings: AdvisorySettings,
    now_ns: Callable[[], int] = time.time_ns,
) -> Assessment:
    """What is known of packages; offline, nothing is fetched or installed.

    Args:
        paths: files of requirements, environments (conda.yaml, python_env.yaml), bills of
            materials (CycloneDX), or folders of models with such; none: what this interpreter can
            import.
        advisories: an export of OSV: an archive, a folder, JSON or JSON lines.

    Raises:
        MissingError: `file.missing`.
        UsageError: `dependencies.none`, `file.read`, `file.size`.
        IntegrityError: `advisories.*`, `bom.form`.
    """
    return _assessed(packages_of(paths), Path(advisories), settings, now_ns())


def package_bom(
    paths: Sequence[str | Path],
    *,
    spec: str = SPECS[0],
    now_ns: Callable[[], int] = time.time_ns,
) -> bytes:
    """A bill of packages, CycloneDX.

    Args:
        paths: as for `assessment`.

    Raises:
        MissingError: `file.missing`.
        UsageError: `dependencies.none`, `file.read`, `file.size`.
        IntegrityError: `bom.form`.
    """
    kind, (name, version) = "platform", interpreter()
    if paths:
        kind, name, version = "application", Path(paths[0]).resolve().name, ""
    return inventory(
        packages_of(paths), kind=kind, name=name, version=version, now_ns=now_ns(), spec=spec
    )


def write_bom(raw: bytes, path: Path, *, force: bool = False) -> None:
    """Write a bill to a file, whole or not at all.

    Raises:
        UsageError: `file.exists`.
    """
    with file_target(RealDisk(), path, force=force) as write:
        write(raw)


def advisory_settings(
    folder: Path, *, tolerate: Path | None = None, age_days_max: float | None = None
) -> tuple[AdvisorySettings, Path | None]:
    """The settings of a keep, if there is one, with more that is tolerated; and its advisories.

    Raises:
        ConfigError: `config.*`.
        MissingError: `file.missing`.
        UsageError: `paper.*`, `dependencies.tolerated` or `dependencies.age`.
    """
    settings, file = AdvisorySettings(), None
    with suppress(MissingError):
        settings = read_config(KeepFolder(folder))[0].advisories
        file = folder / settings.file if settings.file else None
    if tolerate is not None:
        more = _tolerated(tolerate)
        settings = replaced(settings, tolerated=(*settings.tolerated, *more))
    if age_days_max is not None:
        if not 0 < age_days_max < math.inf:
            raise UsageError("dependencies.age", "an age is a number of days above zero")
        settings = replaced(settings, age_s_max=age_days_max * _DAY_S)
    return settings, file


def _tolerated(path: Path) -> tuple[Tolerated, ...]:
    """What a file says is tolerated.

    Raises:
        UsageError: `dependencies.tolerated`.
    """
    raw = small_bytes(path, size_max=CONFIG_BYTES_MAX)
    try:
        found = converted(AdvisorySettings, tomllib.loads(raw.decode()), what=str(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, IntegrityError) as error:
        raise _not_tolerated(f"{path}: {error!s:.200}") from error
    others = (replaced(found, tolerated=()) != AdvisorySettings(), "only [[tolerated]] stands here")
    for is_bad, problem in (others, *advisory_problems(found)):
        if is_bad:
            raise _not_tolerated(f"{path}: {problem}")
    return found.tolerated


def _not_tolerated(why: str) -> UsageError:
    return UsageError(
        "dependencies.tolerated",
        why,
        hint="write [[tolerated]] with id or package, why, and until = 2030-01-31",
    )


def assessor(
    folder: KeepFolder, settings: AdvisorySettings, *, now_ns: Callable[[], int] = time.time_ns
) -> Assess | None:
    """What assesses the packages of a model, where a keep has advisories."""
    if not settings.file:
        return None
    file = folder.path / settings.file

    def assess(packages: Sequence[Package]) -> Assessment:
        return _assessed(packages, file, settings, now_ns())

    return assess


def packages_of(paths: Sequence[str | Path]) -> tuple[Package, ...]:
    """The packages that files, or folders of them, name; those of this interpreter for none.

    Raises:
        MissingError: `file.missing`.
        UsageError: `dependencies.none`, `file.read`, `file.size`.
        IntegrityError: `bom.form`.
    """
    if not paths:
        return installed_packages()
    found: list[Package] = []
    for each in map(Path, paths):
        own = _of_folder(each) if each.is_dir() else _of_file(each)
        if not own:
            raise UsageError(
                "dependencies.none",
                f"{each} names no package",
                hint="requirements.txt, conda.yaml, python_env.yaml, or CycloneDX in JSON do",
            )
        found += own
    return tuple({(each.name, each.version, each.why_not): each for each in found[::-1]}.values())[
        ::-1
    ]


def _assessed(
    packages: Sequence[Package], file: Path, settings: AdvisorySettings, now_ns: int
) -> Assessment:
    known = Known({each.name for each in packages}, now_ns)
    for path in _exports(file):
        with mapped(path) as view:
            read_export(known, view)
    return assessed(packages, known, settings, now_ns=now_ns)


def _exports(file: Path) -> Iterator[Path]:
    """The files of an export: one, or every record of a folder.

    Raises:
        MissingError: `file.missing`.
        IntegrityError: `advisories.many` or `advisories.record`.
    """
    if not file.is_dir():
        yield file
        return
    for count, path in enumerate(sorted(file.rglob("*.json"))):
        if count >= RECORDS_MAX:
            raise IntegrityError("advisories.many", f"{file} has more than {RECORDS_MAX} records")
        if path.stat().st_size > RECORD_BYTES_MAX:
            raise IntegrityError("advisories.record", f"{path} is too large for a record of OSV")
        yield path


def _of_folder(root: Path) -> list[Package]:
    """What the files of a model's folder name; links are not followed."""
    found: list[Package] = []
    paths = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
    if len(paths) > _FILES_MAX:
        raise UsageError("file.read", f"{root} has more than {_FILES_MAX} files")
    for path in paths:
        name = path.relative_to(root).as_posix()
        if is_list(name):
            found += wanted_by(name, _opener(root))
    return found


def _of_file(path: Path) -> Sequence[Package]:
    raw = small_bytes(path, size_max=max(REQUIREMENTS_BYTES_MAX, BOM_BYTES_MAX))
    if is_bom(raw):
        return told_packages(raw, place=path.name)
    opened = _opener(path.parent)
    if path.suffix.lower() in _YAML:
        return required_environment(raw, place=path.name, opened=opened)
    return required(raw, place=path.name, opened=opened)


def _opener(root: Path) -> Callable[[str], bytes | None]:
    """What opens a file that another one names, within a folder: what leaves it is not followed."""
    top = root.resolve()

    def opened(name: str) -> bytes | None:
        path = root / name
        if top not in path.resolve().parents:
            return None
        try:
            return small_bytes(path, size_max=REQUIREMENTS_BYTES_MAX)
        except (MissingError, UsageError):
            return None

    return opened
