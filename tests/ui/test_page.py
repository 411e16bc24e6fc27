"""The page in a browser: the story of each tab, hostile visitors, and whether all can use it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")
SLOW = 120_000  # milliseconds, on a busy machine


def few_steps(page: Any) -> None:
    """Chooses 4 steps and 4 frames."""
    page.get_by_text("Backbone, size and steps").click()
    for label, value in (("Steps", "4"), ("Frames", "4")):
        page.get_by_label(label).fill(value)
        page.get_by_label(label).press("Tab")


def take_example(page: Any) -> None:
    page.get_by_role("button", name="Use the example clip").click()
    page.locator("#prompts mark").first.wait_for(timeout=SLOW)


def serious_findings(page: Any) -> list[str]:
    """Returns what axe finds to be serious or critical."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    bad = [entry for entry in found if entry["impact"] in ("serious", "critical")]
    return [f"{e['id']}: {e['nodes'][0]['html'][:120]}" for e in bad]


def test_an_edit_from_the_example_to_the_download(page: Any, screenshots: Path) -> None:
    take_example(page)
    assert page.locator("#prompts mark").all_inner_texts() == ["bear", "panda"]
    assert "Task shape: 'bear' becomes 'panda'" in page.locator("#task").inner_text()
    page.wait_for_function(
        "document.querySelector('#cost').innerText.includes('GiB')", timeout=SLOW
    )
    few_steps(page)
    page.get_by_role("button", name="Show mask").click()
    page.locator("#mask-view video").wait_for(timeout=SLOW)
    before = page.locator("#mask-view figcaption").inner_text()
    page.get_by_label("Threshold and margin by hand").check()
    page.get_by_label("number input for Threshold", exact=True).fill("0.8")
    page.get_by_label("number input for Threshold", exact=True).press("Tab")
    page.wait_for_function(
        "t => document.querySelector('#mask-view figcaption').innerText != t", arg=before,
        timeout=SLOW,
    )  # fmt: skip
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator("#wipe video").first.wait_for(timeout=SLOW)
    assert page.locator("#result figcaption").all_inner_texts() == [
        "source", "mask (white = edit)", "edited"
    ]  # fmt: skip
    page.wait_for_function(
        "[...document.querySelectorAll('#result video, #wipe video')].every(v => v.readyState > 1)",
        timeout=SLOW,
    )
    command = page.locator("#command textarea").input_value()
    assert command.startswith("freemask edit --video=example.mp4")
    assert "mask.threshold=0.8" in command
    slider = page.get_by_label("wipe from source to edited")
    slider.focus()
    slider.press("Home")
    assert page.locator(".fm-wipe").evaluate("e => e.style.getPropertyValue('--at')") == "0%"
    with page.expect_download() as download:
        page.locator("#download").click()
    assert re.fullmatch(r"result-1.*\.zip", download.value.suggested_filename)
    page.screenshot(path=screenshots / "edit.png", full_page=True)
    assert serious_findings(page) == []
    seed = page.get_by_label("Seed").input_value()
    page.get_by_role("button", name="Again with another seed").click()
    page.wait_for_function(
        "document.querySelector('#status').innerText.includes('result-2')", timeout=SLOW
    )
    assert page.get_by_label("Seed").input_value() != seed


def test_cells_a_stroke_and_the_mask_in_an_edit(page: Any, screenshots: Path) -> None:
    take_example(page)
    few_steps(page)
    page.get_by_role("tab", name="Masks").click()
    page.get_by_role("button", name="Look at the clip").click()
    page.locator("#chosen-view video").wait_for(timeout=SLOW)
    picture = page.locator("#sheet img").first
    picture.scroll_into_view_if_needed()
    box, natural = (
        picture.bounding_box(),
        picture.evaluate("i => [i.naturalWidth, i.naturalHeight]"),
    )
    scale = box["width"] / natural[0]
    picture.click(position={"x": 150 * scale, "y": 60 * scale})
    status = page.locator("#mask-status")
    page.wait_for_function(
        "document.querySelector('#mask-status').innerText.includes('Cells: 1')", timeout=SLOW
    )
    assert "mask.sites=explicit mask.explicit=[down_blocks.0" in status.inner_text()
    page.get_by_text("The same cells as a list, best first").click()
    page.locator("#cells input").first.check()
    page.wait_for_function(
        "document.querySelector('#mask-status').innerText.includes('Cells: 2')", timeout=SLOW
    )
    share = page.locator("#chosen-view figcaption").inner_text()
    canvas = page.locator("#canvas canvas").first
    canvas.scroll_into_view_if_needed()
    area = canvas.bounding_box()
    x, y = area["x"] + area["width"] * 0.4, area["y"] + area["height"] * 0.4
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 20, steps=8)
    page.mouse.up()
    page.get_by_role("button", name="Apply the stroke").click()
    page.wait_for_function(
        "t => document.querySelector('#chosen-view figcaption').innerText != t", arg=share,
        timeout=SLOW,
    )  # fmt: skip
    page.screenshot(path=screenshots / "masks.png", full_page=True)
    assert serious_findings(page) == []
    page.get_by_role("button", name="Use in Edit").click()
    page.wait_for_function(
        "document.querySelector('#mask-status').innerText.includes('uses this mask')", timeout=SLOW
    )
    page.get_by_role("tab", name="Edit").click()
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator("#wipe video").first.wait_for(timeout=SLOW)
    assert "--mask=mask-" in page.locator("#command textarea").input_value()


