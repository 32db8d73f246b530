"""What a file says reaches a person as text: one test for each destination."""

from __future__ import annotations

import html.parser
import io
import shlex
import shutil
import subprocess

import pytest
from rich.console import Console

from oneword import _escaping


NASTY = [
    "\x1b]0;owned\x07\x1b[2Jcat",
    "one\ntwo\r\n# three",
    "a\u202egnp.exe",
    "half a pair \udcff",
    "[bold red]x[/bold red] [/] \\[b] end\\",
    "<script>alert(1)</script> & <img src=x onerror=alert(1)>",
    "\"' onload='x",
    "**b** _i_ `c` ``d`` [t](http://x) ![i](y) | cell | ~~s~~ $m$ &amp; \\*",
    "# heading",
    "- item",
    "1. item",
    "'; touch pwned; '",
    "$(touch pwned) `touch pwned` \\ ! \x9b",
]


def test_a_terminal_sees_no_control_character():
    assert _escaping.terminal("\x1b[2Ja\tb\n\x9bé日👩‍🚀\udcff\u202e") == (
        "\\x1b[2Ja\\tb\\n\\x9bé日👩‍🚀\\udcff\\u202e"
    )
    assert _escaping.terminal("a\tb\n\x1b", lines=True) == "a\tb\n\\x1b"
    for text in NASTY:
        shown = _escaping.terminal(text)
        assert shown.isprintable() or "\u200d" in shown
        shown.encode()  # no half of a surrogate pair is left


@pytest.mark.parametrize("text", NASTY)
def test_richs_markup_takes_nothing_for_a_style(text):
    out = io.StringIO()
    console = Console(file=out, width=200, emoji=False, highlight=False)
    console.print(f"[bold]{_escaping.rich(text)}[/bold]")
    assert out.getvalue().rstrip("\n").rstrip() == _escaping.terminal(text).rstrip()


class _Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text, self.attributes = [], "", []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("text", NASTY)
def test_html_has_the_text_and_no_further_tag_or_attribute(text):
    page = _Page()
    safe = _escaping.html(text)
    page.feed(f"<p title='{safe}'>{safe}</p>")
    page.close()
    assert page.tags == ["p"]
    assert page.text == _escaping.terminal(text, lines=True)
    assert page.attributes == [("title", page.text)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("clip_l, 0.002 (cat-toy)", "clip_l, 0.002 (cat-toy)"),
        ("x\n\n# Owned <img src=x>", "x # Owned &lt;img src=x&gt;"),
        ("**b** _i_ `c`", "\\*\\*b\\*\\* \\_i\\_ \\`c\\`"),
        ("[t](u) ![i](v) a|b", "\\[t\\](u) !\\[i\\](v) a\\|b"),
        ("&lt; \\ ~~s~~ $m$", "&amp;lt; \\\\ \\~\\~s\\~\\~ \\$m\\$"),
        ("# h", "\\# h"),
        ("- i", "\\- i"),
        ("12. i", "12\\. i"),
        ("\x1b[2J", "\\\\x1b\\[2J"),
    ],
)
def test_markdown_is_text_on_one_line(text, shown):
    assert _escaping.markdown(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<cat>", "`<cat>`"),
        ("a`b", "``a`b``"),
        ("`a`", "`` `a` ``"),
        ("a``b\n# c", "```a``b # c```"),
        ("a|b", "`a\\|b`"),
        ("", "` `"),
    ],
)
def test_code_in_markdown_ends_where_it_must(text, shown):
    assert _escaping.markdown_code(text) == shown


@pytest.mark.parametrize("text", NASTY)
def test_a_shell_gets_the_very_words_back(text):
    line = _escaping.shell(["printf", "%s", text])
    assert line == _escaping.terminal(line)  # nothing in it reaches the terminal that prints it
    if "$'" not in line:
        assert shlex.split(line) == ["printf", "%s", text]
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("no bash")
    done = subprocess.run([shell, "-c", line], capture_output=True, check=True)
    assert done.stdout == text.encode("utf-8", "surrogateescape")
