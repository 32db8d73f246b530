"""The Hub: finding a word's file in its repository, and uploading files."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from oneword.errors import UserError


LEARNED = "learned_embeds.safetensors"
_ENDINGS = (".safetensors", ".bin", ".pt", ".png", ".ckpt")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w.\-/]+)?")

_TIMEOUT_S = 10
T = TypeVar("T")


class HubError(UserError):
    """A repository of the Hub cannot be read or written."""


class UnreachableError(HubError):
    """The Hub does not answer."""


def is_repository(text: str) -> bool:
    """Whether a text may be ``OWNER/NAME`` or ``OWNER/NAME@REVISION``, and is not a file's name."""
    name = text.partition("@")[0]
    return bool(_REPOSITORY.fullmatch(text)) and PurePosixPath(name).suffix not in _ENDINGS


def fetch(repository: str) -> Path:
    """The file with a repository's words, downloaded into the Hub's cache.

    Args:
        repository: ``OWNER/NAME``, with ``@REVISION`` for another revision than its main branch.

    Returns:
        ``learned_embeds.safetensors`` if there is one, otherwise the only file that may hold an
        embedding.

    Raises:
        HubError: the repository does not exist, needs a token, or has no such file or several, or
            the Hub cannot be reached.
    """
    name, _, revision = repository.partition("@")
    api = _api(None)

    def download(file: str, **options: Any) -> Path:
        return Path(api.hf_hub_download(name, file, revision=revision or None, **options))

    try:
        # checked first, because without a network a download tries for half a minute
        info = _asked(
            repository, lambda: api.model_info(name, revision=revision or None, timeout=_TIMEOUT_S)
        )
    except UnreachableError:
        with contextlib.suppress(OSError):  # an earlier download will do
            return download(LEARNED, local_files_only=True)
        raise
    files = [one.rfilename for one in info.siblings or ()]
    found = embeddings(files)
    if len(found) != 1:
        raise HubError(
            f"The repository {repository} must hold {LEARNED} or one embedding file, got "
            f"{', '.join(found) or 'none'}; download the one you mean and pass its path."
        )
    return _asked(repository, lambda: download(found[0]))


def embeddings(names: Sequence[str]) -> list[str]:
    """Which files of a repository, or of a folder like one, may be the embedding.

    Only ``learned_embeds.safetensors`` if there is one; otherwise all files with the first of the
    extensions .safetensors, .bin and .pt that occurs, except the second half of a pair.
    """
    if LEARNED in names:
        return [LEARNED]
    names = [name for name in names if ".." not in name.split("/")]
    for ending in (".safetensors", ".bin", ".pt"):
        found = [name for name in names if name.endswith(ending)]
        halves = {f"{name.removesuffix(ending)}_2{ending}" for name in found}
        if found:
            return [name for name in found if name not in halves]
    return []


def check_upload(repository: str, *, token: str | None = None) -> None:
    """Refuse an upload that cannot work, as far as that is known without the Hub.

    Args:
        repository: ``OWNER/NAME``, or ``NAME`` for one that the token's owner has.
        token: A token with write access; default: that of ``hf auth login`` or ``HF_TOKEN``.

    Raises:
        HubError: the name is not valid, or there is no token.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
        is_name = "/" not in repository or is_repository(repository)
    except HFValidationError:
        is_name = False
    if not is_name:
        raise HubError(
            f"The repository must be OWNER/NAME, or NAME for one of your own, got {repository!r}."
        )
    if not (token or get_token()):
        raise HubError(
            "Cannot upload to the Hub without a token that may write; run `hf auth login`, or set "
            "HF_TOKEN."
        )


def full_name(repository: str, *, token: str | None = None) -> str:
    """``OWNER/NAME`` of a repository; without an owner, the token's owner is used.

    Raises:
        HubError: as for :func:`check_upload`; or the Hub does not know the token, or cannot be
            reached.
    """
    check_upload(repository, token=token)
    if "/" in repository:
        return repository
    owner = _asked(repository, lambda: _api(token).whoami()["name"], writes=True)
    return f"{owner}/{repository}"


def upload(
    files: Sequence[tuple[Path | bytes, str]],
    repository: str,
    *,
    message: str,
    private: bool = False,
    token: str | None = None,
) -> str:
    """Upload files in one commit; the repository is created if it does not exist.

    Args:
        files: Each file, or its bytes, with its name in the repository.
        repository: ``OWNER/NAME``.
        message: The commit message.
        private: Make a new repository private.
        token: A token with write access; default: that of ``hf auth login`` or ``HF_TOKEN``.

    Returns:
        The repository's address.

    Raises:
        HubError: as for :func:`check_upload`; or the token has no write access, or the Hub cannot
            be reached.
    """
    from huggingface_hub import CommitOperationAdd

    check_upload(repository, token=token)
    api = _api(token)
    address = _asked(
        repository, lambda: api.create_repo(repository, private=private, exist_ok=True), writes=True
    )
    operations = [CommitOperationAdd(name, data) for data, name in files]
    _asked(
        repository,
        lambda: api.create_commit(repository, operations=operations, commit_message=message),
        writes=True,
    )
    return str(address)


def _api(token: str | None):
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)


def _asked(repository: str, call: Callable[[], T], *, writes: bool = False) -> T:
    """Call the Hub, and turn its errors into one sentence."""
    from huggingface_hub import errors

    try:
        return call()
    except errors.GatedRepoError as error:
        raise HubError(
            f"Cannot read the repository {repository} because it is gated; ask for access on its "
            "page, then run `hf auth login` or set HF_TOKEN."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"{repository} must be a file or folder here or a repository of the Hub, got neither; "
            "check the spelling. If it is private, run `hf auth login` or set HF_TOKEN."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(
            f"The repository {repository.partition('@')[0]} must have the revision "
            f"{repository.partition('@')[2]!r}, got no such revision."
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        hint = "; the token must be allowed to write there" if status in (401, 403) else ""
        raise HubError(
            f"The Hub refused the request for {repository} ({status}): "
            f"{(error.server_message or str(error)).splitlines()[0][:200]}{hint}."
        ) from error
    except (errors.HTTPError, OSError, RuntimeError) as error:
        # an upload that breaks off is a RuntimeError
        if writes:
            text = f"Cannot reach the Hub to upload {repository}: {str(error)[:200]}; check "
            raise UnreachableError(text + "the network and try again.") from error
        raise UnreachableError(
            f"Cannot find {repository} because it is no file or folder here and the Hub cannot be "
            "reached; check the path, or the network."
        ) from error
