"""Looks at a clip once, and makes and remakes its mask without calling the backbone again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from freemask.calibration.figures import COLUMNS, WordMapSheet, spread_entries
from freemask.editors.editor import Editor
from freemask.masks.build import RegionHeat, cut, region_heats, shown_heat
from freemask.masks.codebook import Codebook
from freemask.masks.policies import Cell
from freemask.masks.selection import Selection, codebook_for
from freemask.prepare import PreparedEdit, prepare
from freemask.sampling.inversion import invert_for
from freemask.types import EditRequest, InputError, Masks, Progress, Video, WordMaps


@dataclass(frozen=True, eq=False)
class Look:
    """The word maps of a clip for one edit.

    video: the clip.
    prepared: the edit.
    maps: the maps by role, at the cells of the mask and of a sheet.
    codebook: the costs of the cells, if the checkpoint has a codebook.
    """

    video: Video
    prepared: PreparedEdit
    maps: Mapping[str, WordMaps]
    codebook: Codebook | None
    _heats: dict[tuple[Cell, ...], list[RegionHeat]] = field(default_factory=dict)

    @property
    def main(self) -> WordMaps:
        """The maps that a sheet shows: of the first word."""
        return next(iter(self.maps.values()))

    @property
    def selection(self) -> Selection:
        """The cells of the edit's own mask."""
        assert self.prepared.selection is not None
        return self.prepared.selection

    def masks(self, *, threshold: float | None = None, cells: Sequence[Cell] = ()) -> Masks:
        """Returns the mask of the edit, 1 = edit.

        threshold: on the heat, in (0, 1); None takes the preset's rule.
        cells: the cells to take instead of the policy's; their entries count timesteps of the run.
        """
        selection, settings = self._chosen(cells), self.prepared.settings.mask
        if threshold is not None:
            selection = replace(selection, threshold=threshold)
            settings = replace(settings, binarise="threshold")
        return cut(self._found(cells), selection, settings)

    def mask(self, *, threshold: float | None = None, cells: Sequence[Cell] = ()) -> Tensor:
        """Returns the mask `(F, H, W)` of the last step of the edit, in [0, 1].

        The arguments are those of `masks`.
        """
        return self.masks(threshold=threshold, cells=cells).at(self.prepared.request.steps - 1)

    def heat(self, *, cells: Sequence[Cell] = ()) -> Tensor:
        """Returns what the last step's mask is cut from, `(F, H, W)` in [0, 1].

        cells: as in `masks`.
        """
        return shown_heat(self._found(cells))

    def sheet(self) -> WordMapSheet:
        """Returns the maps as a picture."""
        maps = self.main
        place = {timestep: entry for entry, timestep in enumerate(maps.timesteps)}
        timesteps = self.prepared.timesteps
        return WordMapSheet(
            self.video,
            maps,
            threshold=self.selection.threshold,
            max_pool=self.selection.max_pool,
            chosen=[(s, place[timesteps[e]]) for cells in self.selection.cells for s, e in cells],
            codebook=self.codebook,
        )

    def _chosen(self, cells: Sequence[Cell]) -> Selection:
        if not cells:
            return self.selection
        return replace(self.selection, cells=(tuple(cells),), combine="mean", origin="chosen")

    def _found(self, cells: Sequence[Cell]) -> list[RegionHeat]:
        """Returns the heat of the regions; it does not depend on the threshold and is kept."""
        if tuple(cells) not in self._heats:
            self._heats.clear()  # of a long clip, one takes much memory
            self._heats[tuple(cells)] = region_heats(
                self.maps,
                self._chosen(cells),
                self.prepared.settings.mask,
                self.video,
                self.prepared.regions_behind,
            )
        return self._heats[tuple(cells)]


def look(
    editor: Editor,
    video: Video,
    request: EditRequest,
    *,
    columns: int = COLUMNS,
    progress: Progress | None = None,
) -> Look:
    """Records the word maps that the mask of an edit needs.

    request: its source prompt and first word, and its task and overrides for the mask.
    columns: number of timesteps, evenly spread, at which every site is recorded too, for a sheet;
        0 reads those of the mask alone.
    progress: called with the stage, the steps done and the steps in all.

    Raises `InputError` as `freemask.edit` does, for a task without a mask, and for one whose mask
    only the edit itself shows.
    """
    prepared = prepare(editor, video, request)
    if prepared.look_ahead and not prepared.queries:
        raise InputError(
            "the place of a new object shows during the edit alone; start it, or give a mask"
        )
    if prepared.selection is None:
        raise InputError(f"task {prepared.request.task} uses no mask; it edits the whole frame")
    entries = spread_entries(request.steps, prepared.selection.entries, columns)
    inversion = invert_for(editor, video, prepared, entries=entries, progress=progress)
    return Look(video, prepared, inversion.word_maps, codebook_for(editor, prepared.settings))
