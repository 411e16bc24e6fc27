"""The inversion cache finds, completes and resumes inversions, within its size limit."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from freemask.batch.inversion_cache import InversionCache, inversion_fingerprint, queries_of
from freemask.editors.editor import Editor
from freemask.pipeline import edit
from freemask.prepare import PreparedEdit, prepare
from freemask.sampling.inversion import invert_for
from freemask.types import EditRequest, Inversion, Video

STEPS = 5
INVERSION = STEPS + 3  # backbone calls, three of them for the first two steps
TARGETS = ("panda", "red", "grass", "sketch", "style", "left", "right", "moving", "on", "in")


class Interrupted(BaseException):
    """The end of a process."""


class Counter:
    """Counts the calls of an editor's backbone; raises `Interrupted` at call `end_at`."""

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


def prepared_for(
    editor: Editor, video: Video, target: str = "a panda", **changes: object
) -> PreparedEdit:
    maps = {"mask.policy": "naive", "mask.words": "both"}
    values = {"source": "a bear", "task": "shape", "steps": STEPS, "overrides": maps} | changes
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
    prepared = prepared_for(editor, video)
    made = cache.invert(editor, video, prepared)
    assert counter.since() == INVERSION
    found = InversionCache(cache.folder).invert(editor, video, prepared)
    assert counter.since() == 0
    assert same(made, found)
    assert same(made, invert_for(editor, video, prepared))
    assert made.word_maps


def test_ten_targets_cost_one_inversion(
    editor: Editor, video: Video, cache: InversionCache, counter: Counter
) -> None:
    edits = [prepared_for(editor, video, f"a {word}", words=("bear", word)) for word in TARGETS]
    queries = {key: query for prepared in edits for key, query in queries_of(prepared).items()}
    assert len(queries) == 11  # the source word and ten target words
    made = [cache.invert(editor, video, prepared, queries=queries) for prepared in edits]
    assert counter.since() == INVERSION
    assert same(made[3], invert_for(editor, video, edits[3]))


def test_ten_edits_cost_one_inversion_and_ten_edits(
    editor: Editor, video: Video, cache: InversionCache, counter: Counter
) -> None:
    edits = [prepared_for(editor, video, f"a {word}", words=("bear", word)) for word in TARGETS]
    queries = {key: query for prepared in edits for key, query in queries_of(prepared).items()}
    made = invert_for(editor, video, edits[0])
    counter.since()
    edit(editor, video, edits[0].request, inversion=made)
    alone = counter.since()
    assert alone >= STEPS

    def invert(clip: Video, prepared: PreparedEdit) -> Inversion:
        return cache.invert(editor, clip, prepared, queries=queries)

    for prepared in edits:
        edit(editor, video, prepared.request, inversion=invert)
    assert counter.since() == INVERSION + len(edits) * alone


def test_maps_of_a_new_word_are_read_along_the_trajectory(
    editor: Editor, video: Video, cache: InversionCache, counter: Counter
) -> None:
    cache.invert(editor, video, prepared_for(editor, video))
    counter.since()
    other = prepared_for(editor, video, "a red")
    read = cache.invert(editor, video, other)
    assert counter.since() == STEPS
    assert same(read, invert_for(editor, video, other))
    counter.since()
    cache.invert(editor, video, other)
    assert counter.since() == 0


