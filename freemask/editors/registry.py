"""Holds the registry of base editors, a dictionary of classes, and loads editors by name.

Third parties add editors with `register`, or through the entry-point group `freemask.editors`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from freemask.config import merge, nearest
from freemask.editors import checkpoints
from freemask.editors.animatediff import AnimateDiff
from freemask.editors.checkpoints import Checkpoint
from freemask.editors.editor import Editor
from freemask.editors.fatezero import FateZero
from freemask.editors.hub import Wanted
from freemask.editors.latent_time import LatentTime
from freemask.editors.latents import check_size
from freemask.editors.lora import LoraFile, check_lora, read_lora
from freemask.editors.native_size import NativeFrame
from freemask.editors.text2video_zero import Text2VideoZero
from freemask.editors.tune_a_video import TuneAVideo
from freemask.editors.wan import Wan
from freemask.editors.zeroscope import Zeroscope
from freemask.plugins import load_plugin
from freemask.prompts.tokens import check_prompt, word_tokens
from freemask.types import EditRequest, InputError

EDITORS: dict[str, type[Editor]] = {
    editor.name: editor
    for editor in (Zeroscope, TuneAVideo, FateZero, Text2VideoZero, AnimateDiff, Wan)
}
ASSETS = Path(__file__).parents[1] / "assets"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def register(name: str, editor: type[Editor]) -> None:
    """Adds an editor under a name. Raises `InputError` when the name is taken."""
    if name in EDITORS:
        raise InputError(f"an editor named {name!r} is registered already")
    EDITORS[name] = editor


def available() -> list[str]:
    """Returns the names of all editors: built in, registered, and of installed packages."""
    return sorted({*EDITORS, *entry_points(group="freemask.editors").names})


def editor_class(name: str) -> type[Editor]:
    """Returns the class of a name. Raises `InputError` for an unknown name."""
    if name in EDITORS:
        return EDITORS[name]
    plugins = entry_points(group="freemask.editors", name=name)
    if not plugins:
        raise InputError(f"unknown editor {name!r}{nearest(name, available())}")
    plugin: type[Editor] = load_plugin(next(iter(plugins)), Editor, subclass=True)
    return plugin


def typed_options(kind: type[Editor], options: Mapping[str, Any] | None) -> Any:
    """Returns the options of an editor, by name, as an instance of its `Options`.

    Raises `InputError` for an option that it does not have, and for a value that does not fit.
    """
    return merge(kind.Options, OmegaConf.create(dict(options or {})), {})


def runtime(
    device: str, dtype: str, half: torch.dtype = torch.float16
) -> tuple[torch.device, torch.dtype]:
    """Returns the device and dtype that two names, or "auto", stand for on this machine.

    half: the dtype of "auto" on a GPU (`CheckpointFormat.half` of an editor).

    Raises `InputError` for a device or dtype that is unknown or cannot be used here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # depends on torch's build
        reason = str(error).splitlines()[0]
        raise InputError(f"device {device!r} cannot be used here ({reason}); try auto") from None
    if dtype == "auto":
        return chosen, torch.float32 if chosen.type == "cpu" else half
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}{nearest(dtype, ['auto', *DTYPES])}")
    return chosen, DTYPES[dtype]


def preflight(
    name: str,
    checkpoint: str | Path,
    request: EditRequest,
    size: tuple[int, int],
    *,
    device: str = "auto",
    dtype: str = "auto",
    options: Mapping[str, Any] | None = None,
    revision: str | None = None,
    variant: str | None = None,
    lora: Sequence[str] = (),
) -> Checkpoint:
    """Checks a request against a checkpoint's configs and tokenizer, before weights are loaded.

    size: of the frames, `(H, W)` pixels.
    others: as in `load_editor`.

    Returns the checkpoint's reader.

    Raises `InputError` for a name, device, dtype or option as `load_editor` does, a checkpoint that
    is missing, damaged or of another architecture, a frame size that is not a multiple of the VAE's
    factor, steps that the sampler cannot make, LoRA files that do not fit, and prompts or words
    that do not fit the tokenizer.
    """
    kind = editor_class(name)
    _, precision = runtime(device, dtype, kind.half)
    chosen = typed_options(kind, options)
    loras = [LoraFile.parse(text) for text in lora]
    wanted = Wanted(dtype=precision, variant=variant, revision=revision)
    files = kind.open(locate(name, checkpoint), wanted)
    check_size(size, kind.frame_multiple(files))
    config, _ = kind.read_scheduler(files)
    kind.make_scheduler(config, request.steps)
    check_prompts(kind.load_tokenizer(files), request)
    if loras:
        blueprint = kind.blueprint(files.folder, precision, chosen)
        targets = kind.lora_targets(blueprint.backbone, blueprint.text_encoder)
        for one in (read_lora(file, tuple(targets)) for file in loras):
            for part, model in targets.items():
                check_lora(one, model, part)
    return files


