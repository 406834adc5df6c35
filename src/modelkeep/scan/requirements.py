"""Requirements in pip's format: which packages a file asks for, in which versions.

Theory of operation. Lines are joined, comments cut and options told apart as pip does it
(pip/_internal/req/req_file.py). Nothing is resolved: what a file does not pin to one version is
named with the reason why it cannot be assessed, and so is what comes from a path or an address.
Markers are not evaluated, for the file may be installed elsewhere: what any environment would get
counts. Files that a file includes (`-r`, `-c`) are asked for by their names; who gives them decides
how far that leads; what lies above the first file's folder is not asked for. A constraint pins what
is asked for elsewhere, and asks for nothing. Where any line names another index than PyPI's, or an
option that is not known, any package may come from there.
"""

from __future__ import annotations

import codecs
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from modelkeep.core.record import replaced
from modelkeep.scan.evidence import printable
from modelkeep.scan.packages import Package
from modelkeep.scan.pep_rules import asked, normal_name

# One file; the largest locks have a megabyte or two of hashes.
REQUIREMENTS_BYTES_MAX = 4 << 20
_FILES_MAX = 100
# Of a file and those that it includes, at some thirty microseconds each.
_LINES_MAX = 20_000
# Of an address, where a name is looked for.
_ADDRESS_CHARS_MAX = 2_000
_VARIABLE = re.compile(r"\$\{[A-Z0-9_]+\}")
_HASH = re.compile(r"--hash[= ]\s*([a-z0-9]{1,20}:[0-9a-fA-F]{16,256})(?=\s|$)")
_INCLUDE = re.compile(r"(-r|-c|--requirement|--constraint)(?:\s*=?\s*)(.+)", re.DOTALL)
_EDITABLE = re.compile(r"(?:-e|--editable)(?:\s*=?\s*)(.+)", re.DOTALL)
_EGG = re.compile(r"#(?:.*&)?egg=([A-Za-z0-9][A-Za-z0-9._-]*)")
_ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|[./\\~]|.*(?:\.whl|\.zip|\.tar\.\w+|[/\\].*)$")
# The only index that the advisories are of.
_PYPI = re.compile(r"https://pypi\.org(?:/simple)?/?")
_INDEXES = frozenset({"-i", "--index-url", "--extra-index-url", "-f", "--find-links"})
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

# Options of a file that name no package and no file of requirements.
_HARMLESS = frozenset(
    {"--no-index", "--no-binary", "--only-binary", "--prefer-binary", "--require-hashes", "--pre",
     "--trusted-host", "--use-feature"}
)  # fmt: skip

UNPINNED = "no single version is named"
ELSEWHERE = "it comes from a path or an address, not from the index"
OUTSIDE = "the file that is named here lies outside of the folder, and is not followed"
UNREADABLE = "it cannot be read as a requirement"
MISSING = "a file that is named here cannot be read"
MANY = "more is named than is looked at"

# Gives the bytes of an included file by its path from the first one's folder; None for none.
Opened = Callable[[str], bytes | None]


@dataclass(slots=True)
class _Read:
    """What has been read so far.

    Attributes:
        addressed: names of packages that an address is given for.
        is_elsewhere: whether any package may come from somewhere else than PyPI.
    """

    opened: Opened
    packages: list[Package] = field(default_factory=list)
    pins: dict[str, set[str]] = field(default_factory=dict)
    seen: set[tuple[str, bool]] = field(default_factory=set)
    addressed: set[str] = field(default_factory=set)
    is_elsewhere: bool = False
    lines: int = 0

    def add(self, package: Package) -> None:
        self.packages.append(package)

    def is_full(self, place: str) -> bool:
        """Whether no more lines are read, which is said once."""
        self.lines += 1
        if self.lines == _LINES_MAX + 1:
            self.add(Package(name="…", place=place, why_not=MANY))
        return self.lines > _LINES_MAX


def required(raw: bytes, *, place: str, opened: Opened = lambda _: None) -> tuple[Package, ...]:
    """The packages that a file of requirements asks for, in order; never fails.

    Args:
        place: the file's path, as included ones are named from it.
    """
    read = _Read(opened)
    read.seen.add((place, False))
    _file(read, raw, place, is_constraint=False)
    return tuple(_pinned(each, read) for each in read.packages)


def required_lines(
    lines: list[str], *, place: str, opened: Opened = lambda _: None
) -> tuple[Package, ...]:
    """The packages of a list of requirements, each a line as in a file."""
    flat = "\n".join(" ".join(each.splitlines()) for each in lines)
    return required(flat.encode("utf-8", "replace"), place=place, opened=opened)


def _pinned(package: Package, read: _Read) -> Package:
    """A package with the version of a constraint, where only that names one, and an index does."""
    versions = read.pins.get(package.name, set())
    if package.why_not == UNPINNED and len(versions) == 1:
        package = replaced(package, version=next(iter(versions)), why_not="")
    if not package.why_not and (read.is_elsewhere or package.name in read.addressed):
        return replaced(package, why_not=ELSEWHERE)
    return package


