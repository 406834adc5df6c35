"""Writes docs/reference from the code, so that the pages cannot drift.

scripts/reference.py           writes the pages
scripts/reference.py --check   says which pages are old; exit 1 if any is

Errors are read from the places that raise them (nothing is imported for that), settings from the
records of `modelkeep.config`, metrics from `modelkeep.watch.metrics`, verbs from the parser of
`modelkeep.cli.main`. `tests/docs` runs the check, `tests/arch` uses the readers.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "modelkeep"
PAGES = ROOT / "docs" / "reference"
if str(SOURCE) not in sys.path:
    sys.path.insert(0, str(SOURCE))

GENERATED = "<!-- made by scripts/reference.py; change the code, not this page -->"
CODE_FORM = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*|\.<[a-z_]+>)+")

# `raise IntegrityError(finding.rule, …)`: the code was made elsewhere.
FORWARDED = frozenset({"code", "rule"})


# ---- errors ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Raised:
    """One place that makes an expected error."""

    code: str  # "" where the code is no literal
    error: str
    message: str
    file: str
    line: int


_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class _Relay:
    """A function that makes an error with a code that it was given."""

    function: _Function
    error: str
    code: ast.expr
    message: ast.expr | None


def error_classes() -> dict[str, type[Any]]:
    """The expected errors by name."""
    errors = importlib.import_module("modelkeep.core.errors")
    return {
        name: each
        for name, each in vars(errors).items()
        if isinstance(each, type) and issubclass(each, errors.KeepError)
    }


def raised_errors() -> list[Raised]:
    """Every place in the package that makes an expected error."""
    names = frozenset(error_classes())
    found: list[Raised] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(SOURCE).as_posix()
        if file != "modelkeep/core/errors.py":
            found.extend(_raised_in(ast.parse(path.read_text(encoding="utf-8")), file, names))
    return found


def _raised_in(tree: ast.Module, file: str, names: frozenset[str]) -> Iterator[Raised]:
    relays: list[_Relay] = []
    for call, around in _calls(tree):
        if _called(call) not in names or not call.args:
            continue
        message = call.args[1] if len(call.args) > 1 else None
        givers = [each for each in around if _is_parameter(call.args[0], each)]
        if isinstance(call.args[0], ast.Attribute) and call.args[0].attr in FORWARDED:
            continue
        if givers:
            relays.append(_Relay(givers[-1], _called(call), call.args[0], message))
        else:
            for each in _either(call.args[0], around):
                code = _formed(_text(each))
                yield Raised(code, _called(call), _text(message), file, call.lineno)
    for relay in relays:
        for call, _ in _calls(tree):
            if _called(call) == relay.function.name:
                code = _text(_given(call, relay.function, relay.code))
                said = _text(_given(call, relay.function, relay.message))
                yield Raised(_formed(code), relay.error, said, file, call.lineno)


def _either(node: ast.expr, around: tuple[_Function, ...]) -> tuple[ast.expr, ...]:
    """What an expression may be: both arms of a choice, also of one that got a name before."""
    if isinstance(node, ast.Name) and around:
        name = node.id
        for each in ast.walk(around[-1]):
            if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == name:
                node = each.value
    return (node.body, node.orelse) if isinstance(node, ast.IfExp) else (node,)


def _formed(code: str) -> str:
    return code if CODE_FORM.fullmatch(code) else ""


def _calls(
    node: ast.AST, around: tuple[_Function, ...] = ()
) -> Iterator[tuple[ast.Call, tuple[_Function, ...]]]:
    """Every call below a node, with the functions that it stands in, the outermost first."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield child, around
        yield from _calls(child, (*around, child) if isinstance(child, _Function) else around)


def _positional(function: _Function) -> list[str]:
    names = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def _is_parameter(node: ast.expr | None, function: _Function) -> bool:
    keywords = [each.arg for each in function.args.kwonlyargs]
    return isinstance(node, ast.Name) and node.id in _positional(function) + keywords


def _given(call: ast.Call, function: _Function, node: ast.expr | None) -> ast.expr | None:
    """What a call puts in the place of a parameter; the node itself if it is none."""
    if not isinstance(node, ast.Name) or not _is_parameter(node, function):
        return node
    for keyword in call.keywords:
        if keyword.arg == node.id:
            return keyword.value
    if node.id in _positional(function):
        position = _positional(function).index(node.id)
        return call.args[position] if position < len(call.args) else None
    return None


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _text(node: ast.expr | None) -> str:
    """A string as it stands; what is filled in later is shown as `<name>`."""
    if node is None:
        return ""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return f"<{_last_name(node.value)}>"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return f"<{_last_name(node)}>"


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Subscript):
        return _last_name(node.value)
    if isinstance(node, ast.Call) and node.args and _called(node) in {"len", "str", "repr"}:
        return _last_name(node.args[0])
    return "…"


