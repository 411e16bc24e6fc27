"""Draws a codebook and the word maps of a clip, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from freemask.masks.codebook import Codebook
from freemask.masks.heat import heat
from freemask.masks.policies import Cell
from freemask.types import Video, WordMaps

COLOUR, BEST = "#2b6cb0", "#c53030"
STYLE: Any = {"svg.hashsalt": "freemask", "svg.fonttype": "none", "font.size": 8}
COLUMNS = 8  # timesteps on a contact sheet
DPI = 120


def draw_codebook(codebook: Codebook, path: Path) -> None:
    """Draws the cost of every cell, site and timestep.

    Bars and bands show one standard deviation over clips. The best site and timestep are red.

    path: the files are written there, with the suffixes .png and .svg.
    """
    rows = len(codebook.sites)
    grid = {"width_ratios": (3, 2), "height_ratios": (rows, 8)}
    with _axes(2, 2, figsize=(11, 3.2 + 0.24 * rows), **grid) as (figure, axes):
        _heat_map(figure, axes[0, 0], codebook)
        _by_site(axes[0, 1], codebook)
        _by_timestep(axes[1, 0], codebook)
        _describe(axes[1, 1], codebook)
        _save(figure, path)


@dataclass(frozen=True, eq=False)
class WordMapSheet:
    """A contact sheet of a word's maps on the middle frame of a clip.

    Rows are sites and columns are timesteps, spread over the run. Every cell shows the heat, the
    outline at `threshold`, and its MMC if there is a codebook.

    video: the clip.
    maps: the maps of the word.
    threshold: on the heat, in (0, 1).
    max_pool: whether maps are max-pooled before they become heat.
    chosen: the cells of the mask; they have a red frame, and their timesteps are among the columns
        if they are few.
    codebook: the costs of the cells.
    columns: number of evenly spread timesteps.
    """

    video: Video
    maps: WordMaps
    threshold: float
    max_pool: bool
    chosen: Collection[Cell] = ()
    codebook: Codebook | None = None
    columns: int = COLUMNS

    def save(self, path: Path) -> None:
        """Writes the sheet under `path`, with the suffixes .png and .svg."""
        with self._drawn() as figure:
            _save(figure, path)

    def picture(self) -> np.ndarray:
        """Returns the sheet as uint8 RGB `(H, W, 3)`."""
        with self._drawn() as figure:
            figure.set_dpi(DPI)
            figure.canvas.draw()
            return np.array(figure.canvas.buffer_rgba())[..., :3]

    @contextmanager
    def _drawn(self) -> Iterator[Any]:
        maps, sites = self.maps, list(self.maps.maps)
        middle = self.video.num_frames // 2
        read = [entry for _, entry in self.chosen]
        entries = spread_entries(len(maps.timesteps), read, self.columns)
        shape = self.video.size[0] / self.video.size[1]
        size = (1.2 + 1.25 * len(entries), 1.45 * len(sites) * shape + 0.5)
        with _axes(len(sites), len(entries), squeeze=False, figsize=size) as (figure, axes):
            for row, site in enumerate(sites):
                values = maps.maps[site][entries, middle][:, None]
                found = heat(values, self.video.size, max_pool=self.max_pool)[:, 0]
                for column, entry in enumerate(entries):
                    shown = (self.video.frames[middle], found[column].numpy(), self.threshold)
                    self._draw_cell(axes[row, column], (site, entry), *shown)
                name = short_name(site.name)
                axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center")
            for column, entry in enumerate(entries):
                axes[0, column].set_title(f"t = {maps.timesteps[entry]:.4g}", fontsize=8)
            yield figure

    def _draw_cell(
        self, axes: Any, cell: Cell, frame: np.ndarray, heat_map: np.ndarray, threshold: float
    ) -> None:
        axes.imshow(frame.mean(-1), cmap="gray", vmin=0, vmax=255)
        axes.imshow(heat_map, cmap="inferno", alpha=0.6, vmin=0, vmax=1)
        if heat_map.min() < threshold <= heat_map.max():
            axes.contour(heat_map, levels=[threshold], colors="white", linewidths=0.9)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(visible=cell in self.chosen, color=BEST, linewidth=2.5)
        if self.codebook is not None:
            site, entry = cell
            cost = self.codebook.cost(site, self.maps.timesteps[entry])
            axes.set_xlabel(f"{cost:.3f}", fontsize=7, labelpad=2)


def spread_entries(count: int, wanted: Sequence[int], columns: int = COLUMNS) -> list[int]:
    """Returns about `columns` entries of `count`, evenly spread, and the wanted ones if few."""
    even = np.linspace(0, count - 1, min(columns, count)).round().astype(int).tolist()
    few = set(wanted) if len(set(wanted)) <= columns // 2 else set()
    return sorted({*even, *few})


@contextmanager
def _axes(rows: int, columns: int, **options: Any) -> Iterator[tuple[Any, Any]]:
    """Yields a figure with its axes, and closes it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, layout="constrained", **options)
        try:
            yield figure, axes
        finally:
            plt.close(figure)


