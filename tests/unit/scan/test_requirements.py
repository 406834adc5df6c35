"""Unit tests of scan.requirements and scan.environments: what a file asks for, as pip reads it."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.scan import requirements
from modelkeep.scan.environments import ENVIRONMENT_BYTES_MAX, OF_CONDA, required_environment
from modelkeep.scan.requirements import (
    ELSEWHERE,
    MANY,
    MISSING,
    OUTSIDE,
    UNPINNED,
    UNREADABLE,
    _lines,
    required,
)

HASH = "sha256:" + "a1" * 32


def asked(text, **files):
    given = {name.replace("_", "."): each.encode() for name, each in files.items()}
    found = required(text.encode(), place="r.txt", opened=given.get)
    return [(each.name, each.version, each.why_not) for each in found]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("Foo_Bar.baz==1.0", ("foo-bar-baz", "1.0", "")),
        ("foo[a,b]==1.0 ; python_version < '3'", ("foo", "1.0", "")),
        ("foo ==1.0, >=0.9", ("foo", "1.0", "")),
        ("foo===1.0-weird", ("foo", "1.0-weird", "")),
        ("foo==1.0+cpu  # with a reason", ("foo", "1.0+cpu", "")),
        ("foo", ("foo", "", UNPINNED)),
        ("foo>=1", ("foo", "", UNPINNED)),
        ("foo~=1.0", ("foo", "", UNPINNED)),
        ("foo==1.*", ("foo", "", UNPINNED)),
        ("foo==1.0,==2.0", ("foo", "", UNPINNED)),
        ("foo @ https://example.org/foo-1.0.zip", ("foo", "", ELSEWHERE)),
        ("-e git+https://example.org/x.git@main#egg=Foo", ("foo", "", ELSEWHERE)),
        ("--editable=./foo", ("./foo", "", ELSEWHERE)),
        ("git+ssh://git@example.org/x#subdirectory=y&egg=foo", ("foo", "", ELSEWHERE)),
        ("./wheels/foo-1.0-py3-none-any.whl", None),
        ("https://example.org/foo-1.0.tar.gz", None),
        ("${WHO}==1.0", ("${WHO}==1.0", "", UNREADABLE)),
        ("foo==${VERSION}", ("foo==${VERSION}", "", UNREADABLE)),
        ("foo = 1.0", ("foo = 1.0", "", UNREADABLE)),
        ("--requiremen other.txt", ("--requiremen other.txt", "", UNREADABLE)),
        ("--pre -r other.txt", ("--pre -r other.txt", "", UNREADABLE)),
        ("-r other.txt", ("other.txt", "", MISSING)),
        ("-r https://example.org/r.txt", ("https://example.org/r.txt", "", MISSING)),
    ],
)
def test_a_line_asks_for_one_package_or_says_why_nobody_knows_which(line, wanted):
    (found,) = asked(line)
    assert found == (wanted or (line, "", ELSEWHERE))


def test_options_of_a_file_ask_for_nothing():
    assert asked("--index-url https://example.org\n-i x\n--pre\n--no-binary=:all:\n# foo\n\n") == []


def test_hashes_and_joined_lines_are_read_as_pip_writes_them():
    text = (
        f"foo==1.0 \\\n    --hash={HASH} \\\n    --hash {HASH.replace('a1', 'b2')}\n  # via bar\n"
    )
    (found,) = required((text + "# end \\\n").encode(), place="r.txt")
    assert (found.name, found.version, found.place) == ("foo", "1.0", "r.txt:1")
    assert found.hashes == (HASH, HASH.replace("a1", "b2"))


def test_included_files_are_read_once_and_circles_end():
    found = asked("foo==1\n-r a.txt\n-ra.txt\n", a_txt="bar==2\n--requirement=r.txt\n-r a.txt\n")
    assert found == [("foo", "1", ""), ("bar", "2", "")]
    names = []
    text = b"-r ../up.txt\n-r sub/x.txt\n-r /etc/passwd\n"
    required(text, place="in/r.txt", opened=names.append)
    assert names == ["up.txt", "in/sub/x.txt"]


def test_a_constraint_pins_what_is_asked_for_and_asks_for_nothing():
    found = asked("foo>=1\nbar==1\n-c c.txt\n", c_txt="foo==1.5\nbar==2\nbaz==3\n")
    assert found == [("foo", "1.5", ""), ("bar", "1", "")]
    assert asked("foo\n-c c.txt\n", c_txt="foo==1\nfoo==2\n") == [("foo", "", UNPINNED)]


def test_a_file_above_the_folder_is_not_asked_for_and_that_is_said():
    names = []
    text = b"-r ../x.txt\n-c a/../../y.txt\n--requirement=/etc/passwd\n-r a/../..x\n"
    found = required(text, place="r.txt", opened=names.append)
    assert [each.why_not for each in found] == [OUTSIDE, OUTSIDE, OUTSIDE, MISSING]
    assert names == ["..x"]


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://evil.example/simple",
        "--index-url=https://evil.example/simple",
        "-i https://pypi.org.evil.example/simple",
        "-ihttps://evil.example/simple",
        "--extra-index-url 'https://evil.example/simple'",
        "--extra-index https://evil.example/simple",
        "--pre --find-links ./wheels",
        '--pre "--index-url" https://evil.example',
        "--pre --index\\-url https://evil.example",
        "-f https://evil.example",
        "-i http://pypi.org/simple",
        "-i",
        "-c c.txt",
    ],
)
def test_of_another_index_nothing_is_known_wherever_it_is_named(line):
    evil = "--index-url https://evil.example/simple"
    for text in (f"{line}\nfoo==1.0\nbar\n", f"foo==1.0\nbar\n{line}\n"):
        found = [each for each in asked(text, c_txt=evil) if each[0] in ("foo", "bar")]
        assert found == [("foo", "1.0", ELSEWHERE), ("bar", "", UNPINNED)]


@pytest.mark.parametrize(
    "line",
    ["-i https://pypi.org/simple", "--index-url='https://pypi.org/simple/' --pre", "--no-index"],
)
def test_the_index_that_advisories_are_of_may_be_named(line):
    assert asked(f"{line}\nfoo==1.0\n") == [("foo", "1.0", "")]


@pytest.mark.parametrize("text", ["foo==1.0\nbar==2\n-c c.txt", "-c c.txt\nfoo==1.0\nbar==2"])
def test_what_a_constraint_gives_an_address_for_is_not_of_the_index(text):
    named = asked(text, c_txt="foo @ https://evil.example/foo.whl")
    assert named == [("foo", "1.0", ELSEWHERE), ("bar", "2", "")]
    wheel = "https://evil.example/foo-1.0-py3-none-any.whl"
    found = {each[0]: each[2] for each in asked(text, c_txt=wheel)}
    assert found == {"foo": ELSEWHERE, "bar": ELSEWHERE, wheel: ELSEWHERE}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_may_begin_with_a_mark_of_its_encoding(encoding):
    (found,) = required("foo==1.0  # ä\n".encode(encoding), place="r.txt")
    assert (found.name, found.version) == ("foo", "1.0")


def test_a_file_that_is_no_text_is_not_silently_empty():
    (found,) = required(b"foo==1.0\n\xff\xfe\xfa", place="r.txt")
    assert found.why_not == UNREADABLE


CONDA = """
channels:
- conda-forge
dependencies:
- python=3.10.12
- conda-forge::libblas>=3
- pip<=23.2
- pip:
  - mlflow==2.9.2
  - "numpy<2"
