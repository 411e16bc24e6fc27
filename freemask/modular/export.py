"""Writes a folder that `ModularPipeline.from_pretrained` loads as FreeMask.

DIR/block.py  modular_config.json  modular_model_index.json  codebook.json (if there is one)
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import torch

from freemask.editors import checkpoints
from freemask.editors.hub import Wanted
from freemask.editors.registry import editor_class, locate
from freemask.editors.request import EditorRequest
from freemask.editors.wan_checkpoints import read_index
from freemask.io.atomic import atomic_folder
from freemask.modular.blocks import BLOCKS
from freemask.modular.components import modular_kind

FILES = ("block.py", "modular_config.json", "modular_model_index.json", "codebook.json")
BLOCK = '''"""FreeMask as modular blocks of diffusers; it needs `pip install freemask`."""

from freemask.modular.blocks import {blocks} as _Blocks


class Blocks(_Blocks):
    pass
'''


def export(wanted: EditorRequest, out: Path) -> str:
    """Writes the folder; returns how to load it.

    wanted: the editor, and the checkpoint whose components the pipeline loads.
    out: the folder, complete or absent.

    Raises `InputError` for an editor without modular blocks, and for a checkpoint that it does not
    load.
    """
    kind, editor = modular_kind(wanted.editor), editor_class(wanted.editor)
    found = locate(wanted.editor, wanted.checkpoint)
    place = str(Path(found).resolve()) if Path(found).is_dir() else str(found)
    asked = Wanted(variant=wanted.variant, revision=wanted.revision)
    folder = checkpoints.resolve(found, asked, parts=editor.layout.parts, configs_only=True)
    files = editor.reader(folder, torch.float32, wanted.variant)
    editor.check_configs(files)
    index: dict[str, Any] = {
        "_class_name": "ModularPipeline",
        "_blocks_class_name": "Blocks",
        "_diffusers_version": diffusers.__version__,
    }
    for spec in kind.specs(place):
        if spec.name in kind.optional and files.extra(spec.name) is None:
            continue
        library = spec.type_hint.__module__.split(".")[0]
        index[spec.name] = [None, None, {
            "pretrained_model_name_or_path": place,
            "subfolder": spec.name,
            "type_hint": [library, spec.type_hint.__name__],
            "variant": wanted.variant,
            "revision": wanted.revision,
        }]  # fmt: skip
    said = read_index(files) if kind.configs else {}
    index |= {key: said.get(key, default) for key, default in (kind.configs or {}).items()}
    with atomic_folder(out, FILES) as aside:
        if files.codebook:
            shutil.copyfile(files.codebook, aside / "codebook.json")
            index["codebook"] = str(out.resolve() / "codebook.json")
        (aside / "block.py").write_text(BLOCK.format(blocks=BLOCKS[wanted.editor].__name__))
        config = {
            "_class_name": "Blocks",
            "_diffusers_version": diffusers.__version__,
            "auto_map": {"ModularPipelineBlocks": "block.Blocks"},
        }
        for name, content in (("modular_config", config), ("modular_model_index", index)):
            (aside / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    return (
        f"{out}: ModularPipeline.from_pretrained({str(out)!r}, trust_remote_code=True), then "
        "load_components()"
    )
