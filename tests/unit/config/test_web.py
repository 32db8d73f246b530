"""What the page is asked for."""

from __future__ import annotations

import pytest

from oneword.config.web import WebConfig
from oneword.errors import ConfigError


@pytest.mark.parametrize(
    ("host", "private"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("localhost", True), ("::1", True),
     ("0.0.0.0", False), ("192.168.1.2", False), ("example.org", False), ("::", False)],
)  # fmt: skip
def test_what_only_this_machine_reaches(host, private):
    assert WebConfig(host=host).is_private is private


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"port": 70_000}, "port must be in 0..65535, got 70000"),
     ({"auth": "alice"}, "auth must be USER:PASSWORD"),
     ({"auth": ":secret"}, "auth must be USER:PASSWORD"),
     ({"slots": 0}, "slots must be 1 or more, got 0"),
     ({"max_pictures": 0}, "max_pictures must be 1 or more, got 0"),
     ({"host": " "}, "host must be an address")],
)  # fmt: skip
def test_a_wrong_setting_is_one_sentence(settings, message):
    with pytest.raises(ConfigError, match=message):
        WebConfig(**settings)
    if "auth" in settings:  # a password is never repeated
        with pytest.raises(ConfigError) as caught:
            WebConfig(**settings)
        assert "secret" not in str(caught.value)
