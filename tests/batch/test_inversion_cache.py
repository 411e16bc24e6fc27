"""Inversions on disk: found again, gone on with, shared by words, bounded, and never in the way."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from freemask.batch.inversion_cache import InversionCache, inversion_key, query_key
from freemask.editors.editor import Editor
from freemask.pipeline import edit
from freemask.prepare import PreparedEdit, prepare
from freemask.sampling.inversion import invert_for
from freemask.types import EditRequest, Inversion, Video

STEPS = 5
INVERSION = STEPS + 3  # backbone calls; three to get started
TARGETS = ("panda", "red", "grass", "sketch", "style", "left", "right", "moving", "on", "in")


class Interrupted(BaseException):
    """A process that ends here."""


class Counter:
    """Counts the calls of an editor's backbone, and can end the process at one."""

    def __init__(self, editor: Editor, patch: pytest.MonkeyPatch) -> None:
        self.calls, self.end_at = 0, -1
        predict = editor.predict

        def counted(*arguments: object) -> torch.Tensor:
            if self.calls == self.end_at:
                raise Interrupted
            self.calls += 1
            return predict(*arguments)  # type: ignore[arg-type]

        patch.setattr(editor, "predict", counted)

    def since(self) -> int:
        calls, self.calls = self.calls, 0
        return calls


