"""Job lists: what they may hold, and what is said of what they may not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from freemask.batch.job_list import load_jobs
from freemask.batch.jobs import Job
from freemask.settings import config_folder, tasks
from freemask.types import InputError

GOOD = {"id": "a", "video": "a.mp4", "source": "a bear", "target": "a panda"}


def written(path: Path, *entries: object) -> Path:
    path.write_text("\n".join(json.dumps(entry) for entry in entries))
    return path


def test_jsonl_and_yaml_hold_the_same_jobs(tmp_path: Path) -> None:
    lines = written(tmp_path / "jobs.jsonl", GOOD, GOOD | {"id": "b", "size": [32, 48]})
    listed = tmp_path / "jobs.yaml"
    listed.write_text(
        "- {id: a, video: a.mp4, source: a bear, target: a panda}\n"
        "- {id: b, video: a.mp4, source: a bear, target: a panda, size: [32, 48]}\n"
    )
    assert load_jobs(lines) == load_jobs(listed)
    assert load_jobs(lines)[1].size == (32, 48)


def test_a_job_says_all_that_an_edit_request_says() -> None:
    job = Job(**GOOD, words=("bear", "panda"), task="style", steps=7, guidance=3.0, seed=5)
    request = job.request()
    assert (request.source, request.target, request.words) == ("a bear", "a panda", job.words)
    assert (request.task, request.steps, request.guidance, request.seed) == ("style", 7, 3.0, 5)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (GOOD | {"taks": "shape"}, "jobs.jsonl:2: unknown key 'taks'; did you mean 'task'"),
        ({"id": "b", "video": "a.mp4"}, "jobs.jsonl:2 lacks source, target"),
        (GOOD | {"id": "../b"}, "job id '../b' is not a plain name"),
        (GOOD | {"id": "b", "steps": "ten"}, "steps is 'ten', it must be a whole number"),
        (GOOD | {"id": "b", "guidance": "high"}, "guidance is 'high', it must be a number"),
        (GOOD | {"id": "b", "overrides": ["a"]}, "overrides is .*, it must be keys and values"),
        (GOOD | {"id": "b", "source": 3}, "source is 3, it must be text"),
        (GOOD | {"id": "b", "size": [3, 4, 5]}, r"size is \[3, 4, 5\], it must be a pair"),
        (["b"], "jobs.jsonl:2 is a list, not a job"),
        (GOOD, "job ids must differ, these repeat"),
    ],
)
def test_a_bad_entry_is_named_with_its_line(tmp_path: Path, entry: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_jobs(written(tmp_path / "jobs.jsonl", GOOD, entry))


def test_a_broken_line_a_foreign_yaml_and_an_empty_list_are_errors(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text(json.dumps(GOOD) + "\n{oops\n")
    with pytest.raises(InputError, match=r"broken.jsonl:2 is not JSON"):
        load_jobs(broken)
    foreign = tmp_path / "foreign.yaml"
    foreign.write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(InputError, match="is not YAML"):
        load_jobs(foreign)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        load_jobs(empty)
    with pytest.raises(InputError, match="does not exist"):
        load_jobs(tmp_path / "nowhere.jsonl")


def test_the_shipped_job_list_covers_every_task() -> None:
    shipped = load_jobs(config_folder() / "jobs.yaml")
    assert sorted(job.task for job in shipped) == tasks()
