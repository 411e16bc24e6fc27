"""Bad clips, masks, checkpoints and LoRA files of `freemask edit`, as in `bad_commands`."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable

import numpy as np
import torch
from bad_commands import Case
from command_desk import Desk, RunsCode
from PIL import Image
from safetensors.torch import save_file


def pictures(desk: Desk, *names: str, mode: str = "RGB") -> None:
    """Writes images of 32x48 into the folder `p`."""
    (desk.folder / "p").mkdir(exist_ok=True)
    for name in names:
        Image.new(mode, (48, 32)).save(desk.folder / "p" / name)


def fifo_of_nothing(desk: Desk) -> list[str]:
    return desk.edit(video="/dev/null")


def pattern(name: str) -> Callable[[Desk], list[str]]:
    def case(desk: Desk) -> list[str]:
        pictures(desk, "001.png", "002.png")
        return desk.edit(video=desk.folder / "p" / name, frames=2)

    return case


def deep_pictures(desk: Desk) -> list[str]:
    pictures(desk, "001.png", mode="I;16")
    return desk.edit(video=desk.folder / "p", frames=1)


def mask_of(shape: tuple[int, ...], **options: object) -> Callable[[Desk], list[str]]:
    def case(desk: Desk) -> list[str]:
        values = np.ones(shape, np.float32)
        return desk.edit(mask=desk.array("m.npy", values), size="source", **options)

    return case


def mask_without_key(desk: Desk) -> list[str]:
    np.savez(desk.folder / "m.npz", labels=np.ones((32, 48)))
    return desk.edit(mask=desk.folder / "m.npz")


def labels_for_a_mask(desk: Desk) -> list[str]:
    Image.fromarray(np.ones((32, 48), np.uint8)).save(desk.folder / "m.png")
    return desk.edit(mask=desk.folder / "m.png", size="source")


def weights(state: dict[str, torch.Tensor], name: str = "w.safetensors") -> Callable[[Desk], str]:
    def write(desk: Desk) -> str:
        save_file(state, desk.folder / name)
        return str(desk.folder / name)

    return write


def lora(state: dict[str, torch.Tensor]) -> Callable[[Desk], list[str]]:
    return lambda desk: desk.edit(lora=weights(state)(desk))


def single(state: dict[str, torch.Tensor]) -> Callable[[Desk], list[str]]:
    return lambda desk: desk.edit(checkpoint=weights(state)(desk), editor="fatezero")


def own(change: Callable[[Desk], None], **options: object) -> Callable[[Desk], list[str]]:
    """Returns an edit with a copy of the checkpoint that `change` has damaged."""

    def case(desk: Desk) -> list[str]:
        desk.own_checkpoint()
        change(desk)
        return desk.edit(checkpoint=desk.folder / "own", **options)

    return case


def scheduler(**changes: object) -> Callable[[Desk], list[str]]:
    def change(desk: Desk) -> None:
        path = desk.folder / "own" / "scheduler" / "scheduler_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return own(change)


def config(part: str, **changes: object) -> Callable[[Desk], list[str]]:
    def change(desk: Desk) -> None:
        path = desk.folder / "own" / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return own(change)


def removed(part: str, name: str) -> Callable[[Desk], list[str]]:
    return own(lambda desk: (desk.folder / "own" / part / name).unlink())


def written(part: str, name: str, text: str) -> Callable[[Desk], list[str]]:
    return own(lambda desk: desk.file(f"own/{part}/{name}", text) and None)


CLIPS: dict[str, Case] = {
    "a device for a clip": (fifo_of_nothing, "'/dev/null' is a terminal or a device"),
    "a pattern with two numbers": (pattern("%03d-%d.png"), "has several numbers; one"),
    "a pattern of nothing": (
        pattern("frame%03d.png"),
        "has 0 frames: no file of .* has such a name",
    ),
    "more frames than a pattern has": (
        lambda d: [*pattern("%03d.png")(d), "--frames=3"],
        "has 2 frames, .*3 asked",
    ),
    "a rate for a video": (
        lambda d: d.edit(fps=12),
        "has a frame rate of its own, 8; fps is for im",
    ),
    "no rate": (lambda d: d.edit(fps=0), "fps is 0.0; it must be above 0"),
    "a rate before the start": (lambda d: d.edit(fps=-8), "fps is -8.0; it must be above 0"),
    "a rate in words": (lambda d: d.edit(fps="fast"), "'fast' is not a number"),
    "an endless rate": (lambda d: d.edit(fps="inf"), "'inf' is not a number"),
    "an unknown size": (lambda d: d.edit(size="native"), "'native' is not HEIGHTxWIDTH"),
    "a size of nothing": (lambda d: d.edit(size="0x64"), "'0x64' is not HEIGHTxWIDTH"),
    "a size with three sides": (lambda d: d.edit(size="8x8x8"), "'8x8x8' is not HEIGHTxWIDTH"),
    "an output of another size": (lambda d: d.edit(output_size="4k"), "'4k' is not source"),
    "half a frame": (lambda d: d.edit(frames="2.5"), "'2.5' is not a whole number of 1 or more"),
    "a start in words": (lambda d: d.edit(start="first"), "'first' is not a whole number"),
    "pictures of 16 bits": (deep_pictures, "is not 8-bit; save it with 8 bits a channel"),
    "a home of nobody for a clip": (
        lambda d: d.edit(video="~nobody-here/clip.mp4"),
        "names no home folder",
    ),
    "a clip that must not be read": (
        lambda d: d.edit(video=d.file("x.mp4", "").parent / "clip.mp4" / "deeper.mp4"),
        "no video at",
    ),
}
MASKS: dict[str, Case] = {
    "a mask of five frames": (mask_of((5, 32, 48)), "m.npy' is 5 frames of 32x48 .*the clip"),
    "a mask of no frames": (mask_of((0, 32, 48)), "must be .F, H, W. or .H, W., all at least 1"),
    "a mask of one dimension": (mask_of((4,)), "m.npy' is of shape"),
    "a mask without its key": (mask_without_key, "has no key 'mask'; its keys are: labels"),
    "labels instead of levels": (labels_for_a_mask, "has levels 0 and 1 of 255"),
    "a mask where none is read": (
        lambda d: mask_of((32, 48), task="style", method="ddim")(d),
        "a mask has no effect under task 'style'",
    ),
    "a home of nobody for a mask": (
        lambda d: d.edit(mask="~nobody-here/m.npy"),
        "names no home folder",
    ),
    "text for a mask": (lambda d: d.edit(mask=d.file("m.txt", "white")), "m.txt"),
    "the standard input for clip and mask": (
        lambda d: d.edit(video="-", mask="-"),
        "is either the video or the mask, not both",
    ),
}
CHECKPOINTS: dict[str, Case] = {
    "an unknown spacing of timesteps": (
        scheduler(timestep_spacing="even"),
        "timestep_spacing 'even'; it must be one of",
    ),
    "an unknown prediction": (
        scheduler(prediction_type="noise"),
        "prediction_type 'noise'; it must",
    ),
    "a config that is no JSON": (written("unet", "config.json", "{"), "config.json cannot be read"),
    "a config that is a list": (written("unet", "config.json", "[]"), "holds no settings"),
    "a checkpoint without weights": (
        removed("unet", "diffusion_pytorch_model.safetensors"),
        "unet has no complete weights; looked for",
    ),
    "a VAE without weights": (
        removed("vae", "diffusion_pytorch_model.safetensors"),
        "vae has no complete weights; looked for",
    ),
    "a backbone of another width": (
        config("unet", block_out_channels=[24, 24]),
        "does not fit|cannot",
    ),
    "an unknown variant": (own(lambda d: None, variant="fp8"), "fp8"),
    "a codebook that is a list": (
        lambda d: d.edit(f"codebook={d.file('c.json', '[]')}", "mask.policy=best"),
        "c.json is not a readable codebook",
    ),
    "no codebook where one is named": (
        lambda d: d.edit("codebook=none.json", "mask.policy=best"),
        "none.json is not a readable codebook",
    ),
    "a policy that needs a codebook": (
        lambda d: d.edit("mask.policy=best", method="freemask"),
        "has no codebook",
    ),
    "an empty single file": (single({}), "holds no Stable Diffusion in the original layout"),
    "a single file of something else": (
        single({"weight": torch.zeros(2)}),
        "holds no Stable Diffusion in the original layout",
    ),
    "a single file that does not exist": (
        lambda d: d.edit(checkpoint="none.safetensors"),
        "checkpoint file none.safetensors does not exist",
    ),
    "a single file that runs code": (
        lambda d: d.edit(
            checkpoint=d.file("m.ckpt", pickle.dumps(RunsCode(), protocol=2)), editor="fatezero"
        ),
        "a pickle that holds more than tensors is refused|cannot be read as weights",
    ),
    "an option without a value": (lambda d: d.edit(option="frames"), "not of the form key=value"),
    "an option of another editor": (lambda d: d.edit(option="motion=[1,2]"), "motion"),
}
LORAS: dict[str, Case] = {
    "no such LoRA": (lambda d: d.edit(lora="none.safetensors"), "does not exist; give FILE or"),
    "a LoRA of endless weight": (
        lambda d: d.edit(lora=weights({"a": torch.zeros(1)})(d) + ":inf"),
        "the weight must be finite",
    ),
    "a LoRA of nothing": (lora({}), "is not a LoRA"),
    "a LoRA of something else": (
        lora({"weight": torch.zeros(2, 2)}),
        "does not fit this checkpoint",
    ),
    "a LoRA for another model": (
        lora(
            {
                "unet.mid_block.attentions.0.proj_in.lora_A.weight": torch.zeros(2, 999),
                "unet.mid_block.attentions.0.proj_in.lora_B.weight": torch.zeros(999, 2),
            }
        ),
        "does not fit this checkpoint's",
    ),
    "text for a LoRA": (lambda d: d.edit(lora=d.file("l.safetensors", "x")), "cannot be read as w"),
    "a LoRA that runs code": (
        lambda d: d.edit(lora=d.file("l.bin", pickle.dumps(RunsCode(), protocol=2))),
        "cannot be read as weights",
    ),
}
COMMANDS = CLIPS | MASKS | CHECKPOINTS | LORAS
if os.geteuid():  # root may read everything

    def locked(desk: Desk) -> list[str]:
        path = shutil.copy(desk.folder / "clip.mp4", desk.folder / "locked.mp4")
        os.chmod(path, 0)
        return desk.edit(video=path)

    COMMANDS["a clip of somebody else"] = (locked, "locked.mp4.* cannot be read")
