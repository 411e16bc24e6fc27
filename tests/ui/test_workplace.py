"""The page's work: each visitor's own, one piece at a time, stopped when it is cancelled."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from freemask.editors.request import EditorRequest
from freemask.io.video import write_mp4
from freemask.types import InputError, Video
from freemask.ui.form import EditForm
from freemask.ui.request import UiRequest
from freemask.ui.work_folder import WorkFolder
from freemask.ui.workplace import Cancelled, Workplace

NAIVE = {"mask.policy": "naive"}


@pytest.fixture
def workplace(tmp_path: Path, checkpoint: Path) -> Workplace:
    request = UiRequest(upload_mb=1, most_frames=4, most_pixels=64 * 96)
    wanted = EditorRequest(checkpoint=str(checkpoint), device="cpu")
    return Workplace(request, wanted, WorkFolder(tmp_path / "work", upload_mb=1))


@pytest.fixture
def form(workplace: Workplace, checkpoint: Path) -> EditForm:
    frames = np.random.default_rng(0).integers(0, 255, (4, 32, 48, 3), dtype=np.uint8)
    video = workplace.folder.of("ann") / "clip.mp4"
    write_mp4(Video(frames), video)
    return EditForm(
        video=str(video), source="a bear on the grass", target="a panda on the grass",
        checkpoint=str(checkpoint), frames=2, size=(32, 48), steps=2, overrides=NAIVE,
    )  # fmt: skip


def ignore(stage: str, done: int, total: int) -> None:
    pass


def test_two_visitors_get_their_own_results(workplace: Workplace, form: EditForm) -> None:
    seen: dict[str, list[str]] = {"ann": [], "bob": []}
    made: dict[str, Any] = {}

    def run(name: str, seed: int) -> None:
        def report(stage: str, done: int, total: int) -> None:
            seen[name].append(stage)

        made[name] = workplace.edit(name, replace(form, seed=seed), report)

    threads = [threading.Thread(target=run, args=pair) for pair in (("ann", 1), ("bob", 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, seed in (("ann", 1), ("bob", 2)):
        result, folder = made[name]
        assert result.request.seed == seed
        assert folder.parent == workplace.folder.of(name)
        assert (folder / "edited.mp4").is_file()
        assert {"inversion", "denoise"} <= set(seen[name])


def test_a_cancelled_edit_stops_and_leaves_nothing(workplace: Workplace, form: EditForm) -> None:
    seen = []

    def report(stage: str, done: int, total: int) -> None:
        seen.append((stage, done))
        workplace.visitor("ann").stop.set()

    with pytest.raises(Cancelled):
        workplace.edit("ann", replace(form, steps=20), report)
    assert len(seen) == 1
    assert not list(workplace.folder.of("ann").glob("result-*"))
    workplace.edit("ann", form, ignore)  # a later edit runs


def test_who_waits_may_give_up_or_leave(workplace: Workplace, form: EditForm) -> None:
    given_up = []

    def wait() -> None:
        try:
            workplace.edit("bob", form, ignore)
        except Cancelled:
            given_up.append("bob")

    with workplace._device:
        thread = threading.Thread(target=wait)
        bob = workplace.visitor("bob")
        bob.stop.set()
        thread.start()
        while bob.stop.is_set():  # the wait begins with a clear flag
            pass
        workplace.leave("bob")
        thread.join(timeout=5)
    assert given_up == ["bob"]
    assert workplace.visitor("bob") is not bob


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"video": "/etc/passwd"}, "is no file of this page"),
        ({"mask": "/etc/passwd"}, "is no file of this page"),
        ({"frames": 5}, "5 frames are more than this page edits, 4"),
        ({"size": (640, 960)}, "960x640 are more pixels than this page edits"),
        ({"editor": "nothing"}, "nothing"),
        ({"checkpoint": "/nowhere"}, "/nowhere"),
        ({"words": "wolf:panda"}, "wolf"),
        ({"overrides": {"mask.policy": "no"}}, "mask.policy"),
    ],
)
def test_hostile_values_are_refused_before_any_work(
    changes: dict[str, Any], says: str, workplace: Workplace, form: EditForm
) -> None:
    with pytest.raises(InputError, match=says):
        workplace.edit("ann", replace(form, **changes), ignore)
    assert not list(workplace.folder.of("ann").glob("result-*"))


def test_text_named_as_a_clip_is_refused(workplace: Workplace, form: EditForm) -> None:
    Path(form.video).write_text("not a clip")
    with pytest.raises(InputError, match="cannot be read as a video"):
        workplace.edit("ann", form, ignore)


def test_an_estimate_tells_size_memory_work_and_then_time(
    workplace: Workplace, form: EditForm
) -> None:
    told = workplace.estimate(form)
    assert told.startswith("2 frames of 48x32; about 0.0 GiB of memory; ")
    assert "passes of the backbone" in told
    assert not told.endswith(" s.")
    workplace.edit("ann", form, ignore)
    assert workplace.estimate(form).endswith(" s.")


def test_the_example_is_an_edit(workplace: Workplace) -> None:
    path, source, target = workplace.example("ann")
    assert path.is_relative_to(workplace.folder.of("ann"))
    assert (source, target) == (
        "a bear moving left on the grass",
        "a panda moving left on the grass",
    )


def test_work_that_takes_too_long_is_stopped(
    workplace: Workplace, form: EditForm, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10**6, 600))  # ten minutes between two looks at it
    monkeypatch.setattr("freemask.ui.workplace.time.monotonic", lambda: next(clock))
    short = replace(workplace.request, most_minutes=15)
    with pytest.raises(InputError, match="took more than 15 minutes and was stopped"):
        Workplace(short, workplace.wanted, workplace.folder).edit("ann", form, ignore)
    assert not list(workplace.folder.of("ann").glob("result-*"))


def test_a_stroke_needs_a_look(workplace: Workplace) -> None:
    with pytest.raises(InputError, match="look at the clip first"):
        workplace.stroke("ann", np.ones((32, 48), bool), 0, ignore)


def test_visitors_from_elsewhere_name_no_folder_of_this_machine(
    workplace: Workplace, form: EditForm, sd_checkpoint: Path
) -> None:
    opened = replace(workplace.request, host="0.0.0.0", auth="ann:secret")
    other = Workplace(opened, workplace.wanted, workplace.folder)
    foreign = replace(form, checkpoint=str(sd_checkpoint), editor="text2video_zero")
    with pytest.raises(InputError, match="is a folder of this machine; visitors from elsewhere"):
        other.edit("ann", foreign, ignore)
    assert "passes" in other.estimate(form)  # the checkpoint of the page
    assert "passes" in workplace.estimate(foreign)
