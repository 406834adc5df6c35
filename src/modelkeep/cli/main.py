"""The process boundary of the command line: parse, run one verb, turn errors into exit codes."""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence

from modelkeep import __version__
from modelkeep.cli.parser import parser
from modelkeep.core.errors import KeepError
from modelkeep.core.record import to_json

EXIT_BUG = 70
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    grammar = parser()
    options = grammar.parse_args(arguments)
    if options.says_version:
        print(f"modelkeep {__version__}")
        return 0
    if options.verb is None:
        grammar.print_help()
        return 2
    try:
        return _done(options)
    except KeepError as error:
        return _failed(error, as_json=options.json)
    except KeyboardInterrupt:
        print("modelkeep: interrupted; nothing is half-written", file=sys.stderr)
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


def _failed(error: KeepError, *, as_json: bool) -> int:
    if as_json:
        print(to_json(error.as_facts()).decode(), file=sys.stderr)
    else:
        print(f"modelkeep: error: {error}", file=sys.stderr)
        if error.hint:
            print(f"modelkeep: hint: {error.hint}", file=sys.stderr)
    return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
