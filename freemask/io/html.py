"""Renders HTML pages that open from disk: jinja2 templates within one frame and style.

A template extends "page" and fills its blocks `style`, `body` and `script`:

    {% extends "page" %}{% block body %}<p>{{ text }}</p>{% endblock %}

Values are escaped. The filter `image` embeds a GIF, and `picture` embeds pixels as a JPEG, as data
URIs.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import DictLoader, Environment, StrictUndefined

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{{ title }}</title>
<style>
body { font: 14px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2em auto;
       max-width: 1400px; padding: 0 1em }
figure { margin: 0 }
img { image-rendering: pixelated; display: block }
{% block style %}{% endblock %}
</style>
{% block body %}{% endblock %}
{% block script %}{% endblock %}
</html>
"""


def image(path: Path) -> str:
    """Returns the content of a GIF as a data URI."""
    return f"data:image/gif;base64,{base64.b64encode(path.read_bytes()).decode()}"


def picture(pixels: np.ndarray) -> str:
    """Returns uint8 `(H, W, 3)` as the data URI of a JPEG."""
    import imageio.v3 as imageio

    content = imageio.imwrite(
        "<bytes>",
        pixels,
        extension=".jpg",
        plugin="pillow",
        quality=90,
        subsampling=0,  # keeps thin coloured lines
    )
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


ENVIRONMENT = Environment(
    loader=DictLoader({"page": PAGE}),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters |= {"image": image, "picture": picture}


def render(template: str, **values: Any) -> str:
    """Returns a template filled with values.

    Raises `jinja2.UndefinedError` for a name in the template that no value has.
    """
    return ENVIRONMENT.from_string(template).render(values)
