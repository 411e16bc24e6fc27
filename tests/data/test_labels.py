"""The records of a teacher's masks."""

from __future__ import annotations

from pathlib import Path

import pytest

from freemask.data.labels import Label, load_labels, save_labels
from freemask.types import InputError

NAMES = ["bear", "007", "no", 'a "b": {c}', "медведь 🐻", "</script>", "${oc.env:HOME}"]


def test_labels_come_back_as_they_were_whatever_a_clip_is_called(tmp_path: Path) -> None:
    labels = {name: Label(f"sam of {name}", 8, n, n / 8, n > 2) for n, name in enumerate(NAMES)}
    save_labels(tmp_path, labels)
    assert load_labels(tmp_path) == labels
    assert [path.name for path in tmp_path.iterdir()] == ["labels.yaml"]
    assert load_labels(tmp_path / "nowhere") == {}


def test_labels_are_accepted_unless_they_say_no(tmp_path: Path) -> None:
    (tmp_path / "labels.yaml").write_text("bear: {teacher: sam}\ncat: {accepted: no}")
    found = load_labels(tmp_path)
    assert (found["bear"].accepted, found["cat"].accepted) == (True, False)


BAD = {
    "not YAML": ("bear: [", "cannot be read"),
    "an object of Python": ("bear: !!python/object:os.system {}", "cannot be read"),
    "a list": ("[bear]", "must map clip names"),
    "no entry": ("bear: yes", "must map clip names"),
    "a foreign key": ("bear: {acepted: no}", "'acepted'; did you mean 'accepted'"),
    "another type": ("bear: {frames: many}", "frames"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_labels_that_cannot_be_used_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "labels.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_labels(tmp_path)
