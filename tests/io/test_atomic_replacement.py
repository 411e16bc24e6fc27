"""An earlier result goes only when the new one is in its place, wherever it lies."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from freemask.io import atomic
from freemask.io.atomic import atomic_folder, check_writable, move_into_place
from freemask.types import InputError

FILES = ("a", "b")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with an earlier result: the file `a`, and `b` that the new one lacks."""
    folder = tmp_path / "out"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text("old")
    return folder


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def write(folder: Path, act: Callable[[], object] = lambda: None) -> None:
    with atomic_folder(folder, FILES) as aside:
        (aside / "a").write_text("new")
        act()


def mount(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Makes a folder behave as a mount point does: it cannot be renamed."""
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path == folder:
            raise OSError(errno.EBUSY, "Device or resource busy")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)


def test_a_mount_point_takes_the_new_files_one_by_one(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount(monkeypatch, out)
    inode = out.stat().st_ino
    write(out)
    assert content(out) == {"a": "new"}
    assert out.stat().st_ino == inode
    assert os.listdir(out.parent) == ["out"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_real_mount_point_is_replaced(out: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from freemask.io.atomic import atomic_folder\n"
        "with atomic_folder(Path(sys.argv[1]), ('a', 'b')) as aside: (aside/'a').write_text('new')"
    )
    script = f'mount --bind "{out}" "{out}" && exec "$@"'
    run = ["unshare", "--mount", "bash", "-c", script, "-", sys.executable, "-c", code, str(out)]
    done = subprocess.run(run, capture_output=True, text=True)
    if "ermission" in done.stderr or "not permitted" in done.stderr:
        pytest.skip("this system does not allow mounts")
    assert done.returncode == 0, done.stderr
    assert content(out) == {"a": "new"}
    assert os.listdir(out.parent) == ["out"]


def test_the_working_folder_stays_the_working_folder(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(out)
    write(Path("."))
    assert content(Path.cwd()) == {"a": "new"}
    assert os.path.samefile(".", out)


@pytest.mark.parametrize("mounted", [True, False])
def test_an_error_while_files_move_puts_the_old_ones_back(
    mounted: bool, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mounted:
        mount(monkeypatch, out)
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if (
            (path.name == "a" or path.is_dir())
            and Path(target) in (out, out / "a")
            and "new" in (path.read_text() if path.is_file() else (path / "a").read_text())
        ):
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(KeyboardInterrupt):
        write(out)
    assert content(out) == {"a": "old", "b": "old"}
    assert os.listdir(out.parent) == ["out"]


def test_a_full_disk_is_one_sentence_and_keeps_the_earlier_result(out: Path) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(
        InputError, match=r"cannot write .*out \(No space left on device\); free"
    ) as e:
        write(out, full)
    assert isinstance(e.value.__cause__, OSError)
    assert content(out) == {"a": "old", "b": "old"}


def test_an_error_leaves_no_new_parents(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "deep" / "er" / "out", lambda: 1 / 0)
    assert os.listdir(tmp_path) == []
    write(tmp_path / "deep" / "er" / "out")
    assert content(tmp_path / "deep" / "er" / "out") == {"a": "new"}


def test_a_link_to_a_folder_stays_a_link(out: Path) -> None:
    link = out.parent / "link"
    link.symlink_to(out)
    write(link)
    assert link.is_symlink()
    assert content(out) == {"a": "new"}


def test_any_name_is_a_folder(tmp_path: Path) -> None:
    for name in ("my edits/bear 1", "[x]*?", "é" * 100):
        write(tmp_path / name)
        write(tmp_path / name)
        assert content(tmp_path / name) == {"a": "new"}


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_leftovers_of_a_killed_process_are_removed(out: Path) -> None:
    host = socket.gethostname()
    dead, alive = (out.parent / f".out-{host}-{pid}-x" for pid in (dead_process(), os.getpid()))
    elsewhere = out.parent / f".out-{host}elsewhere-1-x"
    for folder in (dead, alive, elsewhere):
        folder.mkdir()
        (folder / "a").write_text("half")
    check_writable(out, FILES)
    assert not dead.exists()
    assert alive.exists()  # may be writing now
    assert elsewhere.exists()  # of another host, whose processes are unknown
    assert content(out) == {"a": "old", "b": "old"}


@pytest.mark.parametrize("within", [True, False])
def test_an_earlier_result_that_a_killed_process_moved_aside_is_put_back(
    within: bool, out: Path
) -> None:
    name = f".out-{socket.gethostname()}-{dead_process()}-x"
    if within:  # killed between two files
        (out / name / atomic.OLD).mkdir(parents=True)
        (out / "b").rename(out / name / atomic.OLD / "b")
        (out / name / "a").write_text("new")
    else:  # killed between two renames
        out.rename(out.parent / (name + atomic.OLD))
    check_writable(out, FILES)
    assert content(out) == {"a": "old", "b": "old"}
    assert os.listdir(out.parent) == ["out"]


def test_what_cannot_be_replaced_is_refused_before(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    make = tempfile.TemporaryFile

    def read_only(*given: object, dir: Path | None = None, **named: object) -> object:
        if dir == out:
            raise OSError(errno.EROFS, "Read-only file system")
        return make(*given, dir=dir, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    with pytest.raises(InputError, match=r"cannot write to .*out: Read-only file system"):
        check_writable(out, FILES)


def test_a_folder_with_folders_moves_into_place_too(out: Path, tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    (aside / "unet").mkdir(parents=True)
    (aside / "unet" / "config.json").write_text("{}")
    move_into_place(aside, out)
    assert [path.name for path in out.iterdir()] == ["unet"]
    assert sorted(os.listdir(tmp_path)) == ["out"]
