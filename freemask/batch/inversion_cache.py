"""Inversions on disk, so that no clip is inverted twice and none from its beginning again.

    FOLDER/KEY.safetensors        a trajectory and the word maps that were read along it
    FOLDER/KEY.parts/00012.safetensors   one entry of an inversion that is under way
    FOLDER/KEY.lock               held by the process that makes or reads them

KEY is a hash of all that the trajectory depends on: the frames, the source prompt, the steps, the
editor with every weight. Word maps are named by a hash of their query, so that edits of one clip to
many prompts share an inversion; one that asks for a word nobody asked for before has it read along
the trajectory, at the cost of an inversion. What `features=store` keeps is too large for the
disk and is shared in memory, between edits that follow each other.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from freemask.attention.word_maps import Maps, WordMapRecorder, WordQuery
from freemask.editors.editor import Editor
from freemask.io.atomic import write_whole
from freemask.prepare import PreparedEdit
from freemask.sampling.ddim import InversionStep
from freemask.sampling.inversion import invert_for, read_again
from freemask.types import Inversion, Progress, Site, Trajectory, Video, WordMaps

LIMIT = 20 << 30  # bytes
log = logging.getLogger(__name__)
WordQueries = Mapping[str, WordQuery]


def query_key(query: WordQuery) -> str:
    """A name for a query, the same wherever it is asked."""
    return _hash(query.weights, *([] if query.text is None else [query.text]))


def inversion_key(editor: Editor, video: Video, plan: PreparedEdit) -> str:
    """A name for everything that the trajectory of an edit depends on."""
    described = {
        "editor": editor.dependencies,
        "device": editor.device.type,
        "backend": plan.settings.backend,
        "prompt": plan.request.source,
        "timesteps": plan.scheduler.timesteps.tolist(),
        "scheduler": {key: str(value) for key, value in plan.scheduler.config.items()},
        "frames": _hash(torch.from_numpy(video.frames)),
        "shape": video.frames.shape,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]


class InversionCache:
    """A folder of inversions, shared by processes.

    limit: bytes; beyond it the inversions go that were not used for longest. A folder that cannot
    be written (any more) is worth a warning: edits go on without it.
    """

    def __init__(self, folder: Path, *, limit: int = LIMIT) -> None:
        self.folder, self.limit = folder, limit
        self._held: tuple[object, Inversion] | None = None
        self._complained = False

    def invert(
        self,
        editor: Editor,
        video: Video,
        plan: PreparedEdit,
        *,
        queries: WordQueries | None = None,
        progress: Progress | None = None,
    ) -> Inversion:
        """The inversion of a plan: found, completed, or made.

        queries: by `query_key`, what other edits of the clip will ask for; read in passing when
        anything has to be read.
        """
        wanted = {query_key(query): query for query in plan.queries.values()}
        everything = {**(queries or {}), **wanted}
        key = inversion_key(editor, video, plan)
        if plan.settings.features == "store":
            return self._with_features(key, editor, video, plan, everything, progress)
        with self._locked(key, progress):
            trajectory, maps = self._load(key, plan.sites)
            if trajectory is None:
                trajectory, maps = self._make(key, editor, video, plan, everything, progress)
            elif not set(wanted) <= set(maps):
                missing = {name: everything[name] for name in set(everything) - set(maps)}
                capture = WordMapRecorder(missing, video.num_frames, backend=plan.settings.backend)
                read_again(
                    editor, trajectory, plan.request.source, plan.sites, capture, progress=progress
                )
                maps = maps | capture.word_maps(trajectory.timesteps)
                self._save(key, trajectory, maps)
        return _as_planned(plan, trajectory, maps)

    def _make(
        self,
        key: str,
        editor: Editor,
        video: Video,
        plan: PreparedEdit,
        queries: WordQueries,
        progress: Progress | None,
    ) -> tuple[Trajectory, dict[str, WordMaps]]:
        checkpoint = _CacheCheckpoint(self._path(key, ".parts"), plan.sites, queries, editor.device)
        inversion = invert_for(
            editor, video, plan, queries=queries, checkpoint=checkpoint, progress=progress
        )
        maps = dict(inversion.word_maps)
        if self._save(key, inversion.trajectory, maps):
            shutil.rmtree(checkpoint.folder, ignore_errors=True)
        return inversion.trajectory, maps

    def _with_features(
        self,
        key: str,
        editor: Editor,
        video: Video,
        plan: PreparedEdit,
        queries: WordQueries,
        progress: Progress | None,
    ) -> Inversion:
        name = (key, repr(plan.settings.fusion), plan.first_step, sorted(queries))
        if self._held is None or self._held[0] != name:
            self._held = None  # its memory goes before the next one's comes
            inversion = invert_for(editor, video, plan, queries=queries, progress=progress)
            self._held = (name, inversion)
        held = self._held[1]
        return _as_planned(plan, held.trajectory, held.word_maps, held.features)

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
            self._complain(error)
        try:
            yield
        finally:
            lock.release()

    def _load(
        self, key: str, sites: tuple[Site, ...]
    ) -> tuple[Trajectory | None, dict[str, WordMaps]]:
        path = self._path(key)
        try:
            with safe_open(path, "pt") as file:
                timesteps = tuple(json.loads(file.metadata()["timesteps"]))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            trajectory = Trajectory(tensors.pop("latents"), timesteps)
            by_probe: dict[str, dict[Site, Tensor]] = {}
            for (query, site), maps in _by_site(tensors, sites).items():
                by_probe.setdefault(query, {})[site] = maps
            path.touch()
        except FileNotFoundError:
            return None, {}
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            log.warning("%s is no inversion any more; it is made anew", path)
            return None, {}
        return trajectory, {query: WordMaps(maps, timesteps) for query, maps in by_probe.items()}

    def _save(self, key: str, trajectory: Trajectory, maps: Mapping[str, WordMaps]) -> bool:
        tensors = {
            f"{query}/{site.name}": values.contiguous()
            for query, word in maps.items()
            for site, values in word.maps.items()
        }
        tensors["latents"] = trajectory.latents.cpu().contiguous()
        metadata = {"timesteps": json.dumps(trajectory.timesteps)}
        try:
            write_whole(self._path(key), save(tensors, metadata))
            self._shrink(key)
        except OSError as error:
            self._complain(error)
            return False
        return True

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            log.warning("inversions are not kept in %s: %s", self.folder, error.strerror)
        self._complained = True

    def _shrink(self, used: str) -> None:
        """Remove what was not used for longest until the rest fits; nothing that is in use."""
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


class _CacheCheckpoint:
    """The entries of an inversion that is under way, a file each; of these queries, no fewer."""

    def __init__(
        self, folder: Path, sites: tuple[Site, ...], queries: WordQueries, device: torch.device
    ) -> None:
        self.folder, self.sites, self.queries, self.device = folder, sites, queries, device
        self._broken = False

    def earlier(self) -> list[tuple[InversionStep, Maps]]:
        """What was kept, up to the first entry that is missing, damaged, or lacks a query."""
        found: list[tuple[InversionStep, Maps]] = []
        while (path := self._path(len(found))).exists():
            try:
                tensors = load_file(path)
                latent, noise = (tensors.pop(name).to(self.device) for name in ("latent", "noise"))
            except (OSError, SafetensorError, KeyError):
                break
            maps = _by_site(tensors, self.sites)
            if not set(self.queries) <= {query for query, _ in maps}:
                break
            wanted = {key: image for key, image in maps.items() if key[0] in self.queries}
            found.append((InversionStep(latent, noise), wanted))
        return found

    def keep(self, entry: int, look: InversionStep, maps: Maps) -> None:
        """Keep an entry, if the disk can."""
        if self._broken:
            return
        tensors = {
            f"{query}/{site.name}": image.contiguous() for (query, site), image in maps.items()
        }
        tensors |= {
            "latent": look.latent.cpu().contiguous(),
            "noise": look.noise.cpu().contiguous(),
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._path(entry), save(tensors))
        except OSError:  # the cache says so, when it cannot keep the whole
            self._broken = True

    def _path(self, entry: int) -> Path:
        return self.folder / f"{entry:05d}.safetensors"


def _by_site(
    tensors: Mapping[str, Tensor], sites: tuple[Site, ...]
) -> dict[tuple[str, Site], Tensor]:
    """`PROBE/SITE` -> tensor, by query and site."""
    named = {site.name: site for site in sites}
    found = {}
    for name, tensor in tensors.items():
        query, _, site = name.partition("/")
        found[query, named[site]] = tensor
    return found


def _as_planned(
    plan: PreparedEdit,
    trajectory: Trajectory,
    maps: Mapping[str, WordMaps],
    features: object = None,
) -> Inversion:
    roles = {role: maps[query_key(query)] for role, query in plan.queries.items()}
    return Inversion(trajectory, roles, plan.request.source, features)


def _bytes(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _hash(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]