def test_a_run_is_followed(page: Any, served: tuple[str, Any], screenshots: Path) -> None:
    folder = served[1].request.runs
    (folder / ".run").mkdir(exist_ok=True)
    failed = {"job": "lost", "status": "failed", "reason": "no such clip"}
    (folder / ".run" / "rank-0.jsonl").write_text(json.dumps(failed) + "\n")
    page.get_by_role("tab", name="Runs").click()
    page.get_by_text("failed: no such clip").wait_for(timeout=SLOW)
    page.get_by_label("Only with this word").fill("panda")
    page.get_by_text("failed: no such clip").wait_for(state="hidden", timeout=SLOW)
    page.screenshot(path=screenshots / "runs.png", full_page=True)
    assert serious_findings(page) == []


def test_a_narrow_screen_shows_everything(page: Any, screenshots: Path) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    take_example(page)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390
    page.screenshot(path=screenshots / "narrow.png", full_page=True)


def test_a_cancelled_edit_really_stops(page: Any, served: tuple[str, Any]) -> None:
    take_example(page)
    page.get_by_text("Backbone, size and steps").click()
    page.get_by_label("Steps").fill("400")
    page.get_by_label("Steps").press("Tab")
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text(re.compile(r"inversion \d+ of 400")).first.wait_for(timeout=SLOW)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Cancelled.").wait_for(timeout=SLOW)
    device = served[1]._device
    assert device.acquire(timeout=30)
    device.release()


def test_closing_the_tab_ends_the_edit(browser: Any, served: tuple[str, Any]) -> None:
    context = browser.new_context()
    opened = context.new_page()
    opened.goto(served[0])
    take_example(opened)
    opened.get_by_text("Backbone, size and steps").click()
    opened.get_by_label("Steps").fill("400")
    opened.get_by_label("Steps").press("Tab")
    opened.get_by_role("button", name="Edit", exact=True).click()
    opened.get_by_text(re.compile(r"inversion \d+ of 400")).first.wait_for(timeout=SLOW)
    context.close()
    device = served[1]._device
    assert device.acquire(timeout=60)
    device.release()


HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def test_scripts_in_prompts_are_text(page: Any) -> None:
    take_example(page)
    page.get_by_label("What the clip shows").fill(f"{HOSTILE} bear")
    page.get_by_label("What it should show").fill(f"{HOSTILE} panda")
    page.wait_for_function("document.querySelector('#prompts').innerText.includes('<script>')")
    page.get_by_label("Words (old:new), if not clear").fill(HOSTILE)
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator("[data-testid=toast-body]").first.wait_for(timeout=SLOW)
    page.wait_for_timeout(300)
    assert page.title() == "freemask"


@pytest.mark.parametrize("path", ["/etc/passwd", "{work}/../secret.txt", "/proc/self/environ"])
def test_files_elsewhere_are_not_served(served: tuple[str, Any], path: str) -> None:
    import urllib.error
    import urllib.request

    address, workplace = served
    root = workplace.folder.root
    (root.parent / "secret.txt").write_text("secret")
    place = path.format(work=root)
    with pytest.raises(urllib.error.HTTPError, match=r"40[034]"):
        urllib.request.urlopen(f"{address}gradio_api/file={place}")


@pytest.mark.parametrize("content", [b"not a clip", b"\0" * 2_000_000, b""])
def test_what_is_no_clip_is_refused_in_a_sentence(page: Any, content: bytes) -> None:
    given = {"name": "clip.mp4", "mimeType": "video/mp4", "buffer": content}
    page.locator("#clip input[type=file]").set_input_files(given)
    page.get_by_label("What the clip shows").fill("a bear")
    page.get_by_label("What it should show").fill("a panda")
    page.wait_for_timeout(1000)
    page.get_by_role("button", name="Edit", exact=True).click()
    toast = page.locator("[data-testid=toast-body]").first
    toast.wait_for(timeout=SLOW)
    assert "Traceback" not in page.content()
    assert page.locator("#wipe video").count() == 0
