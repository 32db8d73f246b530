"""What the guide to the page prints, run as it stands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlparse

import pytest
from PIL import Image


GUIDE = Path(__file__).parents[2] / "docs/guides/page.md"
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")


def blocks():
    """The guide's blocks of code that call the server."""
    found = re.findall(r"(?:^    .*\n)+", GUIDE.read_text() + "\n", flags=re.MULTILINE)
    return [block for block in found if "curl" in block]


@pytest.fixture
def asked(served, tmp_path):
    """Runs a block in a shell in which the guide's address is that of the served page."""
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    port = urlparse(served.url).port
    here = f'connect-to = "127.0.0.1:7860:127.0.0.1:{port}"\nnoproxy = "*"\n'
    (tmp_path / ".curlrc").write_text(here)

    def run(block):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            env=os.environ | {"CURL_HOME": str(tmp_path)},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_curl_lines_draw_and_tell_what_is_under_way(served, asked):
    draw, health = blocks()
    told = asked(draw)
    *_, last = re.findall(r"^event: complete\ndata: (.*)$", told, flags=re.MULTILINE)
    said, pictures, *_ = json.loads(last)
    assert said.startswith("4 pictures in ")
    assert len(pictures) == 4
    drawn = sorted(Path(said.removeprefix("4 pictures in ").rstrip(".")).glob("*.png"))
    with Image.open(drawn[0]) as picture:
        assert picture.info["prompt"] == "a photo of a red mug"
    assert json.loads(asked(health))["status"] == "ok"