@pytest.mark.parametrize("calls", [1, 3, 4, INVERSION - 1])
def test_an_interrupted_inversion_continues_after_its_last_step(
    editor: Editor, video: Video, cache: InversionCache, counter: Counter, calls: int
) -> None:
    prepared = prepared_for(editor, video)
    counter.end_at = calls
    with pytest.raises(Interrupted):
        cache.invert(editor, video, prepared)
    kept = len(list(cache.folder.glob("*.parts/*.safetensors")))
    assert kept == max(0, (calls - 1) // 2 if calls < 5 else calls - 3)
    counter.end_at, counter.calls = -1, 0
    resumed = cache.invert(editor, video, prepared)
    assert counter.since() <= INVERSION - calls + 2  # the interrupted step is repeated
    assert same(resumed, invert_for(editor, video, prepared))
    assert not list(cache.folder.glob("*.parts"))


def test_every_difference_that_matters_is_another_inversion(editor: Editor, video: Video) -> None:
    prepared = prepared_for(editor, video)
    key = inversion_fingerprint(editor, video, prepared)
    assert key == inversion_fingerprint(editor, video, prepared_for(editor, video, "a red"))
    darker = Video(video.frames // 2, video.fps)
    assert key != inversion_fingerprint(editor, darker, prepared)
    assert key != inversion_fingerprint(editor, video, prepared_for(editor, video, source="a red"))
    assert key != inversion_fingerprint(editor, video, prepared_for(editor, video, steps=STEPS + 1))
    turned = Video(np.ascontiguousarray(video.frames.reshape(4, 48, 32, 3)), video.fps)
    assert key != inversion_fingerprint(editor, turned, prepared)


def test_a_damaged_file_is_replaced(
    editor: Editor, video: Video, cache: InversionCache, caplog: pytest.LogCaptureFixture
) -> None:
    prepared = prepared_for(editor, video)
    made = cache.invert(editor, video, prepared)
    (file,) = cache.folder.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        assert same(made, cache.invert(editor, video, prepared))
    assert "is damaged; the inversion is made again" in caplog.text


def test_the_folder_stays_below_its_limit(
    editor: Editor, video: Video, tmp_path: Path, counter: Counter
) -> None:
    first, second = prepared_for(editor, video), prepared_for(editor, video, source="a red")
    cache = InversionCache(tmp_path)
    cache.invert(editor, video, first)
    (file,) = tmp_path.glob("*.safetensors")
    cache.limit = int(1.5 * file.stat().st_size)
    with FileLock(file.with_suffix(".lock")):  # an entry in use stays
        cache.invert(editor, video, second)
        assert len(list(tmp_path.glob("*.safetensors"))) == 2
    cache.invert(editor, video, prepared_for(editor, video, source="a sketch"))
    names = {path.stem for path in tmp_path.glob("*.safetensors")}
    assert len(names) == 1
    assert file.stem not in names


def test_a_process_waits_while_another_makes_the_same_inversion(
    editor: Editor, video: Video, cache: InversionCache, counter: Counter
) -> None:
    prepared, waiting = prepared_for(editor, video), threading.Event()
    cache.invert(editor, video, prepared)
    counter.since()
    lock = FileLock(cache.folder / f"{inversion_fingerprint(editor, video, prepared)}.lock")
    found: list[Inversion] = []

    def look() -> None:
        found.append(cache.invert(editor, video, prepared, progress=lambda *_: waiting.set()))

    with lock:
        other = threading.Thread(target=look)
        other.start()
        assert waiting.wait(30)
        assert not found
    other.join(30)
    assert found
    assert counter.since() == 0


def test_a_folder_that_cannot_be_written_causes_one_warning(
    editor: Editor, video: Video, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    prepared = prepared_for(editor, video)
    with caplog.at_level(logging.WARNING):
        made = InversionCache(tmp_path / "file" / "inversions").invert(editor, video, prepared)
    assert caplog.text.count("inversions are not kept in") == 1
    assert same(made, invert_for(editor, video, prepared))


def test_edits_that_follow_each_other_share_stored_features(
    editor: Editor, video: Video, cache: InversionCache, counter: Counter
) -> None:
    overrides = {"mask.policy": "naive", "features": "store"}
    edits = [prepared_for(editor, video, t, overrides=overrides) for t in ("a panda", "a red")]
    queries = {key: query for prepared in edits for key, query in queries_of(prepared).items()}
    first, second = (cache.invert(editor, video, prepared, queries=queries) for prepared in edits)
    assert counter.since() == INVERSION
    assert first.features is second.features


@pytest.fixture
def edited_clips(editor: Editor, video: Video, cache: InversionCache) -> list[np.ndarray]:
    request = EditRequest(
        "a bear", "a panda", steps=STEPS, overrides={"mask.policy": "naive", "strength": 0.6}
    )
    alone = edit(editor, video, request)
    by_cache = [
        edit(
            editor,
            video,
            request,
            inversion=lambda clip, prepared: cache.invert(editor, clip, prepared),
        )
        for _ in range(2)
    ]
    return [result.video.frames for result in (alone, *by_cache)]


def test_an_edit_is_the_same_bytes_with_and_without_a_cache(
    edited_clips: list[np.ndarray],
) -> None:
    assert all(np.array_equal(edited_clips[0], other) for other in edited_clips[1:])
