"""A user study's forms, for whoever has their link, and the answers that come back.

Nothing else of the page can be reached this way, and no form unless its study was opened by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from oneword._files import FormError, decoded, parsed, read_text
from oneword.errors import UserError
from oneword.prompts.descriptions import DescriptionError
from oneword.study.userstudy import answers, captions, forms, kept, pages
from oneword.study.userstudy.answers import AnswerError
from oneword.study.userstudy.items import UserStudyError


PLACE = "/study"
"""Where the forms stand on the server, a folder for each study."""
MOST_BYTES = 2**16
"""Of one person's answers, which take a few thousand."""
_MAX_FORM = 2**28  # bytes
_CAPTIONS = f"{captions.QUESTIONNAIRE}-"
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Forms:
    """The forms of a folder, open to answers, which go into ``answers.sqlite`` beside them.

    Args:
        folder: As ``oneword userstudy make`` or ``captions`` has written it.

    Raises:
        UserStudyError: it holds no forms, or such that cannot be served.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.answers = folder, folder / kept.FILE
        self.key = forms.load(folder) if (folder / forms.KEY).is_file() else None
        self.names = [] if self.key is None else [*self.key.forms]
        self.names += sorted(path.stem for path in folder.glob(f"{_CAPTIONS}*.html"))
        if not self.names:
            raise UserStudyError(
                "A study to be served must hold forms, got none in "
                f"{folder}; write them with oneword userstudy make --output-dir {folder}."
            )
        self.page(self.names[0])

    def page(self, name: str) -> str:
        """A form as it is sent.

        Raises:
            UserStudyError: there is none of that name, or it cannot be read.
        """
        path = self.folder / f"{self._known(name)}.html"
        must = "The form must be a page that oneword userstudy wrote"
        return pages.served(read_text(path, most=_MAX_FORM, must=must, error=UserStudyError))

    def take(self, name: str, body: bytes) -> str:
        """Check one person's answers to a form, and keep them; what to tell the person.

        Args:
            name: The form's.
            body: The answers as JSON; nothing of it is trusted.

        Raises:
            AnswerError: they are not whole, well-formed answers to this form.
            TwiceError: the person has answered before.
            UserStudyError: there is no such form, or the answers cannot be kept.
        """
        self._known(name)
        try:
            content = decoded(body, "The answers", error=UserStudyError)
            found = parsed(content)
        except FormError as problem:
            raise AnswerError("unreadable", f"The answers must be JSON ({problem}).") from None
        except UserStudyError as problem:
            raise AnswerError("unreadable", str(problem)) from None
        self._check(name, found)
        is_new = kept.put(
            self.answers,
            form=name,
            person=found["participant"] or found["respondent"],
            respondent=found["respondent"],
            content=content,
        )
        return (
            "Your answers have been received." if is_new else "Your answers were received before."
        )

    def _known(self, name: str) -> str:
        if name not in self.names:
            raise UserStudyError("This form does not exist; check the link.")
        return name

    def _check(self, name: str, found: Any) -> None:
        if name.startswith(_CAPTIONS):
            captions.examine(Path(name.removeprefix(_CAPTIONS)), found)
            return
        assert self.key is not None
        form = answers.examine(self.key, found).form
        if form != name:
            raise AnswerError(
                "of another questionnaire", f"The answers must be to {name}, got those to {form}."
            )


def routes(studies: Mapping[str, Forms]) -> list[Route]:
    """What the server answers to under :data:`PLACE`; nothing where no study is open.

    Args:
        studies: Those that are open, by name.
    """

    async def answer(request: Request) -> Response:
        study, _, name = request.path_params.get("path", "").partition("/")
        one, name = studies.get(study), name.removesuffix(".html")
        if one is None or name not in one.names:
            return _refused(request, 404, "This form does not exist; check the link.")
        try:
            if request.method != "POST":
                html = await run_in_threadpool(one.page, name)
                return HTMLResponse(html, headers=_HEADERS)
            body = await _body(request)
            if body is None:
                text = (
                    f"The answers must be JSON of at most {MOST_BYTES} bytes, got something else."
                )
                return _refused(request, 413, text)
            text = await run_in_threadpool(one.take, name, body)
        except kept.TwiceError as error:
            return _refused(request, 409, str(error), again=False)
        except (AnswerError, DescriptionError) as error:
            return _refused(request, 422, str(error))
        except UserError as error:
            return _refused(request, 503, str(error))
        return JSONResponse({"taken": True, "again": False, "text": text}, headers=_HEADERS)

    places = (PLACE, PLACE + "/{path:path}") if studies else ()
    return [Route(place, answer, methods=["GET", "POST"]) for place in places]


async def _body(request: Request) -> bytes | None:
    """What was sent; ``None``: it is no JSON by its name, or too much, of which no more is read."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return None
    found = b""
    async for part in request.stream():
        found += part
        if len(found) > MOST_BYTES:
            return None
    return found


def _refused(request: Request, code: int, text: str, *, again: bool = True) -> Response:
    if request.method != "POST":
        return PlainTextResponse(text, code, headers=_HEADERS)
    told = {"taken": False, "again": again, "text": text}
    return JSONResponse(told, code, headers=_HEADERS)
