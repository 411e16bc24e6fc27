"""Pictures for people: what a codebook found. PNG and SVG, the same bytes for the same figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from freemask.mmc import Codebook

COLOUR, BEST = "#2b6cb0", "#c53030"
STYLE: Any = {"svg.hashsalt": "freemask", "svg.fonttype": "none", "font.size": 8}


def draw_codebook(codebook: Codebook, path: Path) -> None:
    """The cost of every site and timestep, and of each alone, beside `path` as .png and .svg.

    Bars and bands show one standard deviation over clips; the best site and timestep are red.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = len(codebook.sites)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            2, 2, figsize=(11, 3.2 + 0.24 * rows), width_ratios=(3, 2), height_ratios=(rows, 8),
            layout="constrained",
        )  # fmt: skip
        _heat_map(figure, axes[0, 0], codebook)
        _by_site(axes[0, 1], codebook)
        _by_timestep(axes[1, 0], codebook)
        _words(axes[1, 1], codebook)
        figure.savefig(path.with_suffix(".png"), dpi=120, metadata={"Software": None})
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
        plt.close(figure)


def _heat_map(figure: Any, axes: Any, codebook: Codebook) -> None:
    table = np.array(codebook.mmc)
    image = axes.imshow(table, aspect="auto", cmap="viridis_r", interpolation="nearest")
    row, column = np.unravel_index(int(table.argmin()), table.shape)
    axes.plot(column, row, marker="s", markersize=9, fillstyle="none", color=BEST)
    axes.set_yticks(range(len(codebook.sites)), [_short(site) for site in codebook.sites])
    ticks = np.linspace(0, table.shape[1] - 1, min(6, table.shape[1])).round().astype(int)
    axes.set_xticks(ticks, [str(codebook.timesteps[i]) for i in ticks])
    axes.set(xlabel="timestep", title="MMC of every site and timestep (lower is better)")
    figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01)


def _by_site(axes: Any, codebook: Codebook) -> None:
    places = np.arange(len(codebook.sites))
    colours = [BEST if n == int(codebook.lmmc.argmin()) else COLOUR for n in places]
    axes.barh(
        places, codebook.lmmc, xerr=codebook.lmmc_spread, color=colours, height=0.7,
        error_kw={"elinewidth": 0.8, "ecolor": "0.35"},
    )  # fmt: skip
    axes.set_yticks(places, [""] * len(places))
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.set(xlabel="LMMC", title="by site")


def _by_timestep(axes: Any, codebook: Codebook) -> None:
    low, high = (codebook.tmmc + sign * np.array(codebook.tmmc_spread) for sign in (-1, 1))
    axes.fill_between(codebook.timesteps, low, high, color=COLOUR, alpha=0.2, linewidth=0)
    axes.plot(codebook.timesteps, codebook.tmmc, color=COLOUR)
    axes.plot(codebook.best_timestep, codebook.tmmc.min(), "o", color=BEST)
    axes.set(xlabel="timestep", ylabel="TMMC", title="by timestep")
    axes.margins(x=0.01)


def _words(axes: Any, codebook: Codebook) -> None:
    axes.axis("off")
    lines = [
        f"{codebook.editor}, checkpoint {codebook.checkpoint}",
        f"{codebook.clips} clips: {codebook.data}",
        f"{codebook.steps} inversion steps, threshold {codebook.threshold:g}",
        f"best site: {_short(codebook.ranked_sites()[0])}",
        f"best timestep: {codebook.best_timestep}",
    ]
    axes.text(0, 1, "\n".join(lines), va="top", transform=axes.transAxes, linespacing=1.6)


def _short(site: str) -> str:
    """`up_blocks.2.attentions.0.transformer_blocks.0.attn2` -> `up 2.0`, for labels."""
    parts = [p for p in site.split(".") if p not in ("attentions", "transformer_blocks")]
    return ".".join(parts).replace("_blocks.", " ").replace("_block", "").removesuffix(".0.attn2")