def errors_page() -> str:
    """Codes, with what they mean for a program and for a person."""
    classes = error_classes()
    by_code: dict[str, list[Raised]] = {}
    for each in raised_errors():
        if each.code:
            by_code.setdefault(each.code, []).append(each)
    lines = [
        "# Errors",
        "",
        GENERATED,
        "",
        "The class says what the caller should do, the code what happened. Codes are stable; they",
        "stand in the ledger, in `--json` output and in the gateway's error bodies.",
        "",
        "| class | exit | HTTP | again may help | meaning |",
        "|---|---|---|---|---|",
    ]
    for name, error in classes.items():
        retry = "yes" if error.retryable else "no"
        status = f"{error.exit_status} | {error.http_status_default}"
        lines.append(f"| {name} | {status} | {retry} | {_first_line(error)} |")
    lines += [
        "",
        "| code | class | exit | HTTP | message | raised in |",
        "|---|---|---|---|---|---|",
    ]
    for code, places in sorted(by_code.items()):
        first = places[0]
        sample = classes[first.error](code, "")
        files = ", ".join(sorted({f"`{each.file.removeprefix('modelkeep/')}`" for each in places}))
        lines.append(
            f"| `{code}` | {first.error} | {sample.exit_status} | {sample.http_status} "
            f"| {_cell(first.message)} | {files} |"
        )
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text for a cell of a table; what stands between back-ticks stays code."""
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    parts[::2] = [re.sub(r"([<>*_])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


# ---- settings --------------------------------------------------------------------------------


def config_page() -> str:
    """Every key of modelkeep.toml, as `modelkeep config explain` says it."""
    config = importlib.import_module("modelkeep.config")
    lines = [
        "# modelkeep.toml",
        "",
        GENERATED,
        "",
        "Every key has its default here; unknown keys are refused. Secrets never stand in it, only",
        "references to them. `table.key` stands in `[table]`, `stores[].label` in `[[stores]]`.",
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{key.key}` | {_cell(key.type)} | `{key.default}` | {_cell(key.meaning)} |"
        for key in config.explained()
    ]
    return "\n".join(lines) + "\n"


def _first_line(each: object) -> str:
    return (inspect.getdoc(each) or "").partition("\n")[0]


# ---- metrics ---------------------------------------------------------------------------------


def metric_definitions() -> list[Any]:
    """Every metric that is defined, by name."""
    metrics = importlib.import_module("modelkeep.watch.metrics")
    found = [each for each in vars(metrics).values() if isinstance(each, metrics.MetricDefinition)]
    return sorted(found, key=lambda each: str(each.name))


def metrics_page() -> str:
    """Every metric with its labels."""
    lines = ["# Metrics", "", GENERATED, ""]
    lines += ["The last word of a name is its unit.", ""]
    lines += ["| name | kind | labels | meaning |", "|---|---|---|---|"]
    for each in metric_definitions():
        labels = ", ".join(f"`{label}`" for label in each.labels)
        lines.append(f"| `{each.name}` | {each.kind} | {labels} | {_cell(each.meaning)} |")
    return "\n".join(lines) + "\n"


# ---- verbs -----------------------------------------------------------------------------------


def cli_page() -> str:
    """Every verb with its arguments and examples; the same on every version of Python."""
    main = importlib.import_module("modelkeep.cli.main")
    lines = ["# The command line", "", GENERATED]
    for path, parser in verbs(main.parser()):
        lines += ["", f"## {path}", "", textwrap.dedent(parser.description or "").strip()]
        rows = [
            f"| `{_invocation(action)}` | {_cell(_help(parser, action))} |"
            for action in parser._actions  # noqa: SLF001  # argparse has no other list of them
            if action.help != argparse.SUPPRESS
            and not isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
        ]
        if rows:
            lines += ["", "| argument | meaning |", "|---|---|", *rows]
        if parser.epilog:
            lines += ["", "```text", textwrap.dedent(parser.epilog).strip(), "```"]
    return "\n".join(lines) + "\n"


def verbs(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """A parser and all that it leads to, with the words that lead there."""
    yield parser.prog, parser
    for action in parser._actions:  # noqa: SLF001  # argparse has no other list of them
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for each in dict.fromkeys(action.choices.values()):
                yield from verbs(each)


def _invocation(action: argparse.Action) -> str:
    value = action.metavar or action.dest
    if isinstance(value, tuple):
        value = " ".join(value)
    if action.choices is not None and action.metavar is None:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    elif action.metavar is None:
        value = value.upper().replace("-", "_")
    if not action.option_strings:
        return value
    flags = ", ".join(action.option_strings)
    return flags if action.nargs == 0 else f"{flags} {value}"


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    values = {**vars(action), "prog": parser.prog}
    return (action.help or "") % {key: str(value) for key, value in values.items()}


# ---- the pages -------------------------------------------------------------------------------


def pages() -> Mapping[str, str]:
    """Every page that the code as it stands can fill."""
    made = {"errors.md": errors_page()}
    if importlib.util.find_spec("modelkeep.config"):
        made["config.md"] = config_page()
    if (PACKAGE / "watch" / "metrics.py").exists():
        made["metrics.md"] = metrics_page()
    if (PACKAGE / "cli" / "main.py").exists():
        made["cli.md"] = cli_page()
    return made


def stale_pages() -> list[str]:
    """Names of pages that do not say what the code says."""
    return [
        name
        for name, text in pages().items()
        if not (PAGES / name).exists() or (PAGES / name).read_text(encoding="utf-8") != text
    ]


def main() -> int:
    """Write the pages, or say which are old."""
    parser = argparse.ArgumentParser(description="Write docs/reference from the code.")
    parser.add_argument("--check", action="store_true", help="only say which pages are old")
    if parser.parse_args().check:
        stale = stale_pages()
        for name in stale:
            print(f"docs/reference/{name} is old: run scripts/reference.py")
        return 1 if stale else 0
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (PAGES / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