def _file(read: _Read, raw: bytes, place: str, *, is_constraint: bool) -> None:
    text = _text(raw)
    if text is None:
        read.add(Package(name=printable(place), place=place, why_not=UNREADABLE))
        return
    for number, line in _lines(text):
        where = f"{place}:{number}"
        if read.is_full(where):
            return
        if include := _INCLUDE.fullmatch(line):
            _include(read, include, place, where, is_constraint=is_constraint)
        elif editable := _EDITABLE.fullmatch(line):
            read.add(_elsewhere(editable[1], where))
        elif not line.startswith("-"):
            _requirement(read, line, where, is_constraint=is_constraint)
        elif not _is_harmless(read, line):
            # pip takes abbreviations too: this may be a file, a package, or an index.
            read.is_elsewhere = True
            read.add(Package(name=printable(line), place=where, why_not=UNREADABLE))


def _include(
    read: _Read, include: re.Match[str], place: str, where: str, *, is_constraint: bool
) -> None:
    """Read a file that another one names, once as what it is."""
    target = include[2].strip().strip("\"'")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
    constrains = is_constraint or include[1] in ("-c", "--constraint")
    if (path, constrains) in read.seen:
        return
    read.seen.add((path, constrains))
    if path.startswith("/") or path.split("/", 1)[0] == "..":
        read.add(Package(name=printable(target), place=where, why_not=OUTSIDE))
        return
    raw = None
    if len(read.seen) <= _FILES_MAX and ":" not in target and "\0" not in target:
        raw = read.opened(path)
    if raw is None or len(raw) > REQUIREMENTS_BYTES_MAX:
        read.add(Package(name=printable(target), place=where, why_not=MISSING))
        return
    _file(read, raw, path, is_constraint=constrains)


def _requirement(read: _Read, line: str, where: str, *, is_constraint: bool) -> None:
    words = line.split()
    at = next((at for at, word in enumerate(words) if word.startswith("-")), len(words))
    text, options = " ".join(words[:at]), " ".join(words[at:])
    found = asked(text)
    if found is None or _VARIABLE.search(line):
        # As a constraint it holds for a package whose name only pip can tell.
        read.is_elsewhere |= is_constraint
        if _ELSEWHERE.match(text):
            read.add(_elsewhere(text, where))
        else:
            read.add(Package(name=printable(text), place=where, why_not=UNREADABLE))
    elif is_constraint:
        if found.url:
            read.addressed.add(found.name)
        if found.version:
            read.pins.setdefault(found.name, set()).add(found.version)
    elif found.url:
        read.addressed.add(found.name)
        read.add(Package(name=found.name, place=where, why_not=ELSEWHERE))
    else:
        read.add(
            Package(
                name=found.name,
                version=found.version,
                place=where,
                why_not="" if found.version else UNPINNED,
                hashes=tuple(each.lower() for each in _HASH.findall(options)),
            )
        )


def _is_harmless(read: _Read, line: str) -> bool:
    """Whether a line of options names no package and no file; another index is remembered."""
    words = [each.strip("\"'") for each in line.split()]
    for word, after in zip(words, [*words[1:], ""], strict=True):
        option, has_value, value = word.partition("=")
        if option in _INDEXES:
            index = value.strip("\"'") if has_value else after
            read.is_elsewhere |= _PYPI.fullmatch(index) is None
        elif word.startswith("-") and option not in _HARMLESS:
            return False
    return "\\" not in line


def _elsewhere(text: str, where: str) -> Package:
    egg = _EGG.search(text[:_ADDRESS_CHARS_MAX])
    found = asked(text)
    name = normal_name(egg[1]) if egg else found.name if found else printable(text)
    return Package(name=name, place=where, why_not=ELSEWHERE)


def _text(raw: bytes) -> str | None:
    """The text as pip decodes it where no locale takes part; None for what is none."""
    mark, encoding = next(
        ((mark, name) for mark, name in _BOMS if raw.startswith(mark)), (b"", "utf-8")
    )
    try:
        return raw[len(mark) :].decode(encoding)
    except UnicodeDecodeError:
        return None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Joined lines without comments, with the number of their first one; none is empty."""
    for number, joined in _joined(text):
        line = _without_comment(joined).strip()
        if line:
            yield number, line


def _without_comment(line: str) -> str:
    """The line up to a `#` at its beginning or behind a space; linear, unlike pip's expression."""
    at = line.find("#")
    while at > 0 and not line[at - 1].isspace():
        at = line.find("#", at + 1)
    return line if at < 0 else line[:at]


def _joined(text: str) -> Iterator[tuple[int, str]]:
    parts: list[str] = []
    first = 0
    for number, line in enumerate(text.splitlines(), 1):
        is_comment = line.lstrip().startswith("#")
        first = first or number
        if line.endswith("\\") and not is_comment:
            parts.append(line.strip("\\"))
            continue
        # A comment ends what is joined, and must stay one behind what it is joined to.
        yield first, "".join(parts) + " " * is_comment + line
        parts, first = [], 0
    if parts:
        yield first, "".join(parts)
