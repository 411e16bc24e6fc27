"""Files of visitors: kept apart, inside the folder, and removed."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from freemask.types import InputError
from freemask.ui.work_folder import WorkFolder


@pytest.fixture
def folder(tmp_path: Path) -> WorkFolder:
    return WorkFolder(tmp_path / "work", upload_mb=1)


def test_visitors_have_folders_of_their_own_whatever_their_names(folder: WorkFolder) -> None:
    names = ["a", "b", "../../etc", "x" * 1000, ""]
    made = [folder.of(name) for name in names]
    assert len(set(made)) == len(names)
    assert all(path.is_relative_to(folder.root) for path in made)
    assert folder.of("a") == made[0]


@pytest.mark.parametrize("path", ["/etc/passwd", "{root}/../outside.mp4", "{root}/link.mp4"])
def test_files_elsewhere_are_unreachable(folder: WorkFolder, path: str, tmp_path: Path) -> None:
    (tmp_path / "outside.mp4").write_text("secret")
    (folder.root / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    with pytest.raises(InputError, match="is no file of this page; upload it"):
        folder.inside(path.format(root=folder.root))


def test_files_that_are_gone_or_too_large_are_refused(folder: WorkFolder) -> None:
    with pytest.raises(InputError, match="is not there any more"):
        folder.inside(folder.root / "gone.mp4")
    large = folder.root / "large.mp4"
    with large.open("wb") as file:
        file.truncate(2_000_000)
    with pytest.raises(InputError, match="has 2 MB; the page takes files of at most 1 MB"):
        folder.inside(large)


def test_a_result_is_zipped_under_its_name(folder: WorkFolder) -> None:
    result = folder.new_result("ann")
    assert result.name == "result-1"
    result.mkdir()
    (result / "result.json").write_text("{}")
    with zipfile.ZipFile(folder.zipped(result)) as archive:
        assert archive.namelist() == ["result-1/result.json"]
    assert folder.new_result("ann").name == "result-2"
    assert folder.new_result("bob").name == "result-1"


def test_a_temporary_folder_is_removed_and_a_given_one_is_kept(folder: WorkFolder) -> None:
    for kept in (folder, WorkFolder()):
        (kept.of("ann") / "clip.mp4").touch()
        kept.forget("ann")
        assert (kept.of("ann") / "clip.mp4").exists() != kept.temporary
        kept.close()
        assert kept.root.exists() != kept.temporary
