"""Every line is one line of its format, whatever somebody typed into an entry.

Judged by readers written here from the public rules: RFC 5424's grammar, ArcSight's "Implementing
CEF" (header and extension escapes), and the requirements of the OCSF 1.3 classes that are used
(metadata.version and product; class, category, type, activity and severity ids; `entity` in Entity
Management, `finding_info` with title and uid in Detection Finding).
"""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.cli.grammar.ledger import FORMATS as TYPED
from modelkeep.core.entry import Entry
from modelkeep.core.errors import UsageError
from modelkeep.ledger.export import FORMATS, LINE_BYTES_MAX, exported
from modelkeep.ledger.kinds import CATALOGUE

NASTY = [
    "a\nCEF:0|forged|line|1|x|y|10|",
    "a\r\n<13>1 forged",
    'quote" ] [forged@1 x="',
    "back\\slash\\",
    "pipe|equals=",
    "\x1b[31m\x00\x7f\x85\u2028\u2029",
    "\U0001f600 ünïcödé",
    "x" * 9000,
    "\\" * 2000,
    '"' * 2000,
    "\x01" * 2000,
]


def entry(kind="token.created", actor="cli:root", **facts):
    return Entry(kind=kind, at_ns=1_700_000_000_123_456_789, actor=actor, facts=facts)


def line(form, made, index=7):
    (found,) = exported([(index, made)], form, keep_id="00ff00ff00ff00ff", version="0.1.0")
    return found


# ---- RFC 5424 ---------------------------------------------------------------------------------

NAME = r"[!#-<>-\\^-~]{1,32}"  # PRINTUSASCII without '=', SP, ']' and '"'
VALUE = r'(?:[^"\\\]]|\\["\\\]])*'
ELEMENT = rf'\[{NAME}(?: {NAME}="{VALUE}")*\]'
SYSLOG = re.compile(
    r"<(?P<priority>0|[1-9][0-9]{0,2})>1 "
    r"(?P<time>\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?Z) "
    r"(?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48}) (?P<process>[!-~]{1,128}) "
    rf"(?P<message_id>[!-~]{{1,32}}) (?P<data>{ELEMENT})(?: (?P<message>[ -~]*))?"
)
PARAMETER = re.compile(rf'(?P<name>{NAME})="(?P<value>{VALUE})"')


def read_syslog(text):
    match = SYSLOG.fullmatch(text)
    assert match, text[:300]
    assert int(match["priority"]) <= 191
    return match, {
        each["name"]: re.sub(r"\\([\"\\\]])", r"\1", each["value"])
        for each in PARAMETER.finditer(match["data"])
    }


# ---- CEF --------------------------------------------------------------------------------------


def read_cef(text):
    parts = _hidden(text).split("|")
    assert parts[0] == "CEF:0", text[:200]
    head = [_shown(part) for part in parts[1:7]]
    extension = "|".join(parts[7:])
    starts = list(re.finditer(r"(?:^| )([A-Za-z0-9_]+)=", extension))
    fields = {}
    for at, start in enumerate(starts):
        end = starts[at + 1].start() if at + 1 < len(starts) else len(extension)
        fields[start[1]] = _shown(extension[start.end() : end])
    return head, fields


def _hidden(text):
    """Escaped characters as private ones, so that what is left separates."""
    return re.sub(r"\\([\\|=])", lambda found: chr(0xE000 + ord(found[1])), text)


def _shown(text):
    return "".join(chr(ord(c) - 0xE000) if 0xE000 <= ord(c) < 0xE100 else c for c in text)


# ---- OCSF -------------------------------------------------------------------------------------