@pytest.fixture
def counter(editor: Editor, monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(editor, monkeypatch)


@pytest.fixture
def cache(tmp_path: Path) -> InversionCache:
    return InversionCache(tmp_path / "inversions")


def plan_of(
    editor: Editor, video: Video, target: str = "a panda", **changes: object
) -> PreparedEdit:
    maps = {"mask.policy": "naive", "mask.words": "both"}
    values = {"source": "a bear", "steps": STEPS, "overrides": maps} | changes
    return prepare(editor, video, EditRequest(target=target, **values))  # type: ignore[arg-type]


def same(one: Inversion, other: Inversion) -> bool:
    maps = [
        torch.equal(one.word_maps[role].maps[site], other.word_maps[role].maps[site])
        for role in one.word_maps
        for site in one.word_maps[role].maps
    ]
    latents = torch.equal(one.trajectory.latents.cpu(), other.trajectory.latents.cpu())
    return latents and all(maps) and set(one.word_maps) == set(other.word_maps)


def test_a_found_inversion_is_the_one_that_was_made(
    editor: Editor, video: Video, cache: InversionCache, counter: Counter
) -> None:
    plan = plan_of(editor, video)
    made = cache.invert(editor, video, plan)
    assert counter.since() == INVERSION
    found = InversionCache(cache.folder).invert(editor, video, plan)
    assert counter.since() == 0
    assert same(made, found)
    assert same(made, invert_for(editor, video, plan))
    assert made.word_maps


def test_ten_targets_cost_one_inversion(
    editor: Editor, video: Video, cache: InversionCache, counter: Counter
) -> None:
    plans = [plan_of(editor, video, f"a {word}") for word in TARGETS]
    queries = {query_key(query): query for plan in plans for query in plan.queries.values()}
    assert len(queries) == 11  # the bear and ten more
    made = [cache.invert(editor, video, plan, queries=queries) for plan in plans]
    assert counter.since() == INVERSION
    assert same(made[3], invert_for(editor, video, plans[3]))


def test_ten_edits_cost_one_inversion_and_ten_edits(
    editor: Editor, video: Video, cache: InversionCache, counter: Counter
) -> None:
    plans = [plan_of(editor, video, f"a {word}") for word in TARGETS]
    queries = {query_key(query): query for plan in plans for query in plan.queries.values()}
    made = invert_for(editor, video, plans[0])
    counter.since()
    edit(editor, video, plans[0].request, inversion=made)
    alone = counter.since()
    assert alone >= STEPS

    def invert(clip: Video, plan: PreparedEdit) -> Inversion:
        return cache.invert(editor, clip, plan, queries=queries)

    for plan in plans:
        edit(editor, video, plan.request, inversion=invert)
    assert counter.since() == INVERSION + len(plans) * alone


def test_a_word_nobody_asked_for_is_read_along_the_trajectory(
    editor: Editor, video: Video, cache: InversionCache, counter: Counter
) -> None:
    cache.invert(editor, video, plan_of(editor, video))
    counter.since()
    other = plan_of(editor, video, "a red")
    read = cache.invert(editor, video, other)
    assert counter.since() == STEPS
    assert same(read, invert_for(editor, video, other))
    counter.since()
    cache.invert(editor, video, other)
    assert counter.since() == 0


@pytest.mark.parametrize("calls", [1, 3, 4, INVERSION - 1])
def test_an_interrupted_inversion_goes_on_where_it_was(
    editor: Editor, video: Video, cache: InversionCache, counter: Counter, calls: int
) -> None:
    plan = plan_of(editor, video)
    counter.end_at = calls
    with pytest.raises(Interrupted):
        cache.invert(editor, video, plan)
    kept = len(list(cache.folder.glob("*.parts/*")))
    assert kept == max(0, (calls - 1) // 2 if calls < 5 else calls - 3)
    counter.end_at, counter.calls = -1, 0
    resumed = cache.invert(editor, video, plan)
    assert counter.since() <= INVERSION - calls + 2  # but for what was under way
    assert same(resumed, invert_for(editor, video, plan))
    assert not list(cache.folder.glob("*.parts"))


def test_every_difference_that_matters_is_another_inversion(editor: Editor, video: Video) -> None:
    plan = plan_of(editor, video)
    key = inversion_key(editor, video, plan)
    assert key == inversion_key(editor, video, plan_of(editor, video, "a red"))
    darker = Video(video.frames // 2, video.fps)
    assert key != inversion_key(editor, darker, plan)
    assert key != inversion_key(editor, video, plan_of(editor, video, source="a red"))
    assert key != inversion_key(editor, video, plan_of(editor, video, steps=STEPS + 1))
    turned = Video(np.ascontiguousarray(video.frames.reshape(4, 48, 32, 3)), video.fps)
    assert key != inversion_key(editor, turned, plan)


def test_a_damaged_file_is_made_anew(
    editor: Editor, video: Video, cache: InversionCache, caplog: pytest.LogCaptureFixture
) -> None:
    plan = plan_of(editor, video)
    made = cache.invert(editor, video, plan)
    (file,) = cache.folder.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        assert same(made, cache.invert(editor, video, plan))
    assert "made anew" in caplog.text


def test_the_folder_stays_below_its_limit(
    editor: Editor, video: Video, tmp_path: Path, counter: Counter
) -> None:
    first, second = plan_of(editor, video), plan_of(editor, video, source="a red")
    cache = InversionCache(tmp_path)
    cache.invert(editor, video, first)
    (file,) = tmp_path.glob("*.safetensors")
    cache.limit = int(1.5 * file.stat().st_size)
    with FileLock(file.with_suffix(".lock")):  # in use elsewhere: it stays
        cache.invert(editor, video, second)
        assert len(list(tmp_path.glob("*.safetensors"))) == 2
    cache.invert(editor, video, plan_of(editor, video, source="a sketch"))
    names = {path.stem for path in tmp_path.glob("*.safetensors")}
    assert len(names) == 1
    assert file.stem not in names


def test_the_same_inversion_elsewhere_is_waited_for(
    editor: Editor, video: Video, cache: InversionCache, counter: Counter
) -> None:
    plan, told = plan_of(editor, video), threading.Event()
    cache.invert(editor, video, plan)
    counter.since()
    lock = FileLock(cache.folder / f"{inversion_key(editor, video, plan)}.lock")
    found: list[Inversion] = []

    def look() -> None:
        found.append(cache.invert(editor, video, plan, progress=lambda *_: told.set()))

    with lock:
        other = threading.Thread(target=look)
        other.start()
        assert told.wait(30)
        assert not found
    other.join(30)
    assert found
    assert counter.since() == 0


def test_a_folder_that_cannot_be_written_costs_a_warning(
    editor: Editor, video: Video, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    plan = plan_of(editor, video)
    with caplog.at_level(logging.WARNING):
        made = InversionCache(tmp_path / "file" / "inversions").invert(editor, video, plan)
    assert caplog.text.count("inversions are not kept in") == 1
    assert same(made, invert_for(editor, video, plan))


def test_stored_features_are_shared_while_they_are_held(
    editor: Editor, video: Video, cache: InversionCache, counter: Counter
) -> None:
    overrides = {"mask.policy": "naive", "features": "store"}
    plans = [plan_of(editor, video, t, overrides=overrides) for t in ("a panda", "a red")]
    queries = {query_key(query): query for plan in plans for query in plan.queries.values()}
    first, second = (cache.invert(editor, video, plan, queries=queries) for plan in plans)
    assert counter.since() == INVERSION
    assert first.features is second.features


@pytest.fixture
def edits(editor: Editor, video: Video, cache: InversionCache) -> list[np.ndarray]:
    request = EditRequest(
        "a bear", "a panda", steps=STEPS, overrides={"mask.policy": "naive", "strength": 0.6}
    )
    alone = edit(editor, video, request)
    by_cache = [
        edit(editor, video, request, inversion=lambda clip, plan: cache.invert(editor, clip, plan))
        for _ in range(2)
    ]
    return [result.video.frames for result in (alone, *by_cache)]


def test_an_edit_is_the_same_bytes_with_and_without_a_cache(edits: list[np.ndarray]) -> None:
    assert all(np.array_equal(edits[0], other) for other in edits[1:])
