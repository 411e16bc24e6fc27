"""Reads and writes inversions as safetensors files.

A file holds `latents (T + 1, C, F, h, w)` and, for every query and cross site, the word maps
`QUERY/SITE (T, F, h_l, w_l)`, where QUERY is the fingerprint of a `WordQuery`. Its metadata holds
the timesteps, and those of each query's maps, which may be fewer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from freemask.io.atomic import write_atomic
from freemask.types import Site, Trajectory, WordMaps


def write_inversion(path: Path, trajectory: Trajectory, maps: Mapping[str, WordMaps]) -> None:
    """Writes a trajectory and its word maps by query. Raises OSError if the disk cannot take it."""
    by_site = {
        (query, site): values for query, word in maps.items() for site, values in word.maps.items()
    }
    tensors = name_maps(by_site) | {"latents": trajectory.latents.cpu().contiguous()}
    own = {query: word.timesteps for query, word in maps.items()}
    metadata = {"timesteps": trajectory.timesteps, "map_timesteps": own}
    write_atomic(path, save(tensors, {key: json.dumps(x) for key, x in metadata.items()}))


def read_inversion(
    path: Path, sites: Iterable[Site]
) -> tuple[Trajectory, dict[str, WordMaps]] | None:
    """Reads a trajectory and its word maps by query; returns None if there is no file.

    Raises ValueError for a file that is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = {key: json.loads(text) for key, text in file.metadata().items()}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        trajectory = Trajectory(tensors.pop("latents"), tuple(metadata["timesteps"]))
        own = {query: tuple(found) for query, found in metadata["map_timesteps"].items()}
        by_query: dict[str, dict[Site, Tensor]] = {}
        for (query, site), values in parse_maps(tensors, sites).items():
            by_query.setdefault(query, {})[site] = values
        maps = {query: WordMaps(by_site, own[query]) for query, by_site in by_query.items()}
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a readable inversion: {error}") from None
    return trajectory, maps


def name_maps(maps: Mapping[tuple[str, Site], Tensor]) -> dict[str, Tensor]:
    """Returns maps by query and site as tensors named `QUERY/SITE`."""
    return {f"{query}/{site.name}": values.contiguous() for (query, site), values in maps.items()}


def parse_maps(
    tensors: Mapping[str, Tensor], sites: Iterable[Site]
) -> dict[tuple[str, Site], Tensor]:
    """Returns tensors named `QUERY/SITE` by query and site. Raises KeyError for another site."""
    named = {site.name: site for site in sites}
    found = {}
    for name, tensor in tensors.items():
        query, _, site = name.partition("/")
        found[query, named[site]] = tensor
    return found
