"""What all tests share, where tests run.

pytest-xdist's first process only hands them out to others, which it starts after it has read this
file: it does without torch, so that they start ten seconds earlier.
"""

from __future__ import annotations

import os
import sys


if "PYTEST_XDIST_WORKER" in os.environ or "-n" not in sys.argv:
    from shared import *  # noqa: F403
