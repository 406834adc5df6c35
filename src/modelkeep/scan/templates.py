"""Jinja templates: parsed by Jinja's own parser and judged by what they reach; never rendered.

Theory of operation. A loader that renders a template outside a sandbox gives it every attribute of
every object it can name, and from any object `__class__` and `__globals__` lead to the whole
process (CVE-2024-34359). So:

1. a name that begins with an underscore is never reached: not as an attribute, a subscript, an
   argument of `attr`, `map`, `selectattr` and the like, nor inside a format text;
2. a subscript or an attribute's name is written, not computed: text that is put together (`~`, `+`,
   `%`, a filter, a method) and then used as a name holds, and is denied where its pieces could make
   such a name; a variable stands for everything that is assigned to it;
3. other templates are not loaded; what runs commands or reads files is not called;
4. loops and repetitions over written numbers stay small.

What a chat template of a real model does (loops over messages, joins text, calls `strip`,
`raise_exception`, `strftime_now`) passes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.evidence import found, listed, printable

# Real chat templates have up to 20 KB; Jinja parses a megabyte in seconds.
TEMPLATE_CHARS_MAX = 256 * 1024
_NODES_MAX = 100_000
_ASSIGNMENTS_MAX = 256
_NUMBER_MAX = 1_000_000
_LOOPS_MAX = 10_000_000
_SEVERE = re.compile(r"__|^_|\b_[a-z]+__")
# Frames, code and functions lead to globals without an underscore in front.
_FRAMES = frozenset(
    {
        "gi_frame", "gi_code", "cr_frame", "cr_code", "ag_frame", "ag_code", "f_globals",
        "f_builtins", "f_locals", "f_back", "func_globals", "func_code", "im_func", "im_self",
        "tb_frame", "mro", "subclasses", "co_consts",
    }
)  # fmt: skip
_ACTING = frozenset(
    {
        "popen", "system", "eval", "exec", "compile", "execfile", "spawn", "fork", "execv",
        "execve",
        "check_output", "getoutput", "import_module", "load_module", "read_text", "write_text",
        "read_bytes", "write_bytes", "urlopen", "urlretrieve", "rmtree", "unlink", "from_string",
        "get_template", "open", "Popen", "breakpoint", "getattr", "setattr", "globals", "vars",
        "format_map",
    }
)  # fmt: skip
# Filters whose argument (which one, or the keyword) is an attribute's name.
_NAMING_FILTERS = {
    "attr": 0, "selectattr": 0, "rejectattr": 0, "groupby": 0, "map": None, "sort": None,
    "sum": 0, "unique": None, "min": None, "max": None, "join": 1,
}  # fmt: skip
_TEXT_METHODS = frozenset(
    {"format", "join", "replace", "lower", "upper", "strip", "lstrip", "rstrip", "title",
     "translate", "decode", "encode", "removeprefix", "removesuffix", "ljust", "center", "zfill"}
)  # fmt: skip


# Expressions that put text together.
_JOINING = (
    nodes.Concat, nodes.Add, nodes.Mul, nodes.Mod, nodes.Filter, nodes.Slice, nodes.AssignBlock,
    nodes.Call, nodes.Getitem,
)  # fmt: skip
_EXPRESSION_DEPTH_MAX = 20


class _Generation(Extension):
    """`{% generation %}`: where transformers marks what the assistant says."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        """Take the block's body as it stands."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


_ENVIRONMENT = Environment(  # noqa: S701 - nothing is rendered
    extensions=["jinja2.ext.loopcontrols", "jinja2.ext.do", _Generation]
)


def template_findings(subject: str, text: str) -> tuple[Finding, ...]:
    """Judge one template."""
    if len(text) > TEMPLATE_CHARS_MAX:
        what = f"is a template of {len(text)} characters, more than are looked at"
        return (found("scan.template.limit", Severity.MEDIUM, subject, what),)
    try:
        # Environment.parse keeps the frames of an error, and with them the file's bytes.
        tree = Parser(_ENVIRONMENT, text).parse()
        judge = _Judge(subject)
        judge.template(tree)
    except TemplateError as error:
        line = f" in line {getattr(error, 'lineno', 0)}"
        what = f"does not parse as a Jinja template{line}: {error!s:.120}"
        severity = Severity.HIGH if _reaches(text) else Severity.MEDIUM
        return (found("scan.template.broken", severity, subject, what),)
    except (RecursionError, MemoryError):
        what = "nests deeper than any template that a person wrote"
        return (found("scan.template.depth", Severity.HIGH, subject, what),)
    except (ValueError, OverflowError) as error:  # numbers and escapes that Python refuses
        what = f"does not parse as a Jinja template: {error!s:.120}"
        return (found("scan.template.broken", Severity.HIGH, subject, what),)
    return tuple(judge.findings)


