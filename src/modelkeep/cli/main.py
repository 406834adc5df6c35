"""The process boundary of the command line: parse, run one verb, turn errors into exit codes."""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence

from modelkeep import __version__
from modelkeep.cli.output import json_text, safe_text
from modelkeep.cli.parser import WrongUsage, parser
from modelkeep.core.errors import KeepError, UnavailableError

EXIT_BUG = 70
EXIT_INTERRUPTED = 130
# These put packs into a store before anything names them.
_STORING = ("admit", "import", "save")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    grammar = parser()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        options = grammar.parse_args(words)
        if options.json and options.verb is None and not options.says_version:
            grammar.error("a verb is missing")
    except WrongUsage as leaving:
        return _failed(leaving.error, as_json="--json" in words)
    if options.says_version:
        print(f"modelkeep {__version__}")
        return 0
    if options.verb is None:
        grammar.print_help()
        return 2
    return _ended(options)


def _ended(options: argparse.Namespace) -> int:
    """Run the verb; whatever is raised becomes an exit code here."""
    try:
        return _done(options)
    except KeepError as error:
        return _failed(error, as_json=options.json)
    except KeyboardInterrupt:
        stored = options.verb in _STORING
        room = "; `modelkeep prune` frees the space of what it had stored" * stored
        print(f"modelkeep: interrupted; nothing is half-written{room}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception:  # noqa: BLE001 - the process boundary: whatever is left is our bug
        traceback.print_exc()
        print("modelkeep: error: this is a bug in modelkeep; please report it", file=sys.stderr)
        return EXIT_BUG


def _done(options: argparse.Namespace) -> int:
    """Import the verb's own function and run it; a reader who has seen enough is no error."""
    module, _, function = options.chosen.run.partition(":")
    run = getattr(importlib.import_module(f"modelkeep.cli.{module}"), function)
    try:
        return int(run(options))
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise UnavailableError(
            "system.os",
            f"the system refused{where}: {error.strerror or error}",
            hint="look at the path, its permissions and the space that is left",
        ) from error


def _failed(error: KeepError, *, as_json: bool) -> int:
    if as_json:
        print(json_text(error.as_facts()), file=sys.stderr)
    else:
        print(f"modelkeep: error: {safe_text(str(error))}", file=sys.stderr)
        if error.hint:
            print(f"modelkeep: hint: {safe_text(error.hint)}", file=sys.stderr)
    return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
