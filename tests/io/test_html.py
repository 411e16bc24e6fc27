"""HTML pages: escaping, the shared frame, embedded pictures."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from jinja2 import UndefinedError
from PIL import Image

from freemask.io.html import picture, render

TEMPLATE = '{% extends "page" %}{% block body %}<p title="{{ text }}">{{ text }}</p>{% endblock %}'


def test_a_page_escapes_its_values() -> None:
    page = render(TEMPLATE, title="<b>", text="\"a\" & 'b' -> c")
    assert "<title>&lt;b&gt;</title>" in page
    expected = "&#34;a&#34; &amp; &#39;b&#39; -&gt; c"
    assert f'<p title="{expected}">{expected}</p>' in page


def test_a_page_has_the_shared_style_and_its_own() -> None:
    template = '{% extends "page" %}{% block style %}.own { color: red }{% endblock %}'
    page = render(template, title="t")
    assert page.startswith("<!doctype html>")
    assert page.index("font: 14px") < page.index(".own { color: red }") < page.index("</style>")


def test_a_picture_is_embedded(tmp_path: Path) -> None:
    path = tmp_path / "clip.gif"
    path.write_bytes(bytes(range(256)))
    page = render("{{ path | image }}", path=path)
    head, _, data = page.partition(",")
    assert head == "data:image/gif;base64"
    assert base64.b64decode(data) == path.read_bytes()


def test_a_name_without_a_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="text"):
        render(TEMPLATE, title="t")


def test_pixels_are_embedded_as_a_jpeg() -> None:
    head, _, data = picture(np.full((8, 16, 3), 200, np.uint8)).partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as shown:
        assert shown.size == (16, 8)
        assert np.asarray(shown).mean() == pytest.approx(200, abs=2)
