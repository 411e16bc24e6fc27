"""The page of a teacher's masks: what it shows, what it escapes, and what its button saves."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from freemask.data.captions import Caption
from freemask.data.labels import Label, load_labels, save_labels
from freemask.io.video import write_video
from freemask.segmentation.review_page import write_review_page
from freemask.types import Video

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}"
BROWSER = """
const ticks = TICKS.map(number => ({dataset: {number}, checked: false}));
const button = {}, link = {click: () => console.log(link.download + '\\n' + saved.join(''))};
let saved = [];
globalThis.document = {
  querySelectorAll: () => ticks, querySelector: () => button, createElement: () => link,
};
globalThis.Blob = class { constructor(lines) { saved = lines; } };
URL.createObjectURL = () => 'blob:';
SCRIPT
ticks[CLICKED].onchange();
button.onclick();
"""


class Page(HTMLParser):
    """Collects the tags of a page and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def make(folder: Path, labels: dict[str, Label], moving: Video) -> str:
    """Writes clips, masks, labels and the page; returns the page."""
    for name in labels:
        write_video(moving, folder / name)
        place = folder / "Annotations" / "480p" / name
        place.mkdir(parents=True)
        for number in range(moving.num_frames):
            mask = np.zeros(moving.size, np.uint8)
            mask[5:15, 2 + 2 * number : 12 + 2 * number] = 255
            Image.fromarray(mask).save(place / f"{number:05d}.png")
    save_labels(folder, labels)
    captions = {name: Caption(prompt=name, word="bear") for name in labels if name != "other"}
    write_review_page(folder, captions, frames=moving.num_frames)
    return (folder / "labels.html").read_text()


def test_a_page_shows_three_frames_with_the_outline_of_each_mask(
    moving: Video, tmp_path: Path
) -> None:
    labels = {
        "bear": Label("sam", 7, 7, 0.912),
        "cat": Label("sam", 7, 5, 0.5, accepted=False),
        "dog": Label("sam", 7, 0, 0.0),
    }
    page = Page(make(tmp_path, labels, moving))
    assert "found in 7 of 7 frames, score\n0.91" in page.text
    assert "no mask in any of 7 frames, so the clip is left out" in page.text
    assert [a.get("class") for a in page.all("div") if "clip" in (a.get("class") or "")] == [
        "clip", "clip", "clip empty",
    ]  # fmt: skip
    assert ["checked" in tick for tick in page.all("input")] == [True, False, True]
    pictures = [attributes["src"] or "" for attributes in page.all("img")]
    assert len(pictures) == 9
    for source, number in zip(pictures[:3], (0, 3, 6), strict=True):
        head, _, data = source.partition(",")
        assert head == "data:image/jpeg;base64"
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
        assert pixels.shape == (*moving.size, 3)
        row = pixels[10].astype(int)
        inside = row[4 + 2 * number + 2]
        edge = row[2 + 2 * number]
        assert edge[2] > inside[2] + 15  # the outline is pink, the square is red
    assert not re.search(r"(src|href)=.?https?:", (tmp_path / "labels.html").read_text())


def test_a_hostile_name_is_text(moving: Video, tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "")
    text = make(tmp_path, {name: Label(HOSTILE, 7, 7, 0.5)}, moving)
    page = Page(text)
    assert name in page.text
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert len(page.all("img")) == 3
    assert len(page.all("script")) == 1
    script = text.partition("<script>")[2]
    assert "<img" not in script
    held = json.loads(script.partition("const labels = ")[2].partition(";\n")[0])
    assert held == [[name, {"teacher": HOSTILE, "frames": 7, "found": 7, "score": 0.5,
                            "accepted": True}]]  # fmt: skip


@pytest.mark.skipif(shutil.which("node") is None, reason="runs the page's script with node")
def test_the_button_saves_all_labels_with_the_ticks_as_they_are(
    moving: Video, tmp_path: Path
) -> None:
    labels = {
        "__proto__": Label("sam", 7, 7, 0.5),
        'a "bear": {1}': Label("sam", 7, 7, 0.25),
        "other": Label("of another run", 3, 3, 1.0, accepted=False),
    }
    page = make(tmp_path, labels, moving)
    ticks = [attributes["data-number"] for attributes in Page(page).all("input")]
    assert ticks == ["0", "1"]  # the captions do not name the third
    script = page.partition("<script>")[2].partition("</script>")[0]
    program = BROWSER.replace("TICKS", json.dumps(ticks)).replace("SCRIPT", script)
    done = subprocess.run(
        ["node", "-e", program.replace("CLICKED", "1")], capture_output=True, text=True, check=True
    )
    name, _, content = done.stdout.partition("\n")
    assert name == "labels.yaml"
    (tmp_path / name).write_text(content)
    labels['a "bear": {1}'].accepted = False
    assert load_labels(tmp_path) == labels
