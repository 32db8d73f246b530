"""Waiting for what another process does."""

from __future__ import annotations

import json
import time
import urllib.request


def until(true, seconds=180.0, instead=lambda: "nothing"):
    """Wait until something is true; ``instead`` says what is the case where it never is."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"it never came true: {instead()}"
        time.sleep(0.2)


def health(served):
    with urllib.request.urlopen(f"{served.url}/health") as answer:
        return json.load(answer)
