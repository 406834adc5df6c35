"""Environments in YAML as MLflow writes them: the requirements of conda.yaml and python_env.yaml.

    dependencies: [python=3.11, pip: [numpy==2.0]]                         conda.yaml
    dependencies: [-r requirements.txt], build_dependencies: [pip==24.0]   python_env.yaml

Only PyYAML's parser runs (text to events); nothing is constructed, and aliases are not followed.
What conda installs is not of PyPI, so advisories about PyPI say nothing of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml  # type: ignore[import-untyped] # has no stubs of its own

from modelkeep.scan.evidence import printable
from modelkeep.scan.packages import PACKAGES_MAX, Package
from modelkeep.scan.requirements import UNREADABLE, Opened, required_lines

ENVIRONMENT_BYTES_MAX = 1 << 20
_EVENTS_MAX = 4 * PACKAGES_MAX
_DEPTH_MAX = 20
_CONDA = re.compile(r"(?=[=<>!~ ])")

OF_CONDA = "conda installs it, and the advisories are of PyPI"


def required_environment(raw: bytes, *, place: str, opened: Opened) -> tuple[Package, ...]:
    """The packages of an environment in YAML; never fails."""
    unread = (Package(name=printable(place), place=place, why_not=UNREADABLE),)
    try:
        document = _document(raw.decode()) if len(raw) <= ENVIRONMENT_BYTES_MAX else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return unread
    if not isinstance(document, dict) or "dependencies" not in document:
        return unread
    given = [document["dependencies"], document.get("build_dependencies", [])]
    if not all(isinstance(each, list) for each in given):
        return unread
    is_conda = "python" not in document
    lines: list[str] = []
    found: list[Package] = []
    for each in (one for some in given for one in some):
        if isinstance(each, dict) and set(each) == {"pip"} and isinstance(each["pip"], list):
            lines += [one if isinstance(one, str) else repr(one)[:100] for one in each["pip"]]
        elif not isinstance(each, str):
            found.append(Package(name=printable(repr(each)), place=place, why_not=UNREADABLE))
        elif is_conda:
            found.append(_of_conda(each, place))
        else:
            lines.append(each)
    return (*found, *required_lines(lines, place=place, opened=opened))


def _of_conda(text: str, place: str) -> Package:
    name, *version = _CONDA.split(text.strip(), maxsplit=1)
    return Package(
        name=printable(name),
        version=printable("".join(version).strip("= ")),
        place=place,
        why_not=OF_CONDA,
    )


def _document(text: str) -> Any:
    """The one document of a text, of lists, mappings and words.

    Raises:
        ValueError: for what is more, deeper, or has aliases or tags.
    """
    events = _bounded(text)
    first = next(events, None)
    if first is None:
        raise ValueError("nothing")
    document = _value(first, events, 0)
    if next(events, None) is not None:
        raise ValueError("more than one document")
    return document


def _bounded(text: str) -> Iterator[yaml.Event]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    frame = (yaml.StreamStartEvent, yaml.StreamEndEvent, yaml.DocumentEndEvent)
    documents = 0
    for count, event in enumerate(yaml.parse(text, Loader=loader)):
        is_start = isinstance(event, yaml.DocumentStartEvent)
        documents += is_start
        if count > _EVENTS_MAX or documents > 1:
            raise ValueError("too much")
        if not is_start and not isinstance(event, frame):
            yield event


def _value(event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Any:
    if depth > _DEPTH_MAX or getattr(event, "tag", None) is not None:
        raise ValueError("too deep, or tagged")
    if isinstance(event, yaml.ScalarEvent):
        return event.value
    if isinstance(event, yaml.SequenceStartEvent):
        found = []
        while not isinstance(now := next(events), yaml.SequenceEndEvent):
            found.append(_value(now, events, depth + 1))
        return found
    if not isinstance(event, yaml.MappingStartEvent):
        raise ValueError("an alias")  # noqa: TRY004 - it is the text that is wrong
    pairs: dict[str, Any] = {}
    while not isinstance(now := next(events), yaml.MappingEndEvent):
        key = _value(now, events, depth + 1)
        if not isinstance(key, str) or key in pairs:
            raise ValueError("a key that is no word, or stands twice")
        pairs[key] = _value(next(events), events, depth + 1)
    return pairs
