"""Caches inversions on disk, so that edits of one clip share an inversion.

    FOLDER/KEY.safetensors    a trajectory and the word maps that were read along it
    FOLDER/KEY.parts/         the steps of an unfinished inversion (`inversion_checkpoint`)
    FOLDER/KEY.lock           held by the process that makes or reads them

KEY is the fingerprint of everything that the trajectory depends on. Word maps are named by the
fingerprint of their query, so that edits of one clip to many targets share an inversion. An edit
that needs the maps of a new word has them read along the stored trajectory, which costs as much as
an inversion. Features of `features=store` are too large for the disk: the last ones stay in memory
for the edits that follow.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from freemask.attention.word_maps import WordMapRecorder, WordQuery
from freemask.batch.inversion_checkpoint import CheckpointFolder
from freemask.batch.inversion_file import read_inversion, write_inversion
from freemask.editors.editor import Editor
from freemask.io.fingerprint import fingerprint
from freemask.prepare import PreparedEdit
from freemask.sampling.inversion import invert_for, read, spread_of
from freemask.types import Inversion, Progress, Site, Trajectory, Video, WordMaps

LIMIT = 20 << 30  # bytes
log = logging.getLogger(__name__)
WordQueries = Mapping[str, WordQuery]  # by fingerprint


def inversion_fingerprint(editor: Editor, video: Video, prepared: PreparedEdit) -> str:
    """Returns the fingerprint of everything that the trajectory of an edit depends on."""
    scheduler = {key: str(value) for key, value in prepared.scheduler.config.items()}
    noised = _noised_traits(prepared) if prepared.settings.source == "noised" else []
    return fingerprint(
        editor.dependencies,
        editor.device.type,
        prepared.settings.backend,
        prepared.request.source,
        prepared.scheduler.timesteps,
        scheduler,
        video.frames,
        *noised,
    )


def _noised_traits(prepared: PreparedEdit) -> list[Any]:
    """Returns what else a noised source and the maps that are read from it depend on."""
    request, settings = prepared.request, prepared.settings
    return [request.seed, settings.flow.noise, prepared.latent_frames, prepared.entries]


def queries_of(prepared: PreparedEdit) -> dict[str, WordQuery]:
    """Returns the queries of an edit by their fingerprints."""
    return {fingerprint(query): query for query in prepared.queries.values()}


class InversionCache:
    """A folder of inversions that processes share.

    folder: where the inversions are stored.
    limit: size of the folder in bytes; beyond it the least recently used inversions are removed.

    A folder that cannot be written causes one warning, and edits go on without it.
    """

    def __init__(self, folder: Path, *, limit: int = LIMIT) -> None:
        self.folder, self.limit = folder, limit
        self._in_memory: tuple[object, Inversion] | None = None
        self._warned = False

    def invert(
        self,
        editor: Editor,
        video: Video,
        prepared: PreparedEdit,
        *,
        queries: WordQueries | None = None,
        progress: Progress | None = None,
    ) -> Inversion:
        """Returns the inversion of an edit: loads it, completes its word maps, or makes it.

        queries: words that other edits of the clip need, by fingerprint; their maps are recorded
            whenever the backbone has to run.
        progress: called with the stage, the steps done and the steps in all.
        """
        wanted = queries_of(prepared)
        everything = {**(queries or {}), **wanted}
        key = inversion_fingerprint(editor, video, prepared)
        if prepared.settings.features == "store":
            return self._with_features(key, editor, video, prepared, everything, progress)
        with self._locked(key, progress):
            found = self._load(key, prepared.sites)
            if found is None:
                trajectory, maps = self._make(key, editor, video, prepared, everything, progress)
            else:
                trajectory, maps = found
                if not set(wanted) <= set(maps):
                    missing = {name: everything[name] for name in set(everything) - set(maps)}
                    maps |= _read_maps(editor, video, prepared, trajectory, missing, progress)
                    self._save(key, trajectory, maps)
        return _by_role(prepared, trajectory, maps)

    def _make(
        self,
        key: str,
        editor: Editor,
        video: Video,
        prepared: PreparedEdit,
        queries: WordQueries,
        progress: Progress | None,
    ) -> tuple[Trajectory, dict[str, WordMaps]]:
        checkpoint = CheckpointFolder(
            self._path(key, ".parts"),
            key,
            sites=prepared.sites,
            queries=queries,
            device=editor.device,
        )
        inversion = invert_for(
            editor, video, prepared, queries=queries, checkpoint=checkpoint, progress=progress
        )
        maps = dict(inversion.word_maps)
        if self._save(key, inversion.trajectory, maps):
            checkpoint.remove()
        return inversion.trajectory, maps

    def _with_features(
        self,
        key: str,
        editor: Editor,
        video: Video,
        prepared: PreparedEdit,
        queries: WordQueries,
        progress: Progress | None,
    ) -> Inversion:
        name = (key, repr(prepared.settings.fusion), prepared.first_step, sorted(queries))
        if self._in_memory is None or self._in_memory[0] != name:
            self._in_memory = None  # frees its memory before the next inversion needs it
            inversion = invert_for(editor, video, prepared, queries=queries, progress=progress)
            self._in_memory = (name, inversion)
        held = self._in_memory[1]
        return _by_role(prepared, held.trajectory, held.word_maps, held.features)

    def _path(self, key: str, suffix: str = ".safetensors") -> Path:
        return self.folder / f"{key}{suffix}"

    @contextmanager
    def _locked(self, key: str, progress: Progress | None) -> Iterator[None]:
        lock = FileLock(self._path(key, ".lock"))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if progress:
                    progress("wait for the same inversion elsewhere", 0, 1)
                lock.acquire()
        except OSError as error:
            self._warn(error)
        try:
            yield
        finally:
            lock.release()

    def _load(
        self, key: str, sites: tuple[Site, ...]
    ) -> tuple[Trajectory, dict[str, WordMaps]] | None:
        path = self._path(key)
        try:
            found = read_inversion(path, sites)
        except ValueError:
            log.warning("%s is damaged; the inversion is made again", path)
            return None
        if found:
            with suppress(OSError):  # a cache that others own may be read-only
                path.touch()
        return found

    def _save(self, key: str, trajectory: Trajectory, maps: Mapping[str, WordMaps]) -> bool:
        try:
            write_inversion(self._path(key), trajectory, maps)
            self._shrink(key)
        except OSError as error:
            self._warn(error)
            return False
        return True

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            log.warning("inversions are not kept in %s: %s", self.folder, error.strerror)
        self._warned = True

    def _shrink(self, used: str) -> None:
        """Removes the least recently used entries until the rest fits, but none that is in use."""
        entries = [
            path for path in self.folder.iterdir() if path.suffix in (".safetensors", ".parts")
        ]
        sizes = {path: _bytes(path) for path in entries}
        for path in sorted(entries, key=lambda path: path.stat().st_mtime):
            if sum(sizes.values()) <= self.limit:
                return
            if path.stem == used:
                continue
            try:
                with FileLock(self._path(path.stem, ".lock"), timeout=0):
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            except Timeout:
                continue
            del sizes[path]


def _read_maps(
    editor: Editor,
    video: Video,
    prepared: PreparedEdit,
    trajectory: Trajectory,
    queries: WordQueries,
    progress: Progress | None,
) -> dict[str, WordMaps]:
    """Reads the word maps of more queries along a known trajectory."""
    recorder = WordMapRecorder(
        queries, spread=spread_of(editor, video), backend=prepared.settings.backend
    )
    noised = prepared.settings.source == "noised"
    entries = prepared.entries if noised else range(trajectory.steps)
    read(
        editor,
        trajectory,
        prepared.request.source,
        prepared.sites,
        recorder,
        entries,
        progress=progress,
    )
    return dict(recorder.word_maps(trajectory.timesteps))


def _by_role(
    prepared: PreparedEdit,
    trajectory: Trajectory,
    maps: Mapping[str, WordMaps],
    features: object = None,
) -> Inversion:
    roles = {role: maps[fingerprint(query)] for role, query in prepared.queries.items()}
    return Inversion(trajectory, roles, prepared.request.source, features)


def _bytes(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
