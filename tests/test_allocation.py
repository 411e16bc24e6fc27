"""No edit allocates an attention map: the profiler records the size of every allocation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from freemask.editors.editor import Editor
from freemask.editors.registry import load_editor
from freemask.pipeline import edit
from freemask.types import EditRequest, Video

FRAMES, SIZE = 5, (56, 72)  # chosen so that no activation has a map's size by chance
TOKENS, BYTES = 13, 4
SOURCE, TARGET = "a bear on the grass", "a panda on the grass"


@pytest.fixture
def editor(checkpoint: Path) -> Editor:
    """An editor of this file alone, with another number of tokens than its checkpoint."""
    loaded = load_editor("zeroscope", checkpoint=checkpoint, device="cpu")
    loaded.tokenizer.model_max_length = TOKENS
    return loaded


@pytest.fixture
def clip() -> Video:
    return Video(np.random.default_rng(0).integers(0, 256, (FRAMES, *SIZE, 3), dtype=np.uint8))


KINDS = ("self", "cross", "temporal")


def map_sizes(editor: Editor, *kinds: str) -> set[int]:
    """Returns the bytes of the maps of all sites of some kinds, for one to three branches."""
    sizes = set()
    for site in editor.sites(editor.latent_size(SIZE)):
        if site.kind not in kinds:
            continue
        pixels = site.resolution[0] * site.resolution[1]
        batch, rows = (pixels, FRAMES) if site.kind == "temporal" else (FRAMES, pixels)
        keys = TOKENS if site.kind == "cross" else rows
        heads = editor.backbone.get_submodule(site.name).heads
        sizes |= {n * batch * heads * rows * keys * BYTES for n in (1, 2, 3)}
    return sizes


@contextmanager
def allocations() -> Iterator[list[int]]:
    """Yields a list that holds the bytes of every allocation once the context is left."""
    sizes: list[int] = []
    with torch.profiler.profile(profile_memory=True) as profiler:
        yield sizes
    events: Any = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    sizes += [event.nbytes() for event in events if event.name() == "[memory]"]


def request(**overrides: Any) -> EditRequest:
    windows = ("cross_replace", "self_replace", "temporal_replace")
    opened = {f"fusion.{window}": [0, 1] for window in windows}
    policy = {"mask.policy": "naive", "mask.threshold": 0.5}
    return EditRequest(SOURCE, TARGET, steps=2, overrides=opened | policy | overrides)


VARIANTS: dict[str, dict[str, Any]] = {
    "replay": {},
    "store": {"features": "store"},
    "qk": {"fusion.temporal_mode": "qk"},
    "closed": {f"fusion.{kind}_replace": [0, 0] for kind in ("cross", "self", "temporal")},
}


@pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)
def test_no_tensor_of_a_maps_size_appears(
    editor: Editor, clip: Video, overrides: dict[str, Any]
) -> None:
    with allocations() as sizes:
        edit(editor, clip, request(**overrides))
    assert len(sizes) > 1000
    assert not map_sizes(editor, *KINDS) & set(sizes)


def test_the_reference_makes_maps_and_is_caught(editor: Editor, clip: Video) -> None:
    with allocations() as sizes:
        edit(editor, clip, request(backend="reference"))
    for kind in KINDS:
        assert map_sizes(editor, kind) & set(sizes), kind
