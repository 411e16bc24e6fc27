"""Draws the word maps of a clip as one picture of cells, and says which cell a click means."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from freemask.calibration.consensus_label import consensus_label
from freemask.calibration.figures import short_name
from freemask.calibration.look import Look
from freemask.calibration.mmc import BINS, ClipCost
from freemask.masks.heat import heat
from freemask.masks.policies import Cell
from freemask.types import InputError
from freemask.ui.overlay import heated

TILE = 96  # pixels of a cell's longer side
LABEL, HEAD, GAP = 110, 22, 6  # width of a row's name, height of a column's, between cells
CHOSEN = (200, 30, 30)


@dataclass(frozen=True, eq=False)
class MaskSheet:
    """The cells of a look: rows are sites, columns timesteps.

    look: the word maps.
    """

    look: Look

    @cached_property
    def cells(self) -> dict[str, Cell]:
        """The cells by their names, row by row; an entry counts timesteps of the run."""
        return {
            self._name(site.name, timestep): (site, self.look.prepared.timesteps.index(timestep))
            for site in self.look.main.maps
            for timestep in self.look.main.timesteps
        }

    @staticmethod
    def _name(site: str, timestep: float) -> str:
        return f"{short_name(site)} at t = {timestep:g}"

    @cached_property
    def costs(self) -> dict[str, float]:
        """The cost of each cell, in [0, 1]: its MMC, or without a codebook how far it is from what
        the maps of this clip agree on."""
        maps, book = self.look.main, self.look.codebook
        if book is not None:
            timesteps = self.look.prepared.timesteps
            return {name: book.cost(s, timesteps[entry]) for name, (s, entry) in self.cells.items()}
        selection = self.look.selection
        measured = ClipCost.measure(maps, consensus_label(maps, self.look.video))
        row = round(selection.threshold * BINS) - 1
        table = measured.costs[int(selection.max_pool), row]
        return dict(zip(self.cells, table.flatten().tolist(), strict=True))

    def labelled(self) -> list[tuple[str, str]]:
        """Returns text with the cost, and the name, of every cell, the best first."""
        ranked = sorted(self.cells, key=lambda name: self.costs[name])
        return [(f"{name}: {self.costs[name]:.3f}", name) for name in ranked]

    def chosen(self, names: Sequence[str]) -> list[Cell]:
        """Returns cells by name. Raises `InputError` for names of no cell."""
        unknown = [name for name in names if name not in self.cells]
        if unknown:
            raise InputError(f"{unknown[0]!r} is no cell of this sheet; look at the clip again")
        return [self.cells[name] for name in names]

    @property
    def _tile(self) -> tuple[int, int]:
        """Width and height of a cell in pixels."""
        height, width = self.look.video.size
        scale = TILE / max(height, width)
        return max(8, round(width * scale)), max(8, round(height * scale))

    def name_at(self, x: int, y: int) -> str | None:
        """Returns the cell at a pixel of the picture; None between cells and on labels."""
        width, height = self._tile
        column, left = divmod(x - LABEL, width + GAP)
        row, top = divmod(y - HEAD, height + GAP + HEAD)
        columns = len(self.look.main.timesteps)
        inside = left < width and top < height and 0 <= column < columns
        names = list(self.cells)
        place = row * columns + column
        return names[place] if inside and 0 <= place < len(names) and row >= 0 else None

    def draw(self, chosen: Collection[str] = ()) -> np.ndarray:
        """Returns the picture, uint8 `(H, W, 3)`: the heat of each cell over the middle frame with
        its cost, and a red frame around the chosen ones."""
        width, height = self._tile
        maps, video = self.look.main, self.look.video
        rows, columns = len(maps.maps), len(maps.timesteps)
        size = LABEL + columns * (width + GAP), HEAD + rows * (height + GAP + HEAD)
        picture = Image.new("RGB", size, "white")
        pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
        middle = video.num_frames // 2
        for column, timestep in enumerate(maps.timesteps):
            place = (LABEL + column * (width + GAP), 4)
            pen.text(place, f"t = {timestep:g}", fill="black", font=font)
        names = list(self.cells)
        for row, (site, values) in enumerate(maps.maps.items()):
            top = HEAD + row * (height + GAP + HEAD)
            pen.text((4, top + height // 2 - 6), short_name(site.name), fill="black", font=font)
            found = heat(values[:, middle][:, None], video.size, max_pool=False)[:, 0]
            for column in range(columns):
                name, left = names[row * columns + column], LABEL + column * (width + GAP)
                tile = Image.fromarray(heated(video.frames[middle], found[column].numpy()))
                picture.paste(tile.resize((width, height)), (left, top))
                pen.text(
                    (left, top + height + 2), f"{self.costs[name]:.3f}", fill="black", font=font
                )
                if name in chosen:
                    box = (left - 2, top - 2, left + width + 1, top + height + 1)
                    pen.rectangle(box, outline=CHOSEN, width=3)
        return np.asarray(picture)
