"""Builds the page of its tabs, and serves it."""

from __future__ import annotations

import os
from typing import Any

from freemask.editors.request import EditorRequest
from freemask.types import InputError
from freemask.ui.request import UiRequest

WAITING = 50  # visitors in the queue
KEPT = (3600, 24 * 3600)  # seconds between two removals of uploads, and their age


def require_gradio() -> None:
    """Raises `InputError` if Gradio is not installed; keeps it from sending anything otherwise."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise InputError(
            "the page needs Gradio; install it with pip install 'freemask[ui]' (from a checkout: "
            "pip install '.[ui]')"
        ) from None


def build(workplace: Any) -> Any:
    """Returns the page, a `gradio.Blocks`.

    workplace: its state, a `Workplace`.
    """
    import gradio as gr

    from freemask.ui.edit_tab import edit_tab
    from freemask.ui.masks_tab import masks_tab
    from freemask.ui.parts import leaving
    from freemask.ui.runs_tab import runs_tab

    with gr.Blocks(title="freemask", analytics_enabled=False, delete_cache=KEPT) as page:
        gr.Markdown("# freemask\nEdit a clip from two descriptions. What is not edited stays.")
        with gr.Tabs():
            with gr.Tab("Edit", id="edit"):
                fields = edit_tab(workplace)
            with gr.Tab("Masks", id="masks"):
                masks_tab(workplace, fields)
            with gr.Tab("Runs", id="runs"):
                runs_tab(workplace)
        page.unload(leaving(workplace))
    page.queue(max_size=WAITING, api_open=False)
    return page


def _theme() -> Any:
    """Returns colours with enough contrast, and fonts of the system."""
    import gradio as gr

    dark, darker, white = "#1d4ed8", "#1e40af", "#ffffff"
    fonts = {"font": ("system-ui", "sans-serif"), "font_mono": ("ui-monospace", "monospace")}
    return gr.themes.Default(primary_hue="blue", **fonts).set(
        button_primary_background_fill=dark,
        button_primary_background_fill_hover=darker,
        button_primary_text_color=white,
        button_cancel_background_fill="#b91c1c",
        button_cancel_background_fill_hover="#991b1b",
        button_cancel_text_color=white,
    )


def start(request: UiRequest, wanted: EditorRequest) -> tuple[Any, str, Any]:
    """Starts to serve a page in threads of its own.

    Returns the page, its address and its `Workplace`. Raises `InputError` without Gradio, and if
    the port is taken.
    """
    require_gradio()
    from freemask.ui.parts import STYLE
    from freemask.ui.work_folder import WorkFolder
    from freemask.ui.workplace import Workplace

    folder = WorkFolder(request.work, upload_mb=request.upload_mb)
    os.environ["GRADIO_TEMP_DIR"] = str(folder.uploads)
    workplace = Workplace(request, wanted, folder)
    try:
        page = build(workplace)
        _, address, _ = page.launch(
            server_name=request.host,
            server_port=request.port,
            auth=request.login,
            share=request.share,
            max_file_size=f"{request.upload_mb}mb",
            allowed_paths=[str(path) for path in (folder.root, request.runs) if path],
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            theme=_theme(),
            css=STYLE,
        )
    except OSError as error:
        folder.close()
        place = f"{request.host}:{request.port or '7860 to 7959'}"
        reason = str(error).split(";")[0].split(". You can")[0]
        raise InputError(f"cannot listen at {place} ({reason}); give another --port") from None
    return page, address, workplace


def serve(request: UiRequest, wanted: EditorRequest, echo: Any) -> None:
    """Serves a page until it is interrupted.

    echo: prints a line.

    Raises `InputError` as `start` does.
    """
    page, address, workplace = start(request, wanted)
    try:
        echo(f"freemask runs at {address} (Ctrl-C ends it)")
        page.block_thread()
    finally:
        page.close(verbose=False)
        workplace.folder.close()
