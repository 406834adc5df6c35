"""`python -m modelkeep`: the command line."""

import sys

from modelkeep.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
