"""Job lists: their keys, and errors that name the entry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from freemask.batch.job_list import load_jobs
from freemask.batch.jobs import ClipRequest, Job
from freemask.settings.presets import config_folder
from freemask.types import EditRequest, InputError

MINIMAL = {"id": "a", "video": "a.mp4", "source": "a bear", "target": "a panda"}


def written(path: Path, *entries: object) -> Path:
    path.write_text("\n".join(json.dumps(entry) for entry in entries))
    return path


def test_jsonl_and_yaml_hold_the_same_jobs(tmp_path: Path) -> None:
    lines = written(tmp_path / "jobs.jsonl", MINIMAL, MINIMAL | {"id": "b", "size": [32, 48]})
    listed = tmp_path / "jobs.yaml"
    listed.write_text(
        "- {id: a, video: a.mp4, source: a bear, target: a panda}\n"
        "- {id: b, video: a.mp4, source: a bear, target: a panda, size: [32, 48]}\n"
    )
    assert load_jobs(lines) == load_jobs(listed)
    assert load_jobs(lines)[1].clip.size == (32, 48)


def test_every_key_reaches_its_field(tmp_path: Path) -> None:
    video, mask = tmp_path / "b.gif", tmp_path / "m.png"
    video.touch()
    mask.touch()
    clip = {"video": str(video), "frames": None, "start": 2, "stride": 3, "size": [32, 48]}
    request = {"source": "a bear", "target": "a panda", "words": ["bear", "panda"]}
    request |= {"task": "style", "method": "ddim", "steps": 7, "guidance": 3.0, "seed": 5}
    request |= {"overrides": {"strength": 0.5}}
    path = written(tmp_path / "jobs.jsonl", {"id": "b", "mask": "m.png"} | clip | request)
    (job,) = load_jobs(path)
    assert job == Job(
        "b",
        ClipRequest(**clip | {"size": (32, 48)}),
        EditRequest(**request | {"words": ("bear", "panda")}),
        str(mask),
    )


def test_null_leaves_words_size_and_mask_out(tmp_path: Path) -> None:
    nothing = {"words": None, "size": None, "mask": None}
    jobs = load_jobs(written(tmp_path / "jobs.jsonl", MINIMAL, MINIMAL | {"id": "b"} | nothing))
    assert jobs[0].request == jobs[1].request
    assert (jobs[0].clip, jobs[0].mask) == (jobs[1].clip, jobs[1].mask)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (MINIMAL | {"taks": "shape"}, "jobs.jsonl:2: unknown key 'taks'; did you mean 'task'"),
        (MINIMAL | {"clip": "a.mp4"}, "jobs.jsonl:2: unknown key 'clip'"),
        ({"id": "b", "video": "a.mp4"}, "jobs.jsonl:2 lacks source, target"),
        (MINIMAL | {"id": "../b"}, "jobs.jsonl:2: job id '../b' is not a plain name"),
        (MINIMAL | {"id": "b", "steps": "ten"}, "steps is 'ten', it must be a whole number"),
        (MINIMAL | {"id": "b", "guidance": "high"}, "guidance is 'high', it must be a number"),
        (MINIMAL | {"id": "b", "overrides": ["a"]}, "overrides is .*, it must be keys and values"),
        (MINIMAL | {"id": "b", "source": 3}, "source is 3, it must be text"),
        (MINIMAL | {"id": "b", "size": [3, 4, 5]}, r"size is \[3, 4, 5\], it must be a pair"),
        (MINIMAL | {"id": "b", "words": ":"}, "words: ':' is not of the form OLD:NEW"),
        (MINIMAL | {"id": "b", "words": 3}, "words is 3, it must be a pair of words, or a list"),
        (MINIMAL | {"id": "b", "words": [["a", "b"], "c"]}, "jobs.jsonl:2: words is"),
        (MINIMAL | {"id": "b", "size": "big"}, "size: 'big' is not HEIGHTxWIDTH"),
        (MINIMAL | {"id": "b", "frames": "0"}, "frames: '0' is not a whole number of 1 or more"),
        (MINIMAL | {"id": "b", "overrides": "strength"}, "overrides: .* not of the form key=value"),
        (MINIMAL | {"id": "b", "steps": True}, "steps is True, it must be a whole number"),
        (MINIMAL | {"problem": "none"}, "unknown key 'problem'"),
        (["b"], "jobs.jsonl:2 is a list, not a job"),
        (MINIMAL, "job ids must differ, these repeat"),
    ],
)
def test_an_error_names_the_entry(tmp_path: Path, entry: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_jobs(written(tmp_path / "jobs.jsonl", MINIMAL, entry))


def test_a_file_that_is_no_list_of_jobs_is_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text(json.dumps(MINIMAL) + "\n{oops\n")
    with pytest.raises(InputError, match=r"broken.jsonl:2 is not JSON"):
        load_jobs(broken)
    unsafe = tmp_path / "unsafe.yaml"
    unsafe.write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(InputError, match="is not YAML"):
        load_jobs(unsafe)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        load_jobs(empty)
    with pytest.raises(InputError, match="does not exist"):
        load_jobs(tmp_path / "nowhere.jsonl")


def test_words_may_be_several_pairs_or_in_one_prompt_alone(tmp_path: Path) -> None:
    pairs = [["bear", "panda"], ["grass", "snow"]]
    entries = [
        MINIMAL | {"id": "a", "words": pairs},
        MINIMAL | {"id": "b", "words": "bear:panda,grass:snow"},
        MINIMAL | {"id": "c", "words": "bear:"},
    ]
    words = [job.request.words for job in load_jobs(written(tmp_path / "jobs.jsonl", *entries))]
    assert words == [(("bear", "panda"), ("grass", "snow"))] * 2 + [("bear", "")]


def test_the_shipped_job_list_covers_the_first_tasks() -> None:
    shipped = load_jobs(config_folder() / "jobs.yaml")
    assert sorted(job.request.task for job in shipped) == ["attribute", "shape", "style"]


BAD_LISTS: dict[str, tuple[str, str]] = {
    "an empty file": ("", "is empty"),
    "a broken line": (json.dumps(MINIMAL) + "\n{oops", "jobs.jsonl:2 is not JSON"),
    "a list instead of a job": ("[1, 2]", "jobs.jsonl:1 is a list, not a job"),
    "a path for an id": (json.dumps(MINIMAL | {"id": "../../etc"}), "is not a plain name"),
    "a hidden id": (json.dumps(MINIMAL | {"id": ".run"}), "is not a plain name"),
    "an empty id": (json.dumps(MINIMAL | {"id": ""}), "is not a plain name"),
    "two jobs with one id": (f"{json.dumps(MINIMAL)}\n" * 2, "ids must differ"),
    "an unknown key": (json.dumps(MINIMAL | {"taks": "shape"}), "unknown key 'taks'"),
    "no target in a job": (
        json.dumps({k: v for k, v in MINIMAL.items() if k != "target"}),
        "lacks target",
    ),
    "steps in words": (json.dumps(MINIMAL | {"steps": "ten"}), "steps is 'ten'"),
    "a size of one": (json.dumps(MINIMAL | {"size": [64]}), r"size is \[64\], it must be a pair"),
    "bytes instead of text": ("\udc81", "is not text"),
}


@pytest.mark.parametrize("case", BAD_LISTS)
def test_an_error_is_one_line(case: str, tmp_path: Path) -> None:
    text, message = BAD_LISTS[case]
    (tmp_path / "jobs.jsonl").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=message) as caught:
        load_jobs(tmp_path / "jobs.jsonl")
    assert "\n" not in str(caught.value)
