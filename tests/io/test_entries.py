"""Job lists as editors and spreadsheets write them: encodings, line ends, tables, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from freemask.batch.job_list import load_jobs
from freemask.batch.jobs import ClipRequest
from freemask.io.entries import decode, read_entries
from freemask.types import InputError

JOB = {"id": "a", "video": "a.mp4", "source": "a café", "target": "a bar"}
HEADER = "id,video,source,target"
ROW = 'a,a.mp4,"a café, at night",a bar'


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["unix", "windows", "old mac"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
def test_text_is_read_in_the_encoding_of_its_editor(
    tmp_path: Path, encoding: str, end: str
) -> None:
    path = tmp_path / "jobs.csv"
    path.write_bytes(end.join([HEADER, ROW, ""]).encode(encoding))
    ((where, entry),) = read_entries(path)
    assert entry == JOB | {"source": "a café, at night"}
    assert where == f"{path}:2"


def test_every_kind_of_file_gives_the_same_jobs(tmp_path: Path) -> None:
    written = {
        "jobs.jsonl": json.dumps(JOB),
        "jobs.json": json.dumps([JOB], indent=2),
        "jobs.yaml": json.dumps([JOB]),
        "jobs.csv": f"{HEADER}\na,a.mp4,a café,a bar\n",
        "semicolons.csv": f"{HEADER}\na,a.mp4,a café,a bar\n".replace(",", ";"),
        "excel.csv": "sep=;\n" + f"{HEADER}\na,a.mp4,a café,a bar\n".replace(",", ";"),
        "jobs.tsv": f"{HEADER}\na,a.mp4,a café,a bar\n".replace(",", "\t"),
    }
    for name, text in written.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert [entry for _, entry in read_entries(tmp_path / name)] == [JOB], name


def test_cells_become_values_and_empty_ones_defaults(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    path = tmp_path / "jobs.csv"
    path.write_text(
        "id,video,source,target,frames,start,size,words,guidance,steps,overrides,mask\n"
        "\n"
        "a,a.mp4,a bear,a panda,all,2,48x32,bear:panda,5.5,20,strength=0.5 seed_=1,\n"
        ",,,,,,,,,,,\n"
        "b,a.mp4,a bear,a panda,,,,,,,,\n"
    )
    first, second = load_jobs(path)
    video = str(tmp_path / "a.mp4")
    assert first.clip == ClipRequest(video, frames=None, start=2, size=(48, 32))
    assert first.request.words == ("bear", "panda")
    assert (first.request.guidance, first.request.steps) == (5.5, 20)
    assert first.request.overrides == {"strength": 0.5, "seed_": 1}
    assert first.mask is None
    assert second.clip == ClipRequest(video)
    assert second.request.steps == 50


def test_a_cell_may_hold_lines_and_errors_name_the_line_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text(f'{HEADER}\na,a.mp4,"a bear\non grass",a panda\nb,a.mp4,a bear,a panda,extra\n')
    with pytest.raises(InputError, match=r"jobs.csv:4 has 5 cells, the header has 4"):
        read_entries(path)
    path.write_text(f'{HEADER}\na,a.mp4,"a bear\non grass",a panda\n')
    assert read_entries(path)[0][1]["source"] == "a bear\non grass"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("jobs.csv", b'id,video\na,"b\n', r"jobs.csv:2 is no row of a table"),
        ("jobs.csv", b"\x00\x01\x02\x03\x81", "is not text"),
        ("jobs.jsonl", b"id\x81", "is not text"),
        ("jobs.json", b'{"id": "a"}', "holds a dict, not a list of jobs"),
        ("jobs.json", b"[1,", "is not JSON"),
        ("jobs.yml", b"[1,", "is not YAML"),
        ("jobs.xlsx", b"PK", r"its name must end in .jsonl, .csv, .tsv, .yaml, .yml, .json"),
        ("jobs", b"", "its name must end in"),
    ],
)
def test_an_unusable_file_is_an_error(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_jobs(tmp_path / name)


def test_a_folder_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        load_jobs(tmp_path / "jobs.csv")


def test_only_line_feeds_end_a_line_of_json(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_text(json.dumps(JOB | {"source": "a\u2028b\x0cc"}, ensure_ascii=False), "utf-8")
    assert "\u2028" in decode(path)
    assert len(read_entries(path)) == 1


def test_files_lie_beside_the_list_or_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists, work = tmp_path / "lists", tmp_path / "work"
    for folder in (lists, work):
        folder.mkdir()
        (folder / "both.mp4").touch()
    (work / "one.mp4").touch()
    (lists / "m.png").touch()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(work))
    names = ("both.mp4", "one.mp4", "~/one.mp4", "none.mp4", "%03d.png")
    path = lists / "jobs.jsonl"
    path.write_text(
        "\n".join(
            json.dumps(JOB | {"id": f"{n}", "video": name, "mask": "m.png"})
            for n, name in enumerate(names)
        )
    )
    *found, missing, pattern = load_jobs(path)
    assert [Path(job.clip.video) for job in found] == [
        lists / "both.mp4", Path("one.mp4"), work / "one.mp4",
    ]  # fmt: skip
    assert {job.mask for job in found} == {str(lists / "m.png")}
    assert missing.problem == f"there is no file 'none.mp4' in {lists} or {work}"
    assert pattern.clip.video == str(lists / "%03d.png")
    with pytest.raises(InputError, match=r"none.mp4' in .*lists or .*work"):
        missing.read()
