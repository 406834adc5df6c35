"""Requirements that whoever serves a model installs: what else than names is in them.

conda.yaml and python_env.yaml (MLflow), requirements.txt (TorchServe, hubs, MLflow). An install
runs programs of its packages, so where a package comes from counts as much as its name: indexes
other than the well-known ones, addresses, folders and shell marks are findings. Nothing is
resolved. Lines are joined and comments cut as pip does it (pip/_internal/req/req_file.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable
from modelkeep.scan.names import leaves_folder

_NAMED = re.compile(
    r"(?:[\w.-]*[-_.])?(?:requirements|constraints)(?:[-_.][\w.-]*)?\.(?:txt|in|pip)"
)
_NAME_CHARS_MAX = 200
_FOLDER = re.compile(r"(?:^|[/!])requirements/[^/!]*\.(?:txt|in)$")
# The largest locks have some thousand packages with hashes on lines of their own.
_LINES_MAX = 50_000
_SHOWN_MAX = 20

# Where Python's packages are published by their makers, and mirrors of it.
_KNOWN = (
    r"https://(?:(?:www\.)?pypi\.org|pypi\.python\.org|files\.pythonhosted\.org|pypi\.nvidia\.com"
    r"|pypi\.ngc\.nvidia\.com|download\.pytorch\.org|data\.pyg\.org|data\.dgl\.ai|wheels\.vllm\.ai"
    r"|download\.openmmlab\.com"
    r"|storage\.googleapis\.com/(?:jax-(?:tpu-)?releases|libtpu-(?:releases|wheels)|tensorflow)"
    r"|pypi\.tuna\.tsinghua\.edu\.cn|mirrors\.tuna\.tsinghua\.edu\.cn|mirrors\.aliyun\.com"
    r"|pypi\.mirrors\.ustc\.edu\.cn|mirrors\.ustc\.edu\.cn|mirrors\.cloud\.tencent\.com"
    r"|repo\.huaweicloud\.com|pypi\.anaconda\.org/scientific-python-nightly-wheels)"
    r"(?:/[\w./~%+-]*)?"
)
_INDEX = re.compile(
    r"\s*(?:-i|-f|--(?:index-url|extra-index-url|find-links|index|extra-index|pypi-url))"
    r"(?:\s+|\s*=\s*)(\S+)\s*"
)
_FROM_KNOWN = re.compile(
    rf"\s*(?:[\w.-]+(?:\[[\w., -]*\])?\s*@\s*)?{_KNOWN}(?:#sha256=[0-9a-f]+)?\s*"
)
_INCLUDE = re.compile(r"\s*(?:-[rc]|--(?:requirement|constraint))(?:\s*=?\s*)(\S+)\s*")
_OWN_INCLUDE = re.compile(r"(?:[\w.-]+/)*[\w.-]+\.(?:txt|in|pip)")
_EDITABLE = re.compile(r"\s*(?:-e|--editable)(?:\s+|=)")
_HARMLESS = re.compile(
    r"\s*--(?:pre|prefer-binary|require-hashes|no-index"
    r"|(?:no-binary|only-binary|use-feature)(?:\s+|=)[\w:,. -]+)\s*"
)
_SHELL = re.compile(r"[;&|`]|\$[({]")
_REMOTE = re.compile(r"(?:git|hg|svn|bzr)\+|[a-z]{2,10}://|file:|@\s*[a-z]+:", re.IGNORECASE)
_LOCAL = re.compile(r"\s*(?:[./~\\]|[A-Za-z]:\\)|\S+\.(?:whl|zip|tar\.gz|tgz)\s*$")
# What `pip freeze` writes of packages that conda built: a folder of the machine they were built on.
_BUILT = re.compile(
    r"\s*[\w.-]+\s*@\s*file:///(?:croot|home/conda/feedstock_root|tmp/build|opt/conda/conda-bld"
    r"|work/(?:ci|recipes|perseverance)[\w-]*|home/task_\d+|Users/ktietz|private/var/folders"
    r"|D:/bld|C:/b|C:/ci|opt/concourse|Users/runner/miniforge3)[\w./+-]*"
    r"(?:#sha256=[0-9a-f]+)?\s*"
)  # fmt: skip
# `git+https://…#egg=name&subdirectory=folder`: its mark is none of a shell.
_FRAGMENT = re.compile(r"#(?:egg|subdirectory|sha256)=[\w./-]+(?:&(?:egg|subdirectory)=[\w./-]+)*")
# `numpy<2; python_version < "3.9"`: what may follow the semicolon of a requirement.
_MARKER = re.compile(
    r"[\s(]*(?:python_version|python_full_version|sys_platform|platform_[a-z_]+|os_name|extra"
    r"|implementation_[a-z]+)\s*(?:[<>=!~]=?|in|not in)[^;&|`$]*"
)


def is_requirements(case: Case) -> bool:
    """Whether a file is named as installers and servers of models name their lists."""
    name = case.place.name.lower()[-_NAME_CHARS_MAX:]
    return _NAMED.fullmatch(name) is not None or _FOLDER.search(case.place.subject) is not None


def requirements_findings(case: Case, text: str) -> tuple[Finding, ...]:
    """Judge a file of requirements, line by line."""
    findings: list[Finding] = []
    for count, line in enumerate(_lines(text)):
        if count >= _LINES_MAX or len(findings) >= _SHOWN_MAX:
            what = "holds more lines, or more findings, than are looked at"
            findings.append(case.found("scan.config.limit", Severity.MEDIUM, what))
            break
        findings.extend(requirement_findings(case, line))
    if not findings:
        what = "is a list of requirements; each is a name and its versions"
        findings.append(case.found("scan.config.plain", Severity.NOTE, what))
    return tuple(findings)


def requirement_findings(case: Case, line: str) -> list[Finding]:
    """One requirement: what else than a name and a version is in it."""
    is_broken = "\n" in line.strip() or "\r" in line.strip()
    flat = " ".join(line.split())
    shown = printable(flat, 80)
    text, mark, marker = flat.partition(";")
    asked = text if mark and _MARKER.fullmatch(marker) else flat
    severity = Severity.HIGH if is_broken else _severity(asked.strip())
    if severity is None:
        return []
    if _INDEX.fullmatch(asked.strip()):
        what = f"packages are looked for elsewhere than their makers publish them: {shown!r}"
    elif severity is Severity.HIGH:
        what = f"a requirement holds more than a requirement: {shown!r} (CVE-2025-15379)"
    else:
        what = f"a requirement comes from an address or a folder: {shown!r}"
    return [case.found("scan.config.requirement", severity, what)]


def _severity(line: str) -> Severity | None:
    """How bad it is that this is installed; None for a name, its versions and its hashes."""
    if editable := _EDITABLE.match(line):
        source = line[editable.end() :].strip()
        is_grave = source.startswith("-") or _severity(source) is Severity.HIGH
        return Severity.HIGH if is_grave else Severity.MEDIUM
    if include := _INCLUDE.fullmatch(line):
        return _include_severity(include[1])
    climbs = ".." in line or "%2e" in line.lower()  # out of the known part of an address
    if index := _INDEX.fullmatch(line):
        return None if re.fullmatch(_KNOWN, index[1]) and not climbs else Severity.HIGH
    is_known = _FROM_KNOWN.fullmatch(line) or _BUILT.fullmatch(line)
    if _HARMLESS.fullmatch(line) or (is_known and not climbs):
        return None
    if line.startswith("-") or _SHELL.search(_FRAGMENT.sub("", line)):
        return Severity.HIGH
    return Severity.MEDIUM if _REMOTE.search(line) or _LOCAL.match(line) else None


def _include_severity(name: str) -> Severity | None:
    """Another list: it is judged where it lies, if it lies beside this one."""
    if leaves_folder(name) or "://" in name:
        return Severity.HIGH
    return None if _OWN_INCLUDE.fullmatch(name) else Severity.HIGH


def _lines(text: str) -> Iterator[str]:
    """The lines as an installer takes them: joined at a backslash, without comments."""
    kept: list[str] = []
    for line in text.splitlines():
        is_comment = line.lstrip().startswith("#")
        if line.endswith("\\") and not is_comment:
            kept.append(line[:-1])
            continue
        whole = _uncommented("".join((*kept, "" if is_comment else line)))
        kept.clear()
        if whole.strip():
            yield whole
    last = _uncommented("".join(kept))
    if last.strip():
        yield last


def _uncommented(line: str) -> str:
    at = line.find("#")
    while at >= 0:
        if at == 0 or line[at - 1].isspace():
            return line[:at]
        at = line.find("#", at + 1)
    return line
