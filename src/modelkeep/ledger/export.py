r"""Entries for other people's tools: JSON Lines, OCSF, CEF and syslog; one line each, bounded.

    jsonl    the entry itself with its index
    ocsf     Open Cybersecurity Schema Framework 1.3: Entity Management (3004) for what was made,
             changed, read or removed, Detection Finding (2004) for what is wrong, else Base Event
    cef      ArcSight Common Event Format 0
    syslog   RFC 5424, structured data under `modelkeep@32473` (the enterprise number that RFC 5612
             reserves for such examples: we have none of our own)

Facts, actors and kinds may hold whatever somebody typed. Each format's own escapes are applied,
and whatever a terminal or a line reader would obey (control characters, line separators) is
written as `\xNN` or `\uNNNN` before that: no text can end its line, its field or its quotes.
JSON Lines is complete; the others cut a value at VALUE_CHARS_MAX and a line at LINE_BYTES_MAX and
say so (`truncated`). Private facts appear by their names only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from modelkeep.core.entry import Entry
from modelkeep.core.errors import UsageError
from modelkeep.core.instant import NS_PER_MS, rfc3339
from modelkeep.core.record import as_plain, to_json
from modelkeep.core.verdict import Severity
from modelkeep.ledger.find import fact_text
from modelkeep.ledger.kind import Act, Kind
from modelkeep.ledger.kinds import kind_named

OCSF_VERSION = "1.3.0"
VENDOR = PRODUCT = "modelkeep"
VALUE_CHARS_MAX = 512
LINE_BYTES_MAX = 8 * 1024
# Of which the facts get what the rest leaves; names and headers are bounded far below it.
_FACTS_BYTES_MAX = 6 * 1024

_SYSLOG_ID = "modelkeep@32473"
_LOG_AUDIT = 13  # the facility, RFC 5424, table 1
_SYSLOG_SEVERITY = {Severity.NOTE: 6, Severity.MEDIUM: 4, Severity.HIGH: 3}
_CEF_SEVERITY = {Severity.NOTE: 2, Severity.MEDIUM: 5, Severity.HIGH: 8}
_OCSF_SEVERITY = {Severity.NOTE: 1, Severity.MEDIUM: 3, Severity.HIGH: 4}
_OBEYED = re.compile(r"[\x7f-\x9f\u2028\u2029]")  # JSON lets them stand; some screens obey them
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9_]")
_NOT_PRINTABLE_ASCII = re.compile(r"[^!-~]")
_UNKNOWN = Kind("", "An entry of a newer modelkeep.", ())


class _Source:
    """Which keep, and which modelkeep, the lines come from."""

    def __init__(self, keep_id: str, version: str) -> None:
        self.keep_id = keep_id
        self.version = version


def exported(
    entries: Iterable[tuple[int, Entry]], form: str, *, keep_id: str, version: str
) -> Iterator[str]:
    """One line per entry, without its newline.

    Args:
        version: of modelkeep, for the formats that name the product.

    Raises:
        UsageError: `export.format`.
    """
    write = _WRITERS.get(form)
    if write is None:
        raise UsageError(
            "export.format", f"{form[:40]!r} is no format", hint=f"one of {', '.join(FORMATS)}"
        )
    source = _Source(keep_id, version)
    return (write(index, entry, source) for index, entry in entries)


def _jsonl(index: int, entry: Entry, source: _Source) -> str:
    return _json({"index": index, "keep": source.keep_id, **as_plain(entry)})


def _ocsf(index: int, entry: Entry, source: _Source) -> str:
    kind = kind_named(entry.kind) or _UNKNOWN
    facts, is_cut = _bounded(entry)
    event: dict[str, Any] = {
        "time": entry.at_ns // NS_PER_MS,
        "severity_id": _OCSF_SEVERITY[kind.severity],
        "message": kind.meaning,
        "status_id": 99,
        "metadata": {
            "version": OCSF_VERSION,
            "product": {"name": PRODUCT, "vendor_name": VENDOR, "version": source.version},
            "log_name": source.keep_id,
            "uid": f"{source.keep_id}/{index}",
            "sequence": index,
            "event_code": entry.kind[:VALUE_CHARS_MAX],
            "tenant_uid": entry.tenant[:VALUE_CHARS_MAX],
        },
        "actor": {"user": {"name": entry.actor[:VALUE_CHARS_MAX]}},
        "unmapped": {**facts, "truncated": True} if is_cut else facts,
    }
    if kind.act is Act.DETECT:
        title = kind.name or entry.kind[:VALUE_CHARS_MAX]
        finding = {"uid": f"{source.keep_id}/{index}", "title": title, "desc": kind.meaning}
        event |= {"finding_info": finding, **_classified(2004, 1)}
    elif kind.act is Act.OTHER:
        event |= _classified(0, Act.OTHER.value)
    else:
        entity = {"type": kind.entity, "name": _entity_name(kind, facts)}
        event |= {"entity": entity, **_classified(3004, kind.act.value)}
    return _json(event)


def _classified(class_uid: int, activity_id: int) -> dict[str, int]:
    return {
        "class_uid": class_uid,
        "category_uid": class_uid // 1000,
        "activity_id": activity_id,
        "type_uid": class_uid * 100 + activity_id,
    }


def _entity_name(kind: Kind, facts: Mapping[str, str]) -> str:
    """What stands first among an entry's facts names what it is about."""
    return next((facts[name] for name in kind.facts if name in facts), kind.entity)