def _save(figure: Any, path: Path) -> None:
    """Saves a figure under `path` as .png and .svg."""
    figure.savefig(path.with_suffix(".png"), dpi=DPI, metadata={"Software": None})
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None, "Creator": None})


def _heat_map(figure: Any, axes: Any, codebook: Codebook) -> None:
    table = np.array(codebook.mmc)
    image = axes.imshow(table, aspect="auto", cmap="viridis_r", interpolation="nearest")
    row, column = np.unravel_index(int(table.argmin()), table.shape)
    axes.plot(column, row, marker="s", markersize=9, fillstyle="none", color=BEST)
    axes.set_yticks(range(len(codebook.sites)), [short_name(site) for site in codebook.sites])
    ticks = np.linspace(0, table.shape[1] - 1, min(6, table.shape[1])).round().astype(int)
    axes.set_xticks(ticks, [f"{codebook.timesteps[i]:.4g}" for i in ticks])
    axes.set(xlabel="timestep", title="MMC of every site and timestep (lower is better)")
    figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01)


def _by_site(axes: Any, codebook: Codebook) -> None:
    rows = np.arange(len(codebook.sites))
    colours = [BEST if n == int(codebook.lmmc.argmin()) else COLOUR for n in rows]
    axes.barh(
        rows, codebook.lmmc, xerr=codebook.lmmc_spread, color=colours, height=0.7,
        error_kw={"elinewidth": 0.8, "ecolor": "0.35"},
    )  # fmt: skip
    axes.set_yticks(rows, [""] * len(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set(xlabel="LMMC", title="by site")


def _by_timestep(axes: Any, codebook: Codebook) -> None:
    low, high = (codebook.tmmc + sign * np.array(codebook.tmmc_spread) for sign in (-1, 1))
    axes.fill_between(codebook.timesteps, low, high, color=COLOUR, alpha=0.2, linewidth=0)
    axes.plot(codebook.timesteps, codebook.tmmc, color=COLOUR)
    axes.plot(codebook.best_timestep, codebook.tmmc.min(), "o", color=BEST)
    axes.set(xlabel="timestep", ylabel="TMMC", title="by timestep")
    axes.margins(x=0.01)


def _describe(axes: Any, codebook: Codebook) -> None:
    axes.axis("off")
    lines = [
        f"{codebook.editor}, checkpoint {codebook.checkpoint}",
        f"{codebook.clips} clips: {codebook.data}",
        f"{codebook.steps} inversion steps, threshold {codebook.threshold:g}"
        f"{', max-pooled' if codebook.max_pool else ''}",
        f"best site: {short_name(codebook.ranked_sites()[0])}",
        f"best timestep: {codebook.best_timestep:.4g}",
    ]
    axes.text(0, 1, "\n".join(lines), va="top", transform=axes.transAxes, linespacing=1.6)


def short_name(site: str) -> str:
    """Returns a label: `up_blocks.2.attentions.0.transformer_blocks.0.attn2` -> `up 2.0`, and
    `blocks.4.attn2` of a transformer -> `block 4`."""
    if site.startswith("blocks."):
        return f"block {site.split('.')[1]}"
    names = [n for n in site.split(".") if n not in ("attentions", "transformer_blocks")]
    return ".".join(names).replace("_blocks.", " ").replace("_block", "").removesuffix(".0.attn2")
