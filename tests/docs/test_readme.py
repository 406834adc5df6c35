"""What the README, the docs and the hints tell people to type can be typed; every link leads on.

In code blocks a command must parse whole; in running text its verb and its options must exist.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import pytest

from modelkeep.cli.parser import VERBS, parser
from tests.arch.source import PACKAGE, ROOT

README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GRAMMAR = parser()
# Words of `./run` itself; everything else is handed to the command line.
OWN_WORDS = ("test", "bench", "verify")
# Ends one command of a shell line.
ENDS = re.compile(r"[;&|()<>]+")
BLOCK = re.compile(r"^ *```(?:sh|bash|console|shell)?\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
HERE_DOCUMENT = re.compile(r"<<'(\w+)'\n.*?^\1$", re.MULTILINE | re.DOTALL)

if not README.exists():
    pytest.skip("there is no README.md yet", allow_module_level=True)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())


def blocks(page: Path) -> list[str]:
    """The shell's code blocks, continued lines joined."""
    found = BLOCK.findall(page.read_text())
    without_files = [
        re.sub(r"<<'(\w+)'\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL) for text in found
    ]
    return [text.replace("\\\n", " ") for text in without_files]


def phrases(text: str) -> list[str]:
    """What stands in backticks in running text and begins like a command."""
    plain = FENCED.sub("", text)
    return re.findall(r"`((?:modelkeep|\./run)(?:\s[^`]*)?)`", plain)


def commands(line: str) -> list[list[str]]:
    """The commands of ours on one line of shell, as words after the program's name."""
    lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    found: list[list[str]] = [[]]
    with contextlib.suppress(ValueError):  # a line of some other language
        for word in lexer:
            if ENDS.fullmatch(word) or word.endswith("=$"):
                found.append([])
            else:
                found[-1].append(word)
    return [
        words[1:] for words in found if words and words[0] in ("modelkeep", "./run", "mk", "$run")
    ]


def parses(words: list[str]) -> bool:
    """Whether the real grammar takes it."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            GRAMMAR.parse_args(words)
        except SystemExit as leaving:
            return leaving.code == 0  # --help, --version
    return True


def is_own(words: list[str]) -> bool:
    """Whether `./run` does it itself, and can."""
    if not words or words[0] not in OWN_WORDS:
        return False
    if words[0] == "bench" and words[1:] and words[1].islower():
        assert (ROOT / "benchmarks" / f"{words[1]}.py").exists(), words
    if words[0] == "verify" and words[1:] and words[1].islower():
        tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
        assert f'mark.verify("{words[1]}")' in tests, words
    return True


def subparsers(found: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """What may follow a parser's own words."""
    for action in found._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def strangers(words: list[str]) -> list[str]:
    """Words of a phrase that are no verb where one must stand, or no option of it."""
    found, wrong = GRAMMAR, []
    takes_value = False
    for word in words:
        if word.startswith("--"):
            known = {name: action for action in found._actions for name in action.option_strings}
            wrong += [] if word in known or word == "--" else [word]
            takes_value = word in known and known[word].nargs != 0
        elif takes_value:
            takes_value = False
        elif subparsers(found) and word[:1].islower():
            if word not in subparsers(found):
                return [*wrong, word]
            found = subparsers(found)[word]
    return wrong


@each_page
def test_every_command_in_a_code_block_parses(page):
    if page.relative_to(ROOT).as_posix() == "docs/reference/cli.md":
        pytest.skip("usage lines; its examples are tested with the verbs")
    found = [
        words for block in blocks(page) for line in block.splitlines() for words in commands(line)
    ]
    assert not [words for words in found if not (is_own(words) or parses(words))]


@each_page
def test_every_command_in_running_text_exists(page):
    found = [phrase.replace("…", "").split()[1:] for phrase in phrases(page.read_text())]
    assert not [words for words in found if not is_own(words) and strangers(words)]


def test_every_command_in_a_hint_or_a_docstring_exists():
    """A hint that names a verb which does not exist is worse than none."""
    wrong = {
        path.relative_to(PACKAGE).as_posix(): strange
        for path in PACKAGE.rglob("*.py")
        for phrase in phrases(path.read_text())
        for words in [phrase.replace("…", "").split()[1:]]
        if not is_own(words) and (strange := strangers(words))
    }
    assert not wrong


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_example_of_a_verb_parses_and_is_of_that_verb(verb):
    for example in verb.examples:
        words = commands(example)[0]
        assert parses(words), example
        assert GRAMMAR.parse_args(words).chosen is verb, example


def test_the_readme_names_the_two_commands_and_the_quick_start():
    lines = [line for block in blocks(README) for line in block.splitlines()]
    found = {word for line in lines for words in commands(line) for word in words}
    assert {"demo", "test", "init", "admit", "serve", "backup", "recover"} <= found


# ---- links ---------------------------------------------------------------------------------------


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    text = FENCED.sub("", page.read_text())
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *#*$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")
        number, unique = 0, slug
        while unique in found:
            number += 1
            unique = f"{slug}-{number}"
        found.add(unique)
    return found


@each_page
def test_every_relative_link_leads_somewhere(page):
    text = re.sub(
        r"^ *```.*?^ *```|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL
    )
    targets = re.findall(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)", text)
    targets += re.findall(r"^\[[^]]+\]: *(\S+)", text, re.MULTILINE)
    broken = []
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        is_there = file.exists() and file.is_relative_to(ROOT)
        if not is_there or (anchor and file.suffix == ".md" and anchor not in slugs(file)):
            broken.append(target)
    assert not broken
