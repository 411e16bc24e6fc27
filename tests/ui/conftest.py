"""A page that is served in this process, and a browser that opens it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from freemask.editors.request import EditorRequest
from freemask.ui.request import UiRequest

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots are kept: FREEMASK_SCREENSHOTS, or a temporary folder."""
    given = os.environ.get("FREEMASK_SCREENSHOTS")
    folder = Path(given) if given else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    """The address of a page with the demo checkpoint, and its workplace."""
    pytest.importorskip("gradio")
    from freemask.ui.app import start

    runs = tmp_path_factory.mktemp("runs")
    request = UiRequest(work=tmp_path_factory.mktemp("work"), runs=runs, upload_mb=1)
    page, address, workplace = start(request, EditorRequest(device="cpu"))
    yield address, workplace
    page.close(verbose=False)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium; apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, served: tuple[str, Any]) -> Iterator[Any]:
    """A new visitor's page."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    opened = context.new_page()
    opened.goto(served[0])
    opened.get_by_role("button", name="Use the example clip").wait_for()
    yield opened
    context.close()
