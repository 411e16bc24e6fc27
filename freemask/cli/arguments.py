"""What every command of the command line can be given.

Each `add_*` puts the options of one command, or of several, on a parser; converters of their values
raise argparse's errors, which name the option.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_demo(parser: argparse.ArgumentParser) -> None:
    """The options of the main job."""
    parser.add_argument("--config", type=Path, help="default: the shipped configs/demo.yaml")
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    add_overrides(parser)


def add_edit(parser: argparse.ArgumentParser) -> None:
    """The options of one edit."""
    parser.add_argument("--source", required=True, metavar="P0", help="what the video shows")
    parser.add_argument("--target", required=True, metavar="P1", help="what it should show")
    parser.add_argument("--words", metavar="OLD:NEW", help="the edited word in P0 and in P1")
    parser.add_argument("--task", default="shape", help="shape, attribute or style")
    parser.add_argument("--method", default="freemask", help="freemask, released, fatezero or ddim")
    parser.add_argument("--mask", metavar="FILE", help="use this mask (1 = edit)")
    parser.add_argument("--out", type=Path, default=Path("out/edit"))
    add_clip(parser)
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--seed", type=int, default=0)
    add_editor(parser)
    add_overrides(parser)


def add_masks(parser: argparse.ArgumentParser) -> None:
    """The options of showing masks."""
    parser.add_argument("--source", required=True, metavar="P0", help="what the video shows")
    parser.add_argument("--words", required=True, metavar="W", help="a word of it")
    parser.add_argument("--task", default="shape", help="whose mask settings are used")
    parser.add_argument("--out", type=Path, default=Path("out/masks"))
    add_clip(parser)
    add_editor(parser)
    add_overrides(parser)


def add_editors(parser: argparse.ArgumentParser) -> None:
    """The options of listing editors."""
    parser.add_argument(
        "--checkpoint",
        metavar="PATH",
        help="who loads this folder (or sd-1.5, sd-2.1, zeroscope), with what sites",
    )
    parser.add_argument("--memory", action="store_true", help="the GPU memory that an edit takes")
    parser.add_argument("--editor", help="only this one")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--frames", type=positive, default=8)
    parser.add_argument("--size", type=size, default=(512, 512), metavar="HxW")
    parser.add_argument("--steps", type=positive, default=50)
    parser.add_argument("--dtype", default="float16")


def add_evaluation(parser: argparse.ArgumentParser) -> None:
    """The options of a benchmark."""
    parser.add_argument("--clips", type=positive, default=24, help="held-out clips per task")
    add_folder(parser, "a folder in DAVIS layout instead, whose captions ask for edits")
    parser.add_argument("--methods", default="reconstruct,ddim,naive,freemask")
    parser.add_argument("--tasks", default="shape,attribute,style")
    parser.add_argument("--clip", metavar="PATH", help="a CLIP folder, or demo: CLIP metrics too")
    parser.add_argument("--lpips", metavar="FILE", help="AlexNet's weights as torchvision has them")
    parser.add_argument("--processes", type=positive, default=1, help="one thread each")
    parser.add_argument("--out", type=Path, default=Path("out/evaluate"))
    add_editor(parser)
    add_overrides(parser)


def add_profile(parser: argparse.ArgumentParser) -> None:
    """The options of profiling an edit."""
    add_editor(parser)
    parser.set_defaults(steps=4)
    parser.add_argument("--size", type=size, default=(64, 64), metavar="HxW")
    parser.add_argument("--frames", type=positive, default=8)
    parser.add_argument("--task", default="shape")
    parser.add_argument("--out", type=Path, default=Path("out/profile"))


def add_calibration(parser: argparse.ArgumentParser) -> None:
    """The options of a calibration."""
    add_folder(parser, "a folder in DAVIS layout, or 'sprites', the default")
    parser.add_argument("--clips", type=positive, default=64, help="of sprites")
    parser.add_argument("--words", metavar="W,W", help="only clips whose word is one of these")
    parser.add_argument("--out", type=Path, default=Path("codebook.json"))
    add_editor(parser)


def add_tuning(parser: argparse.ArgumentParser) -> None:
    """The options of a one-shot tuning."""
    parser.add_argument("--prompt", required=True, metavar="P", help="what the video shows")
    add_clip(parser)
    parser.add_argument("--checkpoint", default="demo", help="a Stable Diffusion folder, or 'demo'")
    parser.add_argument("--steps", type=positive, default=500)
    parser.add_argument("--learning-rate", type=float, default=3e-5)
    parser.add_argument("--precision", default="32-true", help="of Lightning: 16-mixed, bf16-mixed")
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--sample-every", type=int, default=100, help="steps; 0 makes no samples")
    parser.add_argument("--save-every", type=positive, default=50, help="steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/tuned"))


def add_folder(parser: argparse.ArgumentParser, data: str) -> None:
    """The options of labelled clips."""
    parser.add_argument("--data", "--benchmark", default="sprites", metavar="DIR", help=data)
    parser.add_argument("--captions", type=Path, help="of a folder; default: its captions.yaml")
    parser.add_argument("--frames", type=positive, default=8)
    parser.add_argument("--size", type=size, metavar="HxW", help="default: 64x64 or the pictures'")


def add_clip(parser: argparse.ArgumentParser) -> None:
    """The options of reading a clip."""
    parser.add_argument("--video", required=True, help="mp4, gif, or a folder of images")
    parser.add_argument("--frames", type=frames, default=8, metavar="N", help="or 'all'")
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--size", type=size, metavar="HxW", help="default: the video's own")


def add_editor(parser: argparse.ArgumentParser) -> None:
    """The options of a base editor and its run."""
    parser.add_argument("--editor", default="zeroscope")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="a choice of the editor"
    )
    parser.add_argument("--checkpoint", default="demo", help="a folder, a hub id, or 'demo'")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", help="auto, float32, float16 or bfloat16")
    parser.add_argument("--steps", type=positive, default=50, help="denoising steps")


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Settings as `key=value`."""
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that differ from the preset"
    )


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def frames(text: str) -> int | None:
    """A number of frames, or None for all."""
    return None if text == "all" else positive(text)


def size(text: str) -> tuple[int, int]:
    """`HxW` as `(H, W)`."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, for example 64x96")
    return int(parts[0]), int(parts[1])
