"""The options of the page."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from freemask.cli.commands import main
from freemask.types import InputError
from freemask.ui.request import UiRequest


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"host": "0.0.0.0"}, "others reach host 0.0.0.0.* give --auth"),
        ({"share": True}, "share makes a public link.* give --auth"),
        ({"auth": "ann"}, "auth must be USER:PASSWORD"),
        ({"auth": ":secret"}, "auth must be USER:PASSWORD"),
        ({"port": 0}, "port is 0"),
        ({"most_frames": 0}, "most_frames is 0"),
    ],
)
def test_what_is_unsafe_or_out_of_range_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        UiRequest(**given)


def test_a_user_opens_other_addresses() -> None:
    assert UiRequest(host="0.0.0.0", auth="ann:a:b").login == ("ann", "a:b")
    assert UiRequest().login is None


def test_without_gradio_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.split(".")[0] == "gradio":
            raise ImportError(name)
        return found(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["ui"]) == 2
    assert "pip install 'freemask[ui]'" in capsys.readouterr().err
