"""Shows the masks that a teacher made on one page, to accept or reject.

Every clip has its first, middle and last frame with the outline of the mask, and a tick. The button
saves `labels.yaml` with the ticks as they are. The page holds its pictures and opens from disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from freemask.data.captioned import clip_path
from freemask.data.captions import Caption
from freemask.data.davis import annotations_of
from freemask.data.labels import LABELS, Label, load_labels
from freemask.io.atomic import write_atomic
from freemask.io.html import render
from freemask.io.images import read_labels
from freemask.io.panels import mask_outline, preview
from freemask.io.video import read_video
from freemask.types import InputError, Video

PAGE = "labels.html"
TEMPLATE = """\
{% extends "page" %}
{% block style %}
.clip { border-top: 1px solid #ddd; padding: .6em 0 }
.clip h2 { font-size: 1em; margin: 0 0 .3em }
.clip.empty h2 { color: #b00 }
.row { display: flex; flex-wrap: wrap; gap: 10px }
img { image-rendering: auto; max-width: 320px }
button { font: inherit; padding: .3em 1em }
{% endblock %}

{% block body %}
<h1>Masks of a teacher</h1>
<p>Untick the clips whose mask is wrong, save {{ file }}, and let it take the place of the one in
{{ folder }}. A clip without a tick is left out of a calibration, and so is one without a mask.</p>
<p><button>save {{ file }}</button></p>
{% for clip in clips %}
<div class="clip{{ "" if clip.label.found else " empty" }}">
<h2><label><input type="checkbox" data-number="{{ clip.number }}"
{{- " checked" if clip.label.accepted }}> {{ clip.name }}: {{ clip.word }}</label></h2>
<p>{{ clip.label.teacher }}:
{% if clip.label.found %}
found in {{ clip.label.found }} of {{ clip.label.frames }} frames, score
{{ "%.2f" | format(clip.label.score) }}
{% else %}
no mask in any of {{ clip.label.frames }} frames, so the clip is left out
{% endif %}
</p>
<div class="row">
{% for pixels in clip.pictures %}<img alt="" src="{{ pixels | picture }}">{% endfor %}
</div></div>
{% endfor %}
{% endblock %}

{% block script %}
<script>
const labels = {{ labels | tojson }};
document.querySelectorAll('input').forEach(tick => {
  tick.onchange = () => { labels[tick.dataset.number][1].accepted = tick.checked; };
});
document.querySelector('button').onclick = () => {
  const lines = labels.map(entry => entry.map(part => JSON.stringify(part)).join(': ') + '\\n');
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob(lines, {type: 'application/yaml'}));
  link.download = {{ file | tojson }};
  link.click();
};
</script>
{% endblock %}
"""


def write_review_page(folder: Path, captions: Mapping[str, Caption], *, frames: int) -> None:
    """Writes the page of a folder's labels, `labels.html`.

    captions: the captions of the clips that the page shows; those without a label are left out.
    frames: number of frames of a clip, from the first one.

    Raises `InputError` for clips, masks or labels that cannot be read, and if the page cannot be
    written.
    """
    labels = load_labels(folder)
    clips = [
        {
            "number": number,
            "name": name,
            "word": captions[name].word,
            "label": label,
            "pictures": _pictures(folder, name, min(frames, label.frames)),
        }
        for number, (name, label) in enumerate(labels.items())
        if name in captions
    ]
    page = render(
        TEMPLATE,
        title="masks of a teacher",
        folder=folder,
        file=LABELS,
        labels=_entries(labels),
        clips=clips,
    )
    try:
        write_atomic(folder / PAGE, page.encode())
    except OSError as error:
        raise InputError(f"cannot write {folder / PAGE}: {error.strerror}") from None


def _entries(labels: Mapping[str, Label]) -> list[list[Any]]:
    """Returns the labels as pairs, because a name may mean something to JavaScript's objects."""
    return [[name, asdict(label)] for name, label in labels.items()]


def _pictures(folder: Path, name: str, frames: int) -> list[np.ndarray]:
    """Returns the first, middle and last frame of a clip with the outline of its mask."""
    masks = annotations_of(folder, name)[:frames]
    if not masks:
        return []
    shown = sorted({0, len(masks) // 2, len(masks) - 1})
    video = read_video(clip_path(folder, name), frames=len(masks))
    small = preview(Video(np.stack([video.frames[index] for index in shown])))
    return [
        mask_outline(frame, _scaled(read_labels(masks[index]) > 0, small.size))
        for frame, index in zip(small.frames, shown, strict=True)
    ]


def _scaled(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    picture = Image.fromarray(mask * np.uint8(255))
    found: np.ndarray = np.asarray(picture.resize(size[::-1], Image.Resampling.NEAREST)) > 0
    return found
