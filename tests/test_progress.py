"""Progress: one bar a stage in a terminal, spaced lines in a log, nothing when quiet."""

from __future__ import annotations

import io
import os
import pickle
import pty
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from freemask.progress import (
    SpacedLines,
    StageLines,
    WholeWork,
    duration,
    show_progress,
    track,
)

STAGES = """
import time
from freemask.progress import show_progress
update = show_progress(quiet={quiet})
for stage, steps in (("inversion", 6), ("mask", 1), ("denoise", 6)):
    for step in range(1, steps + 1):
        time.sleep(0.02)
        update(stage, step, steps)
"""


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run_stage(update: Callable[..., None], clock: Clock, stage: str, steps: int, each: float):
    for step in range(1, steps + 1):
        clock.now += each
        update(stage, step, steps)


def lines_of(clock: Clock, *stages: tuple[str, int, float]) -> list[str]:
    log = io.StringIO()
    update = StageLines(log, clock=clock)
    for stage, steps, each in stages:
        run_stage(update, clock, stage, steps, each)
    return log.getvalue().splitlines()


def in_pseudo_terminal(code: str) -> str:
    """Runs code whose standard error is a terminal; returns what it drew there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stderr=theirs)
    os.close(theirs)
    drawn = b""
    try:
        while block := os.read(ours, 4096):
            drawn += block
    except OSError:  # Linux reports the end of a pseudo-terminal as an error
        pass
    os.close(ours)
    assert process.wait() == 0
    return drawn.decode()


def test_a_terminal_shows_one_bar_for_each_stage() -> None:
    drawn = in_pseudo_terminal(STAGES.format(quiet=False))
    *lines, rest = drawn.replace("\r\n", "\n").split("\n")
    bars = [line.split("\r")[-1] for line in lines]
    assert [re.match(r" *(\w+): 100%.* (\d+/\d+) \[", bar).groups() for bar in bars] == [
        ("inversion", "6/6"),
        ("mask", "1/1"),
        ("denoise", "6/6"),
    ]
    assert rest == ""


def test_a_pipe_gets_one_line_for_each_short_stage() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STAGES.format(quiet=False)], capture_output=True, text=True
    )
    assert done.stderr.splitlines() == ["inversion 6/6 in 1 s", "mask 1/1", "denoise 6/6 in 1 s"]
    assert done.stdout == ""


def test_quiet_shows_nothing_in_either() -> None:
    code = STAGES.format(quiet=True)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
    assert in_pseudo_terminal(code) == ""


def test_the_time_left_is_told_after_two_steps(clock: Clock) -> None:
    first, *_ = lines_of(clock, ("inversion", 50, 5.0))
    assert first == "inversion 2/50, about 4 min 0 s left"


def test_a_slow_first_step_does_not_count(clock: Clock) -> None:
    log = io.StringIO()
    update = StageLines(log, clock=clock)
    clock.now = 300.0
    update("inversion", 1, 50)
    clock.now += 2
    update("inversion", 2, 50)
    assert log.getvalue() == "inversion 2/50, about 1 min 36 s left\n"


def test_a_log_has_at_most_a_line_every_ten_seconds(clock: Clock) -> None:
    found = lines_of(clock, ("inversion", 100, 0.5), ("denoise", 100, 0.5))
    ends = [line for line in found if re.search(r"100/100 in", line)]
    assert ends == ["inversion 100/100 in 50 s", "denoise 100/100 in 50 s"]
    assert len(found) - len(ends) <= 10
    assert [line.split(",")[0] for line in found[:2]] == ["inversion 2/100", "inversion 22/100"]


def test_a_new_stage_of_the_same_name_is_timed_by_itself(clock: Clock) -> None:
    found = lines_of(clock, ("inversion", 4, 1.0), ("inversion", 4, 3.0))
    assert found == ["inversion 4/4 in 3 s", "inversion 4/4 in 9 s"]


@pytest.mark.parametrize(
    ("stage", "steps", "each", "said"),
    [
        ("inversion", 50, 1.0, "48 s left, 3 min 18 s until the result"),
        ("1/3 inversion", 50, 1.0, "48 s left, 9 min 58 s until the result"),
        ("3/3 inversion", 50, 1.0, "48 s left, 3 min 18 s until the result"),
        ("denoise", 30, 5.0, "2 min 20 s left"),
        ("2/3 denoise", 30, 5.0, "2 min 20 s left, 5 min 40 s until the result"),
        ("upload", 50, 1.0, "48 s left"),
    ],
)
def test_the_time_until_the_result_counts_what_is_to_come(
    clock: Clock, stage: str, steps: int, each: float, said: str
) -> None:
    """A window takes 50 s of inversion and 150 s of denoising; two steps are done."""
    log = io.StringIO()
    update = StageLines(log, clock=clock, costs={"inversion": 50.0, "denoise": 150.0})
    for step in (1, 2):
        clock.now += each
        update(stage, step, steps)
    assert log.getvalue() == f"{stage} 2/{steps}, about {said}\n"


def test_a_terminal_shows_the_time_until_the_result() -> None:
    code = STAGES.format(quiet=False).replace("quiet=False", "costs={'inversion': 1, 'denoise': 3}")
    drawn = in_pseudo_terminal(code)
    assert re.search(r"inversion: +\d+%.* 1 s until the result", drawn)


def test_tracked_items_are_counted(clock: Clock) -> None:
    seen: list[tuple[str, int, int]] = []
    assert list(track("abc", "clips", lambda *step: seen.append(step))) == ["a", "b", "c"]
    assert seen == [("clips", n, 3) for n in range(4)]


def test_spaced_lines_are_due_after_ten_seconds_and_can_be_pickled(clock: Clock) -> None:
    lines = SpacedLines(io.StringIO(), clock=clock)
    assert lines.due
    lines.write("one")
    clock.now = 9.9
    assert not lines.due
    clock.now = 10.0
    assert lines.due
    assert pickle.loads(pickle.dumps(SpacedLines())).due


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (59.4, "59 s"), (200, "3 min 20 s"), (3600, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_closed_stream_counts_as_a_log() -> None:
    stream = io.StringIO()
    stream.close()
    assert isinstance(show_progress(stream=stream), StageLines)


def test_the_share_of_the_whole_work_follows_the_costs_of_its_stages() -> None:
    whole = WholeWork({"inversion": 10, "denoise": 30})
    assert whole.share("inversion", 1, 2) == pytest.approx(0.125)
    assert whole.share("inversion", 2, 2) == pytest.approx(0.25)
    assert whole.share("mask", 1, 1) == pytest.approx(0.25)
    assert whole.share("look ahead", 3, 4) == pytest.approx(0.25)
    assert whole.share("denoise", 1, 3) == pytest.approx(0.5)
    assert whole.share("denoise", 3, 3) == 1
    assert whole.share("inversion", 0, 2) == 1  # repeated after memory ran out


def test_the_share_of_several_windows_counts_each_equally() -> None:
    whole = WholeWork({"read": 1, "denoise": 3})
    assert whole.share("1/2 denoise", 3, 3) == pytest.approx(0.5)
    assert whole.share("2/2 look ahead", 1, 3) == pytest.approx(0.5)
    assert whole.share("2/2 denoise", 1, 3) == pytest.approx(0.75)