name: mlflow-env
"""
PYTHON_ENV = """
python: 3.10.12
build_dependencies:
- pip==23.2
dependencies:
- -r requirements.txt
"""


def test_environments_of_mlflow_are_read():
    found = required_environment(CONDA.encode(), place="conda.yaml", opened=lambda _: None)
    assert [(each.name, each.version, each.why_not) for each in found] == [
        ("python", "3.10.12", OF_CONDA),
        ("conda-forge::libblas", ">=3", OF_CONDA),
        ("pip", "<=23.2", OF_CONDA),
        ("mlflow", "2.9.2", ""),
        ("numpy", "", UNPINNED),
    ]
    files = {"m/requirements.txt": b"torch==2.0\n"}
    found = required_environment(PYTHON_ENV.encode(), place="m/python_env.yaml", opened=files.get)
    assert [(each.name, each.version) for each in found] == [("torch", "2.0"), ("pip", "23.2")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "a: b",
        "dependencies: foo",
        "dependencies: &a [*a]",
        "dependencies: []\ndependencies: []",
        "dependencies: []\n---\ndependencies: []",
        "dependencies: [!!python/name:os.system x]",
        "dependencies: " + "[" * 1000,
        "x: " + "y" * ENVIRONMENT_BYTES_MAX,
    ],
)
def test_an_environment_that_cannot_be_read_is_not_silently_empty(text):
    found = required_environment(text.encode(), place="conda.yaml", opened=lambda _: None)
    assert [each.why_not for each in found] == [UNREADABLE]


WORDS = st.sampled_from(
    [
        "foo==1.0",
        "bar>=2",
        "#",
        " # c",
        "\\",
        "\n",
        "\n",
        " ",
        "-r a",
        "--hash=x",
        "\\\\",
        "\t",
        "x#y",
    ]
)


@given(st.lists(WORDS, max_size=20).map("".join))
def test_lines_are_joined_and_cut_as_pip_does_it(text):
    """Against pip's own reader, where this environment has pip."""
    req_file = pytest.importorskip("pip._internal.req.req_file")
    wanted = [
        (number, line)
        for number, line in req_file.ignore_comments(
            req_file.join_lines(enumerate(text.splitlines(), 1))
        )
    ]
    assert list(_lines(text)) == wanted


@pytest.mark.parametrize(
    "raw", [b" " * 3_000_000, b"x #" * 900_000, b"-e " + b"#" * 3_000_000, b"a\\\n" * 900_000]
)
def test_hostile_lines_cost_no_more_than_their_length(raw):
    started = time.process_time()
    required(raw, place="r.txt")
    assert time.process_time() - started < 5


def test_more_lines_than_are_read_are_not_silently_left_out(monkeypatch):
    monkeypatch.setattr(requirements, "_LINES_MAX", 3)
    assert [each[2] for each in asked("a==1\nb==1\nc==1\n")] == ["", "", ""]
    assert [each[2] for each in asked("a==1\nb==1\nc==1\nd==1\ne==1\n")] == ["", "", "", MANY]


@pytest.mark.verify("fuzz")
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_come_to_packages_with_a_version_or_a_reason(raw):
    for found in (
        *required(raw, place="r.txt", opened=lambda _: raw),
        *required_environment(raw, place="conda.yaml", opened=lambda _: raw),
    ):
        assert found.version or found.why_not
        assert re.sub(r"\s", "", found.name).isprintable()