def read_ocsf(text):
    event = json.loads(text)
    for name in ("activity_id", "category_uid", "class_uid", "type_uid", "severity_id", "time"):
        assert isinstance(event[name], int), name
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert event["category_uid"] == event["class_uid"] // 1000
    assert event["severity_id"] in (0, 1, 2, 3, 4, 5, 6, 99)
    assert event["metadata"]["version"] == "1.3.0"
    assert event["metadata"]["product"]["vendor_name"]
    if event["class_uid"] == 3004:
        assert event["activity_id"] in (0, 1, 2, 3, 4, 99)
        assert event["entity"]["type"]
        assert event["entity"]["name"]
    elif event["class_uid"] == 2004:
        assert event["activity_id"] in (0, 1, 2, 3, 99)
        assert event["finding_info"]["uid"]
        assert event["finding_info"]["title"]
    else:
        assert (event["class_uid"], event["activity_id"]) == (0, 99)
    return event


READERS = {"jsonl": json.loads, "ocsf": read_ocsf, "cef": read_cef, "syslog": read_syslog}


def demand_one_line(form, text):
    assert len(text.splitlines()) == 1
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", text)
    if form != "jsonl":
        assert len(text.encode()) <= LINE_BYTES_MAX
    return READERS[form](text)


# ---- promises ---------------------------------------------------------------------------------


def test_the_formats_are_those_that_can_be_typed():
    assert FORMATS == TYPED == tuple(READERS)
    with pytest.raises(UsageError, match=r"export\.format"):
        exported([], "xml", keep_id="", version="")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_no_text_ends_its_line_its_field_or_its_quotes(form, text):
    demand_one_line(form, line(form, entry(kind="note.x", actor=text, token_id=text, b=text)))
    demand_one_line(form, line(form, entry(kind=text or "x", scopes=(text, text))))
    demand_one_line(form, line(form, Entry(kind="x.y", at_ns=0, actor="a", facts={text: text})))


@given(
    st.text(max_size=40),
    st.text(max_size=40),
    st.dictionaries(st.text(max_size=20), st.one_of(st.text(), st.integers(), st.none())),
    st.integers(-(2**63), 2**63 - 1),
)
def test_any_entry_is_one_readable_line(kind, actor, facts, at_ns):
    made = Entry(kind=kind, at_ns=at_ns, actor=actor, facts=facts)
    for form in FORMATS:
        demand_one_line(form, line(form, made))


def test_what_was_typed_is_what_is_read():
    made = entry(kind="note.x", actor='a"]|=\\', result='pa"ss]ed=|\\')
    _, parameters = read_syslog(line("syslog", made))
    assert parameters["actor"] == 'a"]|=\\'
    assert parameters["fact_result"] == 'pa"ss]ed=|\\'
    assert parameters["index"] == "7"
    head, fields = read_cef(line("cef", made))
    assert head[:3] == ["modelkeep", "modelkeep", "0.1.0"]
    assert fields["suser"] == 'a"]|=\\'
    assert fields["modelkeepResult"] == 'pa"ss]ed=|\\'
    assert fields["externalId"] == "7"
    event = read_ocsf(line("ocsf", made))
    assert event["unmapped"]["result"] == 'pa"ss]ed=|\\'
    assert event["metadata"]["sequence"] == 7
    plain = json.loads(line("jsonl", made))
    assert plain["facts"] == {"result": 'pa"ss]ed=|\\'}
    assert plain["index"] == 7


def test_every_kind_is_of_a_class():
    classes = {}
    for name, kind in CATALOGUE.items():
        facts = dict.fromkeys(kind.facts, "v")
        made = Entry(kind=name + "x" * name.endswith("."), at_ns=1, actor="a", facts=facts)
        for form in FORMATS:
            demand_one_line(form, line(form, made))
        classes[name] = read_ocsf(line("ocsf", made))["class_uid"]
    assert classes["token.created"] == 3004
    assert classes["witness.refused"] == 2004
    assert classes["note."] == 0
    assert set(classes.values()) == {0, 2004, 3004}


def test_what_is_cut_says_so():
    made = entry(kind="note.x", **{f"f{n}": "y" * 400 for n in range(30)})
    assert read_ocsf(line("ocsf", made))["unmapped"]["truncated"] is True
    assert read_cef(line("cef", made))[1]["modelkeepTruncated"] == "true"
    assert read_syslog(line("syslog", made))[1]["truncated"] == "true"
    assert len(json.loads(line("jsonl", made))["facts"]) == 30
