"""Makes the parts of the page: pictures in HTML, the style, and what all tabs do on an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import gradio as gr

from freemask.types import InputError
from freemask.ui.workplace import Cancelled, Workplace

T = TypeVar("T")
STYLE = """
.min_value, .max_value { color: #555 !important }
.fm-prompts p { margin: 0.2em 0; overflow-wrap: anywhere }
.fm-prompts mark { background: #ffe08a; color: #222; border-radius: 3px; padding: 0 2px }
.fm-row { display: flex; flex-wrap: wrap; gap: 12px }
.fm-row figure { flex: 1 1 150px; margin: 0; min-width: 130px }
.fm-row video, .fm-wipe video { width: 100%; image-rendering: pixelated; background: #000 }
.fm-row figcaption { font-size: 0.9em }
.fm-row figure video { max-width: 420px }
.fm-runs { display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 16px }
.fm-runs figure { margin: 0 }
.fm-runs video { width: 100% }
.fm-failed { border-left: 4px solid #c22; padding: 0.2em 0.8em; grid-column: 1 / -1 }
.fm-wipe { --at: 50%; position: relative; max-width: 640px }
.fm-wipe .fm-stack { position: relative }
.fm-wipe .fm-over { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--at)) }
.fm-wipe .fm-line { position: absolute; inset: 0 auto 0 var(--at); border-left: 2px solid #fff;
                    mix-blend-mode: difference }
.fm-wipe input { width: 100% }
"""
TOGETHER = (  # the second clip of a pair follows the first
    "const o=this.parentElement.querySelector('.fm-over');"
    "if(Math.abs(o.currentTime-this.currentTime)>0.04)o.currentTime=this.currentTime"
)


def url_of(path: Path) -> str:
    """Returns the address of a file that the page serves."""
    return f"/gradio_api/file={quote(str(path))}"


def prompts_html(source: str, target: str) -> str:
    """Returns two marked prompts, which are HTML already."""
    return f'<div class="fm-prompts"><p>{source}</p><p>{target}</p></div>'


def clips_html(clips: Sequence[tuple[str, Path]]) -> str:
    """Returns clips side by side that play over and over, each with its title."""
    figures = (
        f'<figure><video src="{escape(url_of(path))}" aria-label="{escape(title)}" autoplay loop '
        f"muted playsinline controls></video><figcaption>{escape(title)}</figcaption></figure>"
        for title, path in clips
    )
    return f'<div class="fm-row">{"".join(figures)}</div>'


def wipe_html(source: Path, edited: Path) -> str:
    """Returns two clips that play in step, with a slider that wipes from one to the other."""
    under = (
        f'<video src="{escape(url_of(source))}" aria-label="source" autoplay loop muted '
        f'playsinline ontimeupdate="{TOGETHER}"></video>'
    )
    over = (
        f'<video class="fm-over" src="{escape(url_of(edited))}" aria-label="edited" autoplay loop '
        "muted playsinline></video>"
    )
    slider = (
        '<input type="range" min="0" max="100" value="50" aria-label="wipe from source to edited" '
        "oninput=\"this.parentElement.style.setProperty('--at',this.value+'%')\">"
    )
    return (
        f'<div class="fm-wipe"><div class="fm-stack">{under}{over}<div class="fm-line"></div></div>'
        f"{slider}</div>"
    )


def readable(function: Callable[..., T]) -> Callable[..., T]:
    """Shows an `InputError` of a handler as one sentence, and a cancelled handler as such."""

    @wraps(function)
    def handled(*arguments: Any, **named: Any) -> T:
        try:
            return function(*arguments, **named)
        except Cancelled:
            raise gr.Error("Cancelled; nothing was changed.", print_exception=False) from None
        except (InputError, FloatingPointError) as error:
            raise gr.Error(escape(str(error)), duration=None, print_exception=False) from None

    return handled


def visitor_of(request: gr.Request) -> str:
    """Returns the name of the visitor who sent a request."""
    return str(request.session_hash)


def leaving(workplace: Workplace) -> Callable[[gr.Request], None]:
    """Returns what happens when a visitor closes the page."""

    def leave(request: gr.Request) -> None:
        workplace.leave(visitor_of(request))

    return leave


def whole_number(value: Any, name: str) -> int:
    """Returns a number of the page. Raises `InputError` if it is none."""
    try:
        return int(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} is {value!r}; it must be a whole number") from None
