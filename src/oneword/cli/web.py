"""``oneword web``: the page in the browser."""

from __future__ import annotations

import threading
import webbrowser
from collections.abc import Sequence

from oneword.cli import options
from oneword.cli.arguments import WebArguments
from oneword.config.web import WebConfig
from oneword.runs.events import asked_to_stop
from oneword.web.forms import PLACE
from oneword.web.server import serving


def run(chosen: WebArguments, _words: Sequence[str]) -> int:
    """Serve until somebody asks to stop."""
    with asked_to_stop() as asked, serving(options.settings(WebConfig, chosen)) as served:
        options.tell(f"The page is at {served.url}. It writes to {chosen.workspace}.")
        if served.auth is not None and chosen.auth is None:
            user, _, password = served.auth.partition(":")
            options.tell(f"Log in as {user} with the password {password}.")
        for name, forms in served.studies.items():
            place = f"{served.url}{PLACE}/{name}"
            options.tell(
                f"Anyone with a link such as {place}/{forms.names[0]}.html can fill in that form. "
                f"The answers go to {forms.answers}."
            )
        options.tell("Ctrl-C stops it. Words that are still learning are saved and can be resumed.")
        if chosen.browser:
            threading.Thread(target=webbrowser.open, args=(served.url,), daemon=True).start()
        asked.wait()
    return 0
