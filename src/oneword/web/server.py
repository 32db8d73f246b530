"""The server behind the page: loopback unless asked otherwise, and then only with a password."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import gradio as gr
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from oneword.concepts.library import Library
from oneword.config.web import WebConfig
from oneword.errors import UserError
from oneword.web import app
from oneword.web.desk import Desk
from oneword.web.forms import Forms, routes
from oneword.web.page import Page, sentence
from oneword.web.uploads import Uploads
from oneword.web.workspace import Workspace


class ServerError(UserError):
    """The page cannot be served."""


@dataclass(frozen=True, slots=True)
class Served:
    """A page that is served."""

    url: str
    auth: str | None
    """USER:PASSWORD that is asked for."""
    page: Page
    studies: dict[str, Forms]
    """User studies whose forms are open, by name."""


@contextmanager
def serving(config: WebConfig) -> Iterator[Served]:
    """Serve the page for as long as the context lasts; then every run's state is saved.

    Raises:
        ServerError: the port is taken, or the address is none of this machine.
        UserError: the workspace cannot be written, or a study to be opened has no forms.
    """
    config = replace(config, workspace=config.workspace.absolute())
    workspace = Workspace(config.workspace)
    studies = {name: Forms(workspace.studies / name) for name in config.studies}
    # gradio keeps uploads here; it reads these when it is asked to serve
    os.environ["GRADIO_TEMP_DIR"] = str(workspace.uploads)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    auth = config.auth
    if auth is None and not config.is_private:
        auth = f"oneword:{secrets.token_urlsafe(12)}"
    desk = Desk(config.model, config.slots)
    uploads = Uploads(workspace.uploads, workspace.words)
    uploads.sweep()
    page = Page(config, workspace, desk, Library(workspace.words), uploads)
    # a drawing never changes, so it is served from where it lies; gradio copies all other files
    gr.set_static_paths(workspace.drawings)
    built = app.build(page)
    built.queue(default_concurrency_limit=8)
    try:
        served, url, _ = built.launch(
            server_name=config.host,
            server_port=config.port or None,
            auth=None if auth is None else tuple(auth.split(":", 1)),  # pyright: ignore
            prevent_thread_lock=True,
            share=False,
            quiet=True,
            show_error=True,
            ssr_mode=False,
            enable_monitoring=False,
            footer_links=["api", "settings"],
            allowed_paths=[str(workspace.words), str(workspace.drawings), str(workspace.away)],
            max_file_size=f"{config.max_upload_mb}mb",
            theme=gr.themes.Base(),
            head=app.HEAD,
            # of an upload, which gradio writes itself
            app_kwargs={"exception_handlers": {OSError: _refused}},
        )
    except OSError as error:
        raise ServerError(
            f"Cannot serve the page at {config.host}:{config.port} because {error}; pass "
            "another --port, or --port 0 for any free one."
        ) from error
    # before gradio's own, which ask for the password
    served.router.routes[:0] = [Route("/health", lambda _: _health(page)), *routes(studies)]
    desk.start()
    try:
        yield Served(url.rstrip("/"), auth, page, studies)
    finally:
        desk.close()
        built.close(verbose=False)


def _refused(_: Request, error: Exception) -> PlainTextResponse:
    """What a request is told that a full disk, or a vanished folder, has ended."""
    assert isinstance(error, OSError)
    return PlainTextResponse(sentence(error), 507)


def _health(page: Page) -> JSONResponse:
    """Whether the page can work, for whoever watches over it."""
    desk = page.desk
    under_way = [name for name, one in desk.standings().items() if one.is_under_way]
    return JSONResponse(
        {
            "status": "failed" if desk.problem else "ok" if desk.loaded else "loading",
            "model": page.model.model,
            "learning": under_way,
        },
        status_code=503 if desk.problem else 200,
    )
