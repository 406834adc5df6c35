"""What a person or a program sees: tables and JSON on stdout, progress on stderr."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from modelkeep.core.record import as_plain, to_json

if TYPE_CHECKING:
    from rich.console import Console

    from modelkeep.ports.sandbox import Measure

UNLIMITED = 100_000  # columns of a table that goes to a file or a pipe
CELL_CHARS_MIN = 12  # a narrower column cannot be read
_ESCAPED = re.compile(r"[\x7f-\x9f\u2028\u2029]")  # JSON lets them stand; some screens obey them


def console(*, stderr: bool = False) -> Console:
    """A rich console on stdout or stderr."""
    from rich.console import Console  # noqa: PLC0415 - 40 ms that `--help` need not pay

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    """One JSON document on one line."""
    print(json_text(value), flush=True)


def json_text(value: object) -> str:
    """One JSON document on one line; a byte in a string that is no UTF-8 becomes text."""
    try:
        text = to_json(value).decode()
    except UnicodeEncodeError:
        text = to_json(_encodable(as_plain(value))).decode()
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def said(facts: object, text: str, *, as_json: bool) -> int:
    """What a verb did, as JSON or as lines for a person; the exit status of a verb that is done."""
    if as_json:
        print_json(facts)
    else:
        print("\n".join(map(safe_text, text.split("\n"))))
    return 0


def safe_text(text: str) -> str:
    """The text without what a terminal would obey: nothing in it can forge a line or a colour."""
    return text if text.isprintable() else "".join(map(_safe, text))


def _safe(char: str) -> str:
    """One character; a byte that was no UTF-8 comes as a lone surrogate U+DC80 to U+DCFF."""
    if char.isprintable():
        return char
    return f"\\x{ord(char) - 0xDC00:02x}" if "\udc80" <= char <= "\udcff" else ascii(char)[1:-1]


def _encodable(plain: object) -> object:
    if isinstance(plain, str):
        return "".join(_safe(char) if "\ud800" <= char <= "\udfff" else char for char in plain)
    if isinstance(plain, dict):
        return {_encodable(key): _encodable(value) for key, value in plain.items()}
    if isinstance(plain, list | tuple):
        return [_encodable(each) for each in plain]
    return plain


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table for people; nothing but its head when there are no rows.

    The first column names the row and has to be typed again: it is never cut or wrapped.
    """
    from rich.table import Table  # noqa: PLC0415 - see `console`
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0)
    cells = [[Text(safe_text(str(cell))) for cell in row] for row in rows]
    for row_cells in cells:
        table.add_row(*row_cells)
    screen = console()
    width = UNLIMITED
    if sys.stdout.isatty():
        first = max([len(columns[0]), *(row_cells[0].cell_len for row_cells in cells)])
        width = max(screen.width, first + (len(columns) - 1) * (CELL_CHARS_MIN + 2))
    screen.width = width  # `print` would take no more than the screen has
    screen.print(table)


@contextmanager
def progress(what: str, total_bytes: int | None = None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, shown only on a terminal and only after a second.

    Yields:
        A function to be called with the number of bytes done since its last call.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import (  # noqa: PLC0415 - see `console`
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=console(stderr=True), transient=True)
    task = bar.add_task(what, total=total_bytes)
    with bar:
        yield lambda done: bar.advance(task, done)


def said_measures(measures: Sequence[Measure], *, as_json: bool) -> int:
    """Say what a process is locked in with, measure by measure."""
    if as_json:
        print_json(measures)
        return 0
    rows = [(each.name, "on" if each.is_on else "off", each.why) for each in measures]
    print_table(("measure", "here", "what that means, or why not"), rows)
    return 0
