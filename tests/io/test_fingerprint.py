"""A fingerprint changes exactly when something that the work depends on changes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from freemask.io.fingerprint import file_stamp, fingerprint
from freemask.types import InputError


@dataclass
class Asked:
    steps: int
    names: tuple[str, ...] = ()


DIFFERENT = [
    None,
    0,
    0.0,
    False,
    "0",
    b"0",
    [],
    [0],
    [[0]],
    ["a", "b"],
    ["ab"],
    {},
    {"a": 1},
    {"a": 2},
    {"b": 1},
    Asked(1),
    Asked(1, ("x",)),
    np.zeros(2, np.float32),
    np.zeros(2, np.float64),
    np.zeros((2, 1), np.float32),
    torch.zeros(2),
    torch.zeros(2, dtype=torch.bfloat16),
    torch.zeros(1, 2),
    torch.tensor(0.0),
]


def test_values_that_differ_have_different_fingerprints() -> None:
    assert len({fingerprint(value) for value in DIFFERENT}) == len(DIFFERENT)


def test_order_of_keys_and_layout_of_arrays_do_not_matter() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint((1, 2)) == fingerprint([1, 2]) != fingerprint([2, 1])
    x = torch.arange(6.0).reshape(2, 3)
    assert fingerprint(x.t().contiguous().t()) == fingerprint(x)
    assert fingerprint(np.asfortranarray(x.numpy())) == fingerprint(x.numpy())


def test_a_path_counts_by_its_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("same")
    two.write_text("same")
    assert fingerprint(one) == fingerprint(two)
    two.write_text("other")
    assert fingerprint(one) != fingerprint(two)
    folder = fingerprint(tmp_path)
    two.rename(tmp_path / "three")
    assert fingerprint(tmp_path) != folder


def test_what_cannot_be_read_or_hashed_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*nowhere"):
        fingerprint(tmp_path / "nowhere")
    with pytest.raises(TypeError, match="cannot fingerprint a object"):
        fingerprint(object())


def test_a_pattern_counts_by_its_images_and_a_pipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"a")
    before = fingerprint(tmp_path / "%d.png")
    (tmp_path / "notes.txt").write_bytes(b"no image of the pattern")
    assert fingerprint(tmp_path / "%d.png") == before
    (tmp_path / "2.png").write_bytes(b"b")
    assert fingerprint(tmp_path / "%d.png") != before
    os.mkfifo(tmp_path / "pipe")
    for pipe in (tmp_path / "pipe", Path("-")):
        with pytest.raises(InputError, match="is a pipe, which is read once"):
            fingerprint(pipe)


def test_a_stamp_changes_with_names_sizes_and_times_but_not_with_content(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    file = folder / "unet" / "weights"
    file.write_bytes(b"12")
    os.utime(file, ns=(5, 5))
    first = file_stamp(folder)
    file.write_bytes(b"34")
    os.utime(file, ns=(5, 5))
    assert file_stamp(folder) == first
    os.utime(file, ns=(5, 6))
    later = file_stamp(folder)
    file.write_bytes(b"345")
    os.utime(file, ns=(5, 6))
    longer = file_stamp(folder)
    file.rename(folder / "weights")
    assert len({first, later, longer, file_stamp(folder)}) == 4
    assert file_stamp(folder) == file_stamp(folder / "weights")
    assert file_stamp(tmp_path / "nowhere") == file_stamp(tmp_path / "nowhere either")
