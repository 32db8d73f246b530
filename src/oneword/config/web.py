"""What the page is asked for."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from oneword._files import is_plain_name
from oneword.config.model import ModelConfig
from oneword.errors import require


@dataclass(frozen=True, kw_only=True, slots=True)
class WebConfig:
    """Open the page in the browser: teach, draw with, edit with and keep words."""

    workspace: Path = Path("oneword-web")
    """Folder for everything that the page writes: pictures, words, drawings. It touches no other folder."""
    model: ModelConfig = field(default_factory=ModelConfig)
    host: str = "127.0.0.1"
    """Address to listen on. Any address but this machine's own needs a password."""
    port: int = 7860
    """Port to listen on, 0 to 65535. 0 picks a free one."""
    auth: str | None = None
    """Login as USER:PASSWORD (default: none on this machine, else a new password that is printed)."""
    studies: tuple[str, ...] = ()
    """Folders in `studies` of the workspace with forms of `oneword userstudy`. Anyone with a link to a form can fill it in without the password."""
    browser: bool = True
    """Open the page in the browser."""
    slots: int = 4
    """Number of words that learn at once, in one batch."""
    max_upload_mb: int = 64
    """Largest file that can be uploaded, in MB."""
    max_pictures: int = 50
    """Maximum number of pictures per word."""

    def __post_init__(self) -> None:
        require(0 <= self.port <= 65535, f"port must be in 0..65535, got {self.port}.")
        for name in ("slots", "max_upload_mb", "max_pictures"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be 1 or more, got {value}.")
        require(bool(self.host.strip()), "host must be an address, got an empty one.")
        for name in self.studies:
            require(
                is_plain_name(name),
                f"studies must be names of folders in `studies` of the workspace, got {name!r}.",
            )
        if self.auth is not None:
            user, colon, password = self.auth.partition(":")
            require(
                bool(user and colon and password),
                "auth must be USER:PASSWORD, got something else.",
            )

    @property
    def is_private(self) -> bool:
        """Whether nobody but this machine can reach the page."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
