"""The pages that people fill in; each is a single HTML file that makes no requests."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from oneword._files import read_text
from oneword.evaluation.report import seen
from oneword.study.userstudy.items import UserStudyError


KIT = 1
"""Version of the answers' form."""
_SEND = Path(__file__).with_name("send.js").read_text(encoding="utf-8")
_MAX_CONSENT = 100_000  # bytes
_PAGES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=seen,
)
_CONSENT = (
    "Taking part is voluntary, and you may stop at any time by closing the page.",
    "What is kept: your answers, how long they took, your participant id if you give one, and a "
    "random number that this page draws. Your name, address and device are not recorded.",
)
_SERVED = {
    "default-src 'none';": "default-src 'none'; connect-src 'self';",
    'data-answers="file"': 'data-answers="server"',
    "</body>": "<script>\n{send}</script>\n</body>",
}
"""What stands once in a page's file, and in its place where a server takes the answers. None can
stand in a text that the page shows, which is escaped."""


def rendered(name: str, *, data: dict[str, str], consent: Sequence[str], **values: Any) -> str:
    """A page of the kit.

    Args:
        name: Of its template.
        data: What its script puts into the answers.
        consent: Paragraphs that people agree to.
        values: What the template shows, as text; it is escaped there.
    """
    return _PAGES.get_template(name).render(data=json.dumps(data), consent=consent, **values)


def served(html: str) -> str:
    """A page for a server that takes the answers: the page sends them to where it came from.

    Args:
        html: The page as it lies in its file.

    Raises:
        UserStudyError: it is no page of this version.
    """
    if any(html.count(once) != 1 for once in _SERVED):
        raise UserStudyError(
            "Cannot serve this form because another version wrote it; write it again with oneword "
            "userstudy, or hand it out as a file."
        )
    for once, instead in _SERVED.items():
        html = html.replace(once, instead.replace("{send}", _SEND))
    return html


def consent_text(path: Path | None) -> list[str]:
    """Paragraphs of a text file, or our own.

    Raises:
        UserStudyError: the file cannot be read, or is empty.
    """
    if path is None:
        return list(_CONSENT)
    must = "The consent must be a readable text file"
    text = read_text(path, most=_MAX_CONSENT, must=must, error=UserStudyError)
    found = [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]
    if not found:
        raise UserStudyError(f"The consent must contain text, got none in {path}.")
    return found


def completion_code(parts: Sequence[str]) -> str:
    """What a page shows at its end: CRC-32 (ISO 3309) of what was answered, as eight digits.

    It detects files that were damaged or changed by hand, and belongs to one person's answers. It
    is not a signature: anyone who reads the page's script can compute it.

    Args:
        parts: The questionnaire, the form, the participant, the respondent, then the answers.
    """
    return f"{zlib.crc32('|'.join(parts).encode()):08X}"
