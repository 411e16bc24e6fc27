"""Keeps the files of each visitor apart, and removes them when the visitor leaves."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from hashlib import sha256
from pathlib import Path

from freemask.types import InputError


class WorkFolder:
    """A folder with one subfolder for each visitor.

    root: the folder; None makes a temporary one, which `close` removes.
    upload_mb: largest file that is taken, in megabytes.
    """

    def __init__(self, root: Path | None = None, *, upload_mb: int = 200) -> None:
        self.temporary = root is None
        made = Path(tempfile.mkdtemp(prefix="freemask-ui-")) if root is None else root
        made.mkdir(parents=True, exist_ok=True)
        self.root, self.upload_mb = made.resolve(), upload_mb

    @property
    def uploads(self) -> Path:
        """Where uploaded files lie."""
        return self.root / "uploads"

    def of(self, visitor: str) -> Path:
        """Returns the folder of a visitor. Its name is a hash, so any text is a name."""
        folder = self.root / "visitors" / sha256(visitor.encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def new_result(self, visitor: str) -> Path:
        """Returns a folder, which does not exist, for the next result of a visitor."""
        folder = self.of(visitor)
        before = [path for path in folder.glob("result-*") if path.is_dir()]
        return folder / f"result-{len(before) + 1}"

    def inside(self, path: str | Path) -> Path:
        """Returns the path of a file of this folder.

        Raises `InputError` for a path that leads out of the folder, and for a file that is absent
        or too large.
        """
        found = Path(path).resolve()
        if not found.is_relative_to(self.root):
            raise InputError(f"{Path(path).name!r} is no file of this page; upload it")
        if not found.is_file():
            raise InputError(f"{found.name!r} is not there any more; upload it again")
        size = found.stat().st_size / 1e6
        if size > self.upload_mb:
            raise InputError(
                f"{found.name!r} has {size:.0f} MB; the page takes files of at most "
                f"{self.upload_mb} MB (--upload-mb)"
            )
        return found

    def zipped(self, folder: Path) -> Path:
        """Writes a folder of this one as a .zip file beside it; returns the file."""
        target = folder.with_suffix(".zip")
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:  # videos are compressed
            for file in sorted(folder.iterdir()):
                archive.write(file, f"{folder.name}/{file.name}")
        return target

    def forget(self, visitor: str) -> None:
        """Removes the files of a visitor, if the folder is a temporary one."""
        if self.temporary:
            shutil.rmtree(self.of(visitor), ignore_errors=True)

    def close(self) -> None:
        """Removes the folder, if it is a temporary one."""
        if self.temporary:
            shutil.rmtree(self.root, ignore_errors=True)