def check_prompts(tokenizer: Any, request: EditRequest) -> None:
    """Raises `InputError` for prompts or words of a request that do not fit a tokenizer."""
    for side, role in enumerate(("source", "target")):
        prompt = (request.source, request.target)[side]
        check_prompt(tokenizer, prompt, role=role)
        for pair in request.pairs:
            if pair[side]:
                word_tokens(tokenizer, prompt, pair[side], role=role)
    if request.keep:
        word_tokens(tokenizer, request.source, request.keep, role="source")


def load_tokenizer(
    name: str,
    checkpoint: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    variant: str | None = None,
) -> Any:
    """Returns the tokenizer of a checkpoint; a hub id is downloaded first.

    The arguments and errors are those of `preflight`.
    """
    kind = editor_class(name)
    _, precision = runtime(device, dtype, kind.half)
    wanted = Wanted(dtype=precision, variant=variant, revision=revision)
    return kind.load_tokenizer(kind.open(locate(name, checkpoint), wanted))


def native_frame(
    name: str,
    checkpoint: str | Path,
    *,
    revision: str | None = None,
    variant: str | None = None,
) -> NativeFrame:
    """Returns the frame size that a checkpoint was trained at, read from its configs.

    name: the editor.
    checkpoint, revision, variant: as in `load_editor`. Of a hub id only configs are downloaded.

    Raises `InputError` for a checkpoint that cannot be found or read, or states no size.
    """
    kind, (path, files) = editor_class(name), _configs(name, checkpoint, revision, variant)
    return kind.native_frame(files, f"{checkpoint} {path.resolve()}")


def latent_time(
    name: str,
    checkpoint: str | Path,
    *,
    revision: str | None = None,
    variant: str | None = None,
) -> LatentTime:
    """Returns how a checkpoint's latent frames cover the frames of a clip, read from its configs.

    The arguments and errors are those of `native_frame`.
    """
    return editor_class(name).time_of(_configs(name, checkpoint, revision, variant)[1])


def _configs(
    name: str, checkpoint: str | Path, revision: str | None, variant: str | None
) -> tuple[Path, Checkpoint]:
    """Returns the folder or file of a checkpoint, of which only configs are downloaded, and its
    reader."""
    wanted, kind = Wanted(revision=revision, variant=variant), editor_class(name)
    path = checkpoints.resolve(
        locate(name, checkpoint), wanted, parts=kind.layout.parts, configs_only=True
    )
    return path, kind.reader(path, wanted.dtype, variant)


def locate(name: str, checkpoint: str | Path) -> str | Path:
    """Returns the folder of the demo checkpoint for "demo", and any other checkpoint as it is."""
    if checkpoint != "demo":
        return checkpoint
    demo = editor_class(name).demo
    if demo is None:
        raise InputError(f"editor {name!r} has no demo checkpoint; give a folder or a hub id")
    return ASSETS / demo


def load_editor(
    name: str,
    *,
    checkpoint: str | Path = "demo",
    device: str = "auto",
    dtype: str = "auto",
    options: Mapping[str, Any] | None = None,
    revision: str | None = None,
    variant: str | None = None,
    lora: Sequence[str] = (),
) -> Editor:
    """Loads a base editor.

    name: a name in the registry.
    checkpoint: a folder in diffusers' layout, a single file of Stable Diffusion 1.x or 2.x, a hub
        id, or "demo" for the shipped checkpoint.
    device: a torch device; "auto" is the GPU if there is one.
    dtype: "float32", "float16", "bfloat16"; "auto" is float16 on a GPU, bfloat16 there for wan,
        and float32 elsewhere.
    options: options of the editor by name (its class's `Options`).
    revision: branch, tag or commit of a hub id; None takes the main branch.
    variant: variant of the weights, such as "fp16"; None takes the one that suits the dtype.
    lora: LoRA files to fuse into the weights, each `FILE[:WEIGHT]`.

    Raises `InputError` for an unknown name, device, dtype or option, and, before weights are read,
    for a checkpoint of another architecture.
    """
    found = editor_class(name)
    chosen, precision = runtime(device, dtype, found.half)
    wanted = typed_options(found, options)
    return found.load(
        locate(name, checkpoint),
        device=chosen,
        dtype=precision,
        options=wanted,
        revision=revision,
        variant=variant,
        lora=lora,
    )


def load_blueprint(
    name: str,
    *,
    checkpoint: str | Path = "demo",
    dtype: torch.dtype = torch.float16,
    options: Mapping[str, Any] | None = None,
    revision: str | None = None,
    variant: str | None = None,
) -> Editor:
    """Builds an editor on the meta device, without weights (see `Editor.blueprint`).

    dtype: the dtype that its weights would have.
    others: as in `load_editor`, which also states the errors.
    """
    kind = editor_class(name)
    chosen = typed_options(kind, options)
    wanted = Wanted(dtype=dtype, variant=variant, revision=revision)
    path = checkpoints.resolve(locate(name, checkpoint), wanted, parts=kind.layout.parts)
    return kind.blueprint(path, dtype, chosen)
