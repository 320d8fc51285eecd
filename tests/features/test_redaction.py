"""No password and no key of the settings appears in an error of a command, in a log line or in a traceback."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import redaction
from features.cli import main
from features.redaction import MIN_LENGTH, RedactingFormatter, redact, register_secrets
from features.settings import Settings
from recsys.domain.errors import SettingsError

PASSWORD = "hun/ter2@:x"
ESCAPED = quote(PASSWORD, safe="")
passwords = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="'\""), min_size=MIN_LENGTH)


@pytest.fixture(autouse=True)
def _no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_secrets", set())
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@given(passwords, st.sampled_from(["postgresql", "redis", "kafka", "http"]), st.booleans())
def test_no_password_of_a_url_is_shown(password: str, scheme: str, is_escaped: bool) -> None:
    url = f"{scheme}://user:{quote(password, safe='') if is_escaped else password}@host:5432/db"
    shown = redact(f"cannot connect to {url!s}: refused")
    assert f":{redaction.MASK}@host" in shown
    assert "user:" + password not in shown


@given(passwords)
def test_secrets_of_the_settings_are_removed_wherever_they_occur(password: str) -> None:
    redaction._secrets.clear()
    url = f"redis://:{password}@host/0"
    register_secrets({"online": url, "admin_token": f"token-{password}", "home": "/data", "port": 80})
    for text in (f"invalid port {password!s} in URL", f"sent token-{password}."):
        assert password not in redact(text)
    assert redact("/data is full") == "/data is full"


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit", "list", "--control", f"postgresql://u:{ESCAPED}@127.0.0.1:1/x"],
        ["audit", "list", "--control", f"mysql://u:{PASSWORD}@127.0.0.1:1/x"],
        ["audit", "list", "--controll", f"postgresql://u:{PASSWORD}@127.0.0.1:1/x"],
        ["dlq", "list", "--stream", f"kafka://u:{PASSWORD}@h:1?bad=1"],
        ["dlq", "list", "--stream", f"amqp://u:{PASSWORD}@h:1"],
        ["quarantine", "list", "--online", f"redis://:{PASSWORD}@127.0.0.1:1/0"],
        ["quarantine", "list", "--online", f"redis://:{ESCAPED}@127.0.0.1:1/0"],
        ["quarantine", "list", "--online", f"memcached://:{PASSWORD}@127.0.0.1:1/0"],
    ],
)
def test_no_error_of_a_command_shows_a_password(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main([*arguments, "--home", str(tmp_path)])
    except Exception as error:  # what a program prints when it fails unexpectedly
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    shown = "".join(capsys.readouterr())
    assert code != 0
    for part in (PASSWORD, ESCAPED, "hun/ter2", "ter2", "hun%2Fter2"):
        assert part not in shown, shown


def test_an_invalid_secret_is_named_but_not_shown() -> None:
    with pytest.raises(SettingsError) as error:
        Settings.read(admin_token=["hunter2"])
    assert "--admin-token" in str(error.value)
    assert "hunter2" not in str(error.value)


def test_log_lines_and_tracebacks_show_no_password() -> None:
    register_secrets({"registry": f"http://u:{PASSWORD}@mlflow"})
    try:
        raise ValueError(f"http://u:{PASSWORD}@mlflow: {PASSWORD}")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x", 1, "failed: %s", (PASSWORD,), sys.exc_info())
    assert PASSWORD not in RedactingFormatter("%(message)s").format(record)