def _reaches(text: str) -> bool:
    return (
        re.search(r"__(?:class|globals|init|builtins|import|mro|subclasses|base)", text) is not None
    )


@dataclass(slots=True)
class _Judge:
    """Collects what one template reaches."""

    subject: str
    findings: list[Finding] = field(default_factory=list)
    assigned: dict[str, list[nodes.Node]] = field(default_factory=dict)
    seen: set[tuple[str, str]] = field(default_factory=set)

    def note(self, rule: str, severity: Severity, node: nodes.Node, text: str) -> None:
        if (rule, text) not in self.seen and len(self.seen) < 50:
            self.seen.add((rule, text))
            where = f"line {node.lineno}: {text}"
            self.findings.append(found("scan.template." + rule, severity, self.subject, where))

    def template(self, tree: nodes.Node) -> None:
        every = list(_bounded(tree))
        if len(every) > _NODES_MAX:
            self.note("limit", Severity.MEDIUM, tree, "has more parts than are looked at")
        for node in every:
            self._remember(node)
        for node in every:
            self._judge(node)
            if isinstance(node, nodes.For):
                self._doubling(node)
        self._loops(tree)

    def _remember(self, node: nodes.Node) -> None:
        pairs: list[tuple[nodes.Node, nodes.Node]] = []
        if isinstance(node, nodes.Assign):
            pairs = [(node.target, node.node)]
        elif isinstance(node, nodes.For):
            pairs = [(node.target, node.iter)]
        elif isinstance(node, nodes.With):
            pairs = list(zip(node.targets, node.values, strict=False))
        elif isinstance(node, nodes.AssignBlock):
            pairs = [(node.target, node)]
        elif isinstance(node, nodes.Macro):
            pairs = list(zip(node.args[::-1], node.defaults[::-1], strict=False))
        for target, value in pairs:
            for part in _bounded(target):
                if isinstance(part, nodes.Name | nodes.NSRef):
                    self._assign(part.name, value)

    def _assign(self, name: str, value: nodes.Node) -> None:
        values = self.assigned.setdefault(name, [])
        if len(values) < _ASSIGNMENTS_MAX:
            values.append(value)
        else:
            text = f"assigns {printable(name, 40)} more often than is looked at"
            self.note("limit", Severity.MEDIUM, value, text)

    # ---- one part ----

    def _judge(self, node: nodes.Node) -> None:
        match node:
            case nodes.Getattr():
                self._name(node, node.attr)
            case nodes.Getitem():
                self._subscript(node, node.arg)
            case nodes.Filter() | nodes.Test():
                self._filter(node)
            case nodes.Call():
                self._call(node)
            case nodes.Keyword():
                self._name(node, node.key)
            case nodes.Const():
                self._constant(node)
            case nodes.Name(name=name) if name.startswith("__"):
                self._name(node, name)
            case nodes.Include() | nodes.Import() | nodes.FromImport() | nodes.Extends():
                self._load(node)
            case nodes.Mul() | nodes.Pow():
                self._product(node)
            case _:
                return

    def _name(self, node: nodes.Node, name: str) -> None:
        plain = unicodedata.normalize("NFKC", name)
        if plain.startswith("_") or "__" in plain or plain in _FRAMES:
            text = f"reaches the attribute {printable(name, 60)!r}: from there to the whole process"
            self.note("reach", Severity.HIGH, node, text)

    def _subscript(self, node: nodes.Node, arg: nodes.Node) -> None:
        texts, computed = self._texts(arg, set(), 0)
        for text in texts:
            for part in text.split("."):
                self._name(node, part)
        if not texts and any(each.name in ("string", "join") for each in _filters(arg)):
            text = "takes the name of an attribute from text that it makes"
            self.note("computed", Severity.MEDIUM, node, text)
        if computed and texts:
            suspect = any("_" in text or "\\" in text or "%" in text for text in texts)
            suspect = suspect or any(text[::-1].startswith("__") for text in texts)
            severity = Severity.HIGH if suspect else Severity.MEDIUM
            text = f"puts the name of an attribute together: {listed(sorted(texts))}"
            self.note("computed", severity, node, text)

    def _texts(self, node: nodes.Node, names: set[str], depth: int) -> tuple[set[str], bool]:
        """The texts that an expression is made of, and whether they are put together."""
        if depth > _EXPRESSION_DEPTH_MAX:
            return {"…"}, True
        if isinstance(node, nodes.Const | nodes.TemplateData | nodes.Keyword):
            return _written(node), isinstance(node, nodes.Keyword)
        variable = node.node if isinstance(node, nodes.Getattr) else node
        if isinstance(variable, nodes.Name | nodes.NSRef):
            return self._assigned_texts(variable.name, names, depth)
        if _is_data(node):
            return set(), False
        parts = node.body if isinstance(node, nodes.AssignBlock) else list(node.iter_child_nodes())
        texts: set[str] = set()
        computed = isinstance(node, _JOINING)
        for part in parts:
            inner_texts, inner_computed = self._texts(part, names, depth + 1)
            texts |= inner_texts
            computed = computed or inner_computed
        return texts, computed and bool(texts)

    def _assigned_texts(self, name: str, names: set[str], depth: int) -> tuple[set[str], bool]:
        texts: set[str] = set()
        computed = False
        if name in names:
            return texts, computed
        for value in self.assigned.get(name, ()):
            inner, put_together = self._texts(value, names | {name}, depth + 1)
            texts |= inner
            computed = computed or put_together
        return texts, computed

    def _filter(self, node: nodes.Filter | nodes.Test) -> None:
        if node.name not in _NAMING_FILTERS:
            return
        place = _NAMING_FILTERS[node.name]
        args = list(node.args or ())
        naming = [each.value for each in node.kwargs or () if each.key == "attribute"]
        if place is not None and len(args) > place:
            naming.append(args[place])
        for arg in naming:
            self._subscript(node, arg)
        if node.name == "map" and args:
            texts, _ = self._texts(args[0], set(), 0)
            if "attr" in texts:
                for arg in args[1:]:
                    self._subscript(node, arg)
                self.note("attribute", Severity.MEDIUM, node, "takes attributes by name (`attr`)")
        if node.name == "attr" and isinstance(node, nodes.Filter):
            text = "takes an attribute by name (`attr`)"
            self.note("attribute", Severity.MEDIUM, node, text)

    def _call(self, node: nodes.Call) -> None:
        called = node.node
        name = ""
        if isinstance(called, nodes.Getattr):
            name = called.attr
        elif isinstance(called, nodes.Getitem) and isinstance(called.arg, nodes.Const):
            name = str(called.arg.value)
        elif isinstance(called, nodes.Name) and called.name not in self.assigned:
            name = called.name
        if name in _ACTING:
            text = f"calls {name!r}, which acts outside the template"
            self.note("call", Severity.HIGH, node, text)
        if name == "format":
            for text in self._texts(called, set(), 0)[0]:
                if re.search(r"\{[^}]*[._\[]", text) and "_" in text:
                    self._name(node, "_" + text)

    def _constant(self, node: nodes.Const) -> None:
        value = node.value
        if isinstance(value, str):
            if re.search(r"__[A-Za-z]+__", unicodedata.normalize("NFKC", value)):
                text = f"holds the text {printable(value, 60)!r}, a name of Python's inside"
                self.note("reach", Severity.HIGH, node, text)
        elif isinstance(value, int) and abs(value) > _NUMBER_MAX:
            severity = Severity.HIGH if abs(value) > _LOOPS_MAX else Severity.MEDIUM
            self.note("bomb", severity, node, f"holds the number {str(value)[:30]}")

    def _load(self, node: nodes.Node) -> None:
        if isinstance(node, nodes.Import | nodes.FromImport | nodes.Include | nodes.Extends):
            what = node.template.value if isinstance(node.template, nodes.Const) else "?"
            text = f"loads another template: {printable(str(what), 80)!r}"
            self.note("load", Severity.HIGH, node, text)

    def _product(self, node: nodes.Mul | nodes.Pow) -> None:
        sides = [_number(node.left), _number(node.right)]
        if isinstance(node, nodes.Pow):
            base, power = sides
            if base is None or power is None or power > 8 or base > 1_000:
                self.note("bomb", Severity.HIGH, node, "raises to a power")
        elif any(side is not None and side > _NUMBER_MAX // 10 for side in sides):
            self.note("bomb", Severity.HIGH, node, f"repeats {max(s or 0 for s in sides)} times")

    # ---- loops ----

    def _doubling(self, loop: nodes.For) -> None:
        """A text that a round makes of itself, twice: forty rounds are more than any memory."""
        changed: list[nodes.Assign | nodes.AssignBlock] = [
            *loop.find_all(nodes.Assign),
            *loop.find_all(nodes.AssignBlock),
        ]
        names = {_path(each.target) for each in changed} - {""}
        for each in changed:
            joined = [_path(part) for part in _joined(each)]
            twice = [name for name in names if joined.count(name) > 1]
            if twice:
                self.note("bomb", Severity.HIGH, each, f"doubles {twice[0]} in every round")

    def _loops(self, tree: nodes.Node) -> None:
        """How often the innermost loop over written numbers would run."""
        pending = [(tree, 1)]
        while pending:
            node, times = pending.pop()
            if isinstance(node, nodes.For):
                times *= max(1, _range_of(node.iter))
                if times > _LOOPS_MAX // 10:
                    self.note("bomb", Severity.HIGH, node, f"loops at least {times} times")
                    return
            pending.extend((child, times) for child in node.iter_child_nodes())


def _path(node: nodes.Node) -> str:
    """A variable, or an attribute of one, as it is written."""
    if isinstance(node, nodes.NSRef):
        return f"{node.name}.{node.attr}"
    if isinstance(node, nodes.Getattr):
        inner = _path(node.node)
        return inner and f"{inner}.{node.attr}"
    return node.name if isinstance(node, nodes.Name) else ""


def _joined(node: nodes.Assign | nodes.AssignBlock) -> Iterator[nodes.Node]:
    """What is put together, one behind the other, in what is assigned."""
    pending: list[nodes.Node] = (
        list(node.body) if isinstance(node, nodes.AssignBlock) else [node.node]
    )
    while pending:
        part = pending.pop()
        if isinstance(part, nodes.Mul):
            pending += [part.left, part.right]
            if any((_number(side) or 0) > 1 for side in (part.left, part.right)):
                pending += [part.left, part.right]
        elif isinstance(part, nodes.Add):
            pending += [part.left, part.right]
        elif isinstance(part, nodes.Concat | nodes.Output):
            pending += part.nodes
        elif isinstance(part, nodes.List | nodes.Tuple):
            pending += part.items
        elif isinstance(part, nodes.Filter) and part.name in ("join", "list", "string"):
            pending += [part.node] if part.node is not None else []
        else:
            yield part


def _written(node: nodes.Const | nodes.TemplateData | nodes.Keyword) -> set[str]:
    value = node.value if isinstance(node, nodes.Const) else ""
    if isinstance(node, nodes.TemplateData):
        value = node.data
    if isinstance(node, nodes.Keyword):
        value = node.key
    return {value} if isinstance(value, str) else set()


def _is_data(node: nodes.Node) -> bool:
    """Whether an expression gives what the conversation holds, not text of the template."""
    if isinstance(node, nodes.Call):
        method = node.node.attr if isinstance(node.node, nodes.Getattr) else ""
        is_dict = isinstance(node.node, nodes.Name) and node.node.name == "dict"
        return method not in _TEXT_METHODS and not is_dict
    if isinstance(node, nodes.Getitem):
        return isinstance(node.node, nodes.Name | nodes.Getattr | nodes.Call)
    return isinstance(node, nodes.Compare | nodes.Test)


def _bounded(tree: nodes.Node) -> Iterator[nodes.Node]:
    """Every node, without recursion, up to one past the bound."""
    pending = [tree]
    count = 0
    while pending and count <= _NODES_MAX:
        node = pending.pop()
        count += 1
        yield node
        pending.extend(node.iter_child_nodes())


def _number(node: nodes.Node) -> int | None:
    if isinstance(node, nodes.Const) and isinstance(node.value, int | float):
        return int(node.value)
    if isinstance(node, nodes.Mul):
        left, right = _number(node.left), _number(node.right)
        return None if left is None or right is None else left * right
    return None


def _range_of(node: nodes.Node) -> int:
    """How many rounds `range` of written numbers gives; 1 for all that data decides."""
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name):
        if node.node.name != "range" or not node.args:
            return 1
        numbers = [_number(arg) for arg in node.args]
        if any(number is None for number in numbers):
            return 1
        known = [number or 0 for number in numbers]
        return len(range(*known[:3])) if len(known) < 3 or known[2] else 1
    return 1


def _filters(node: nodes.Node) -> Iterator[nodes.Filter]:
    if isinstance(node, nodes.Filter):
        yield node
    yield from node.find_all(nodes.Filter)