def _cef(index: int, entry: Entry, source: _Source) -> str:
    kind = kind_named(entry.kind) or _UNKNOWN
    facts, is_cut = _bounded(entry)
    head = (VENDOR, PRODUCT, source.version, entry.kind, kind.meaning)
    fields = {
        "rt": str(entry.at_ns // NS_PER_MS),
        "externalId": str(index),
        "suser": _short(entry.actor),
        "dvchost": source.keep_id,
        "cs1Label": "tenant",
        "cs1": _short(entry.tenant),
        **{f"modelkeep{_camel(name)}": value for name, value in facts.items()},
    }
    if is_cut:
        fields["modelkeepTruncated"] = "true"
    extension = " ".join(f"{name}={_cef_value(value)}" for name, value in fields.items())
    header = "|".join(_cef_header(_short(part)) for part in head)
    return f"CEF:0|{header}|{_CEF_SEVERITY[kind.severity]}|{extension}"


def _syslog(index: int, entry: Entry, source: _Source) -> str:
    kind = kind_named(entry.kind) or _UNKNOWN
    facts, is_cut = _bounded(entry)
    parameters = {
        "index": str(index),
        "actor": _short(entry.actor),
        "tenant": _short(entry.tenant),
        **{f"fact_{_NOT_A_NAME.sub('_', name)}"[:32]: value for name, value in facts.items()},
    }
    if is_cut:
        parameters["truncated"] = "true"
    data = " ".join(f'{name}="{_syslog_value(value)}"' for name, value in parameters.items())
    priority = _LOG_AUDIT * 8 + _SYSLOG_SEVERITY[kind.severity]
    message_id = _NOT_PRINTABLE_ASCII.sub("_", entry.kind)[:32] or "-"
    head = f"<{priority}>1 {rfc3339(entry.at_ns)} {source.keep_id} {PRODUCT} - {message_id}"
    return f"{head} [{_SYSLOG_ID} {data}] {kind.meaning}"


_WRITERS = {"jsonl": _jsonl, "ocsf": _ocsf, "cef": _cef, "syslog": _syslog}
FORMATS = tuple(_WRITERS)


def _bounded(entry: Entry) -> tuple[dict[str, str], bool]:
    """The facts as short texts, as many as a line has room for; whether anything was cut."""
    found: dict[str, str] = {}
    room, is_cut = _FACTS_BYTES_MAX, False
    for name, fact in entry.facts.items():
        text = fact_text(fact)
        short = _short(text)
        # Escaping at most doubles what is plain and makes six bytes of what is not.
        room -= len(name) + 8 + 2 * len(visible(short).encode())
        if room < 0 or len(name) > VALUE_CHARS_MAX:
            return found, True
        found[name] = short
        is_cut = is_cut or short != text
    return found, is_cut


def _short(text: str) -> str:
    return text if len(text) <= VALUE_CHARS_MAX else text[: VALUE_CHARS_MAX - 1] + "…"


def visible(text: str) -> str:
    """The text without what ends a line or what a screen obeys; such characters are named."""
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(char: str) -> str:
    return char if char.isprintable() else ascii(char)[1:-1]


def _cef_header(text: str) -> str:
    return visible(text).replace("\\", "\\\\").replace("|", "\\|")


def _cef_value(text: str) -> str:
    return visible(text).replace("\\", "\\\\").replace("=", "\\=")


def _syslog_value(text: str) -> str:
    escaped = visible(text).replace("\\", "\\\\")
    return escaped.replace('"', '\\"').replace("]", "\\]")


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in _NOT_A_NAME.sub("_", name).split("_"))


def _json(value: object) -> str:
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", to_json(value).decode())
