"""Bad inputs: each ends with exit code 2, one sentence and no traceback."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import bad_commands
import bad_files
import numpy as np
import pytest
from command_desk import Desk, RunsCode, png_header
from PIL import Image

from freemask.cli import commands
from freemask.editors.registry import ASSETS

MakeArguments = Callable[[Desk], list[str]]


def uneven_folder(desk: Desk) -> list[str]:
    for n, size in enumerate([(48, 32), (32, 32)]):
        (desk.folder / "pictures").mkdir(exist_ok=True)
        Image.new("RGB", size).save(desk.folder / "pictures" / f"{n}.png")
    return desk.edit(video=desk.folder / "pictures", frames=2)


def truncated_weights(desk: Desk) -> list[str]:
    file = desk.own_checkpoint() / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    return desk.edit(checkpoint=desk.folder / "own")


def pickled_weights(desk: Desk) -> list[str]:
    unet = desk.own_checkpoint() / "unet"
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    (unet / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(RunsCode(), protocol=2))
    return desk.edit(checkpoint=desk.folder / "own")


def changed_config(part: str, **changes: object) -> MakeArguments:
    def case(desk: Desk) -> list[str]:
        path = desk.own_checkpoint() / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return desk.edit(checkpoint=desk.folder / "own")

    return case


def without(part: str) -> MakeArguments:
    def case(desk: Desk) -> list[str]:
        shutil.rmtree(desk.own_checkpoint() / part)
        return desk.edit(checkpoint=desk.folder / "own")

    return case


def foreign_codebook(desk: Desk) -> list[str]:
    shipped = ASSETS / "sprites-t2v" / "codebook.json"
    return desk.edit(f"codebook={shipped}", "mask.policy=best")


CLIPS: dict[str, tuple[MakeArguments, str]] = {
    "no such clip": (lambda d: d.edit(video="nowhere.mp4"), "no video at 'nowhere.mp4'"),
    "an empty file": (lambda d: d.edit(video=d.file("e.mp4", "")), "cannot be read as a video"),
    "text for a clip": (lambda d: d.edit(video=d.file("t.mp4", "not a clip")), "as a video"),
    "half a clip": (lambda d: d.edit(video=d.file("h.mp4", d.clip(0.5))), "h.mp4.* as a video"),
    "the end of a clip": (lambda d: d.edit(video=d.file("c.mp4", d.clip()[900:])), "as a video"),
    "an empty folder": (
        lambda d: d.edit(video=d.file("pictures/note.txt", "").parent),
        "holds no PNG, JPEG, WebP, BMP or TIFF",
    ),
    "a decompression bomb": (
        lambda d: d.edit(video=d.file("p/0.png", png_header(10_000, 10_000)).parent, frames=1),
        "0.png' cannot be read as an image .*exceeds limit",
    ),
    "a truncated picture": (
        lambda d: d.edit(video=d.file("p/0.png", png_header(64, 64)).parent, frames=1),
        "0.png' cannot be read as an image",
    ),
    "text for a picture": (
        lambda d: d.edit(video=d.file("p/0.jpg", "hello").parent, frames=1),
        "0.jpg' cannot be read as an image",
    ),
    "pictures of two sizes": (uneven_folder, "frame 1 .* 32x32 .* those before it are 32x48"),
    "too many frames": (lambda d: d.edit(frames=7), "has 6 frames, .*7 asked"),
    "no frames": (lambda d: d.edit(frames=0), "'0' is not a whole number of 1 or more"),
    "frames in words": (lambda d: d.edit(frames="eight"), "'eight' is not a whole number"),
    "a start before the clip": (lambda d: d.edit(start=-1), "start must be at least 0, got -1"),
    "a start after the clip": (lambda d: d.edit(start=5), "gives 1 from frame 5"),
    "a stride of 0": (lambda d: d.edit(stride=0), "stride must be at least 1, got 0"),
    "a negative size": (lambda d: d.edit(size="-64x96"), "'-64x96' is not HEIGHTxWIDTH"),
    "half a size": (lambda d: d.edit(size="64"), "'64' is not HEIGHTxWIDTH"),
    "an odd size": (lambda d: d.edit(size="30x48"), "30x48 .* multiples of 4"),
}
WORDS: dict[str, tuple[MakeArguments, str]] = {
    "no source": (lambda d: d.edit(source=" "), "the source prompt is empty"),
    "no target": (lambda d: d.edit(target=""), "the target prompt is empty"),
    "a word that the source lacks": (
        lambda d: d.edit(words="lion:panda"),
        "'lion' is not in the source",
    ),
    "another word that the target lacks": (
        lambda d: d.edit(words="bear:lion"),
        "'lion' is not in the target",
    ),
    "a word that the target lacks": (
        lambda d: d.edit(words="bear"),
        "'bear' is not in the target",
    ),
    "no word at all": (lambda d: d.edit(words=":"), "is not of the form OLD:NEW"),
    "prompts that do not differ": (
        lambda d: d.edit(target="a bear on the grass"),
        "cannot tell which word is edited",
    ),
    "a prompt that is too long": (
        lambda d: d.edit(target="a panda " + "on the grass " * 9),
        "fall off",
    ),
    "a factor for a word of no prompt": (
        lambda d: d.edit("fusion.reweight={lion: 2.0}"),
        "'lion' is not in the target",
    ),
    "a step range for a word of no prompt": (
        lambda d: d.edit("fusion.cross_replace={default: 0.5, lion: 0.2}"),
        "'lion' is not in the target",
    ),
}
SETTINGS: dict[str, tuple[MakeArguments, str]] = {
    "an unknown task": (lambda d: d.edit(task="shpae"), "unknown task .*did you mean 'shape'"),
    "an unknown method": (lambda d: d.edit(method="dim"), "unknown method .*'ddim'"),
    "an unknown editor": (lambda d: d.edit(editor="zeroscop"), "unknown editor 'zeroscop'"),
    "an unknown option of the editor": (lambda d: d.edit(option="x=1"), "option|unknown"),
    "an unknown key": (lambda d: d.edit("mask.polcy=best"), "unknown config key 'mask.polcy'"),
    "an unknown policy": (lambda d: d.edit("mask.policy=bst"), "mask.policy is 'bst'"),
    "no key": (lambda d: d.edit("=3"), "is not of the form key=value"),
    "no value": (lambda d: d.edit("strength"), "is not of the form key=value"),
    "a value that is no YAML": (lambda d: d.edit("mask.explicit=[a"), "is not YAML"),
    "a value that runs code": (
        lambda d: d.edit("codebook=!!python/object/apply:os.system [touch executed]"),
        "is not YAML",
    ),
    "a threshold above 1": (lambda d: d.edit("mask.threshold=1.5"), "mask.threshold is 1.5"),
    "a threshold in words": (lambda d: d.edit("mask.threshold=high"), "'mask.threshold'"),
    "a step range that ends before its start": (
        lambda d: d.edit("fusion.self_replace=[0.5,0.2]"),
        r"fusion.self_replace is \[0.5, 0.2\]",
    ),
    "a step range beyond 1": (
        lambda d: d.edit("fusion.latent_blend=[0,3]"),
        "fusion.latent_blend is",
    ),
    "an unknown kind": (
        lambda d: d.edit("fusion.masked=[sky]"),
        "fusion.masked lists sky",
    ),
    "no strength": (lambda d: d.edit("strength=0"), "strength is 0"),
    "an eta above 1": (lambda d: d.edit("eta=2"), "eta is 2"),
    "context windows too small": (
        lambda d: d.edit("window.frames=3"),
        "window.frames is 3",
    ),
    "no steps": (lambda d: d.edit(steps=0), "'0' is not a whole number of 1 or more"),
    "more steps than there are": (lambda d: d.edit(steps=2000), "steps is 2000; .* 1 to 1000"),
    "guidance that is no number": (lambda d: d.edit(guidance="nan"), "'nan' is not a number"),
    "an unknown device": (lambda d: d.edit(device="gpu9"), "device 'gpu9' cannot be used"),
    "an unknown dtype": (lambda d: d.edit(dtype="float8"), "unknown dtype 'float8'"),
    "an unknown command": (lambda d: ["paint"], "invalid choice: 'paint'"),
    "an unknown option": (lambda d: [*d.edit(), "--sharp=1"], "unrecognized arguments"),
}
FILES: dict[str, tuple[MakeArguments, str]] = {
    "no such mask": (lambda d: d.edit(mask="m.npy"), "no mask at 'm.npy'|m.npy"),
    "a mask of another size": (
        lambda d: d.edit(mask=d.array("m.npy", np.ones((4, 8, 8), np.float32))),
        "m.npy' is .*8x8.*, the clip is",
    ),
    "a mask beyond 1": (
        lambda d: d.edit(mask=d.array("m.npy", np.full((4, 32, 48), 255.0))),
        "values from 255 to 255; they must be",
    ),
    "a mask of NaN": (
        lambda d: d.edit(mask=d.array("m.npy", np.full((4, 32, 48), np.nan))),
        "values from nan to nan",
    ),
    "a mask of words": (
        lambda d: d.edit(mask=d.array("m.npy", np.full((4, 32, 48), "x"))),
        "not numbers in",
    ),
    "a pickled mask": (
        lambda d: d.edit(mask=d.file("m.npy", pickle.dumps(RunsCode(), protocol=2))),
        "m.npy' cannot be read as an array",
    ),
    "a codebook that is no JSON": (
        lambda d: d.edit(f"codebook={d.file('c.json', '{')}", "mask.policy=best"),
        "c.json is not a readable codebook",
    ),
    "a codebook of another backbone": (foreign_codebook, "the codebook was measured on"),
    "no checkpoint": (lambda d: d.edit(checkpoint="./none"), "neither a folder nor a hub id"),
    "a checkpoint without backbone": (without("unet"), "has no unet folder"),
    "a checkpoint without VAE": (without("vae"), "has no vae folder"),
    "a checkpoint without tokenizer": (without("tokenizer"), "has no tokenizer folder"),
    "a checkpoint of another architecture": (
        changed_config("unet", _class_name="UNet2DConditionModel"),
        "this editor needs a UNet3DConditionModel",
    ),
    "a text encoder of another size": (
        changed_config("unet", cross_attention_dim=24),
        "24.* 16|16.* 24",
    ),
    "truncated weights": (truncated_weights, "safetensors"),
    "weights that run code": (pickled_weights, "pickle|tensor|weights"),
    "a folder of something else": (
        lambda d: d.edit(out=d.file("precious/thesis.txt", "years").parent),
        "exists and is no earlier result",
    ),
    "an out that is a file": (lambda d: d.edit(out=d.file("o", "x") / "out"), "cannot write to"),
}
COMMANDS = CLIPS | WORDS | SETTINGS | FILES | bad_commands.COMMANDS | bad_files.COMMANDS


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_ends_with_one_sentence(
    case: str,
    tmp_path: Path,
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    make, message = COMMANDS[case]
    arguments = make(Desk(tmp_path, checkpoint))
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    try:
        code = commands.main(arguments)
    except SystemExit as ended:  # argparse ends the process itself
        code = ended.code  # type: ignore[assignment]
    complaint = capsys.readouterr().err
    assert code == 2, complaint
    assert re.search(message, complaint), complaint
    assert "Traceback" not in complaint
    said = [
        line for line in complaint.splitlines() if re.match(r"(freemask( [\w-]+)*|predict): ", line)
    ]
    assert len(said) == 1, complaint
    assert sorted(tmp_path.rglob("*")) == before  # nothing is written or executed


def test_there_are_two_hundred() -> None:
    assert len(COMMANDS) >= 200
