"""Tables of edits: columns, files, headings, and mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from freemask.data.edit_list import Columns, read_edit_list
from freemask.types import InputError

# the layout of LOVEU-TGVE-2023: headings among the rows, names without folder and suffix
TGVE = """\
Video name,Our GT caption,Style Change Caption,Object Change Caption,Background Change Caption
DAVIS Videos:,,,,
bear,a bear on rocks,"a bear on rocks, as a sketch",a panda on rocks,a bear on snow
,,,,
Youtube Videos:,,,,
cat,a cat in a room,,a dog in a room,
"""
TGVE_COLUMNS = (
    "video=Video name",
    "source=Our GT caption",
    "target.style=Style Change Caption",
    "target.shape=Object Change Caption",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("DAVIS_480p/480p_videos/bear.mp4", "youtube_480p/480p_videos/cat.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "DAVIS_480p/480p_frames/bear").mkdir(parents=True)  # the video comes first
    return tmp_path


def table(folder: Path, text: str, name: str = "edits.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_a_row_is_an_edit(folder: Path) -> None:
    (folder / "mask.png").touch()
    path = table(
        folder,
        "video,source,target,mask,words,task\n"
        "DAVIS_480p/480p_videos/bear.mp4,a bear,a panda,mask.png,bear:panda,shape\n"
        "cat,a cat,a red cat,,,attribute\n",
    )
    first, second = read_edit_list(path)
    assert first.video == folder / "DAVIS_480p/480p_videos/bear.mp4"
    assert (first.source, first.target, first.mask) == ("a bear", "a panda", folder / "mask.png")
    assert (first.words, first.task, first.where) == (("bear", "panda"), "shape", f"{path}:2")
    assert second.video == folder / "youtube_480p/480p_videos/cat.mp4"
    assert (second.mask, second.words, second.task) == (None, (), "attribute")


def test_the_lists_of_loveu_tgve_are_read_with_their_own_columns(folder: Path) -> None:
    found = read_edit_list(table(folder, TGVE), Columns.parse(TGVE_COLUMNS))
    assert [(edit.video.stem, edit.task, edit.target) for edit in found] == [
        ("bear", "style", "a bear on rocks, as a sketch"),
        ("bear", "shape", "a panda on rocks"),
        ("cat", "shape", "a dog in a room"),
    ]
    assert found[0].video.suffix == ".mp4"
    assert found[0].source == "a bear on rocks"


def test_json_lines_are_tables_too(folder: Path) -> None:
    text = '{"clip": "bear", "source": "a bear", "target": "a panda", "score": 1}\n'
    (edit,) = read_edit_list(table(folder, text, "edits.jsonl"), Columns.parse(["video=clip"]))
    assert (edit.video.stem, edit.target) == ("bear", "a panda")


BAD_COLUMNS = {
    "no equals sign": (["video"], "'video' is not KEY=COLUMN"),
    "no column": (["video="], "'video=' is not KEY=COLUMN"),
    "an unknown key": (["vdeo=a"], "'vdeo' is unknown; did you mean 'video'"),
    "a target twice": (["target=a", "target.shape=b"], "leave target and task out"),
}


@pytest.mark.parametrize(("given", "message"), BAD_COLUMNS.values(), ids=BAD_COLUMNS)
def test_columns_of_another_form_are_refused(given: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Columns.parse(given)


BAD_TABLES = {
    "no column": ("video,prompt,target\nbear,a,b\n", "no column 'source', or .* --column KEY="),
    "no prompts": ("video,source,target\nBears:,,\n", "no column 'source', or nothing in it"),
    "no source": ("video,source,target\ncat,a,b\nbear,,b\n", "edits.csv:3 lacks source"),
    "no target": ("video,source,target\ncat,a,b\nbear,a,\n", "edits.csv:3 lacks target"),
    "no video": ("video,source,target\ncat,a,b\n,a,b\n", "edits.csv:3 lacks video"),
    "no row": ("video,source,target\n", "edits.csv is empty"),
    "no such file": ("video,source,target\nbeer,a,b\n", "edits.csv:2: there is no file 'beer'"),
    "no words": (
        'video,source,target,words\nbear,a,b,":"\n',
        "edits.csv:2: ':' is not of the form",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_tables_that_cannot_be_used_are_refused(folder: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_edit_list(table(folder, text))


def test_a_named_column_must_be_there(folder: Path) -> None:
    path = table(folder, TGVE)
    columns = Columns.parse([*TGVE_COLUMNS[:2], "target.shape=Object Chnge Caption"])
    with pytest.raises(InputError, match=r"'Object Chnge Caption'.* did you mean 'Object Change"):
        read_edit_list(path, columns)


def test_a_name_that_two_files_have_is_refused(folder: Path) -> None:
    (folder / "youtube_480p/480p_videos/bear.mp4").touch()
    path = table(folder, "video,source,target\nbear,a,b\n")
    with pytest.raises(InputError, match=r"'bear' may be .* and .*; give its path"):
        read_edit_list(path)


def test_entries_that_are_no_rows_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="edit 1 is a str, not an edit"):
        read_edit_list(table(folder, '["bear"]', "edits.json"))
    listed = table(folder, '{"video": "bear", "source": ["a"], "target": "b"}', "edits.jsonl")
    with pytest.raises(InputError, match=r"source is \['a'\]; it must be text"):
        read_edit_list(listed)
    with pytest.raises(InputError, match=r"edit list .* does not exist"):
        read_edit_list(folder / "none.csv")
