"""``python -m oneword``: the command line, for when the command ``oneword`` is not on the path."""

from __future__ import annotations

import sys

from oneword.cli.main import main


if __name__ == "__main__":
    sys.exit(main())
