"""No command prints a warning or a bar of diffusers, transformers or torch."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from command_desk import Desk

from freemask.editors.known_messages import hidden, without_bars

EDITORS = ("zeroscope", "animatediff", "text2video_zero", "tune_a_video", "fatezero")
RUN = """
import json, sys
from freemask.cli.commands import main
for name, arguments in json.loads(sys.argv[1]):
    print(f"== {name}", file=sys.stderr)
    assert main(arguments) == 0, name
"""
PNDM = {  # the scheduler of Stable Diffusion 1.5
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}


def printed(commands: list[tuple[str, list[str]]]) -> dict[str, list[str]]:
    """Runs commands in one process; returns what each printed on standard error, by name."""
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", RUN, json.dumps(commands)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[str]] = {}
    for block in done.stderr.split("== ")[1:]:
        name, *lines = block.splitlines()
        found[name] = lines
    return found


def without_remarks(lines: list[str], desk: Desk) -> list[str]:
    """Leaves out our own remarks, on the size of the clip and on the task."""
    ours = (str(desk.folder / "clip.mp4"), "note: task ")
    return [line for line in lines if not line.startswith(ours)]


@pytest.fixture
def desk(tmp_path: Path, checkpoint: Path) -> Desk:
    return Desk(tmp_path, checkpoint)


@pytest.fixture
def published(sd_checkpoint: Path, tmp_path: Path) -> Path:
    """A folder with the peculiarities of the published Stable Diffusion 1.5, weights in .bin files.

    Its text encoder holds `position_ids`, and its scheduler is PNDM.
    """
    folder = Path(shutil.copytree(sd_checkpoint, tmp_path / "published"))
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(PNDM))
    for part in ("unet", "vae", "text_encoder"):
        (file,) = (folder / part).glob("*.safetensors")
        state = safetensors.torch.load_file(file)
        if part == "text_encoder":
            state["embeddings.position_ids"] = torch.arange(16)[None]
        name = "pytorch_model" if part == "text_encoder" else "diffusion_pytorch_model"
        torch.save(state, folder / part / f"{name}.bin")
        file.unlink()
    return folder


def test_an_edit_with_each_editor_prints_nothing_of_its_libraries(desk: Desk) -> None:
    common = {"size": "32x48", "frames": 2, "checkpoint": "demo"}
    commands = [
        (name, [*desk.edit(editor=name, out=desk.folder / name, **common), "--quiet"])
        for name in EDITORS
    ]
    found = printed(commands)
    assert {name: without_remarks(lines, desk) for name, lines in found.items()} == {
        name: [] for name in EDITORS
    }


@pytest.mark.slow
def test_a_checkpoint_as_it_is_published_prints_nothing_either(
    desk: Desk, published: Path, adapter: Path
) -> None:
    common = {"size": "32x48", "frames": 2, "checkpoint": published}
    motion = [f"--option=motion_adapter={adapter}"]
    commands = [
        (name, [*desk.edit(editor=name, out=desk.folder / name, **common), *extra, "--quiet"])
        for name, extra in (("text2video_zero", []), ("animatediff", motion))
    ]
    commands.append(
        ("float16", [*desk.edit(editor="text2video_zero", dtype="float16", **common), "--quiet"])
    )
    found = printed(commands)
    assert {name: without_remarks(lines, desk) for name, lines in found.items()} == {
        "text2video_zero": [],
        "animatediff": [],
        "float16": [],
    }


@pytest.mark.slow
def test_the_other_commands_print_nothing_either(desk: Desk) -> None:
    clip = ["--frames=2", "--size=32x48", "--steps=2", f"--checkpoint={desk.checkpoint}"]
    video = f"--video={desk.folder / 'clip.mp4'}"
    words = ["--source=a bear on the grass", "--words=bear", "mask.policy=naive"]
    options = {
        "demo": ["steps=2", "frames=2"],
        "masks": [video, *clip, *words],
        "calibrate": ["--clips=1", *clip],
        "evaluate": ["--clips=1", "--tasks=shape", "--methods=ddim", *clip],
    }
    outs = {name: desk.folder / name for name in options} | {"calibrate": desk.folder / "c.json"}
    commands = [
        (name, [name, f"--out={outs[name]}", *given, "--quiet"]) for name, given in options.items()
    ]
    found = printed(commands)
    assert {name: without_remarks(lines, desk) for name, lines in found.items()} == {
        name: [] for name, _ in commands
    }


@pytest.mark.slow
def test_tuning_and_a_batch_print_nothing_of_lightning(desk: Desk, sd_checkpoint: Path) -> None:
    clip = [f"--video={desk.folder / 'clip.mp4'}", "--frames=2", "--size=32x48"]
    tune = ["tune", *clip, "--prompt=a bear", f"--checkpoint={sd_checkpoint}", "--steps=2"]
    job = {"id": "one", "video": "clip.mp4", "source": "a bear", "target": "a panda", "steps": 2}
    job |= {"frames": 2, "size": [32, 48], "overrides": {"mask.policy": "naive"}}
    jobs = desk.file("jobs.jsonl", json.dumps(job))
    predict = [f"jobs={jobs}", f"out={desk.folder / 'out'}", f"checkpoint={desk.checkpoint}"]
    commands = [
        ("tune", [*tune, f"--out={desk.folder / 'tuned'}", "--quiet"]),
        ("predict", ["predict", *predict, "trainer.accelerator=cpu", "--quiet"]),
    ]
    found = printed(commands)
    assert {name: without_remarks(lines, desk) for name, lines in found.items()} == {
        "tune": [],
        "predict": [],
    }


@pytest.mark.slow
def test_the_calibration_tool_reports_its_clips_and_nothing_else(desk: Desk) -> None:
    tool = Path(__file__).parents[2] / "tools" / "calibrate.py"
    clip = ["--frames=2", "--size=32x48", "--steps=2", f"--checkpoint={desk.checkpoint}"]
    out = f"--out={desk.folder / 'codebook.json'}"
    for quiet, said in (([], r"calibrate 2/2 in \d+ s\n"), (["--quiet"], "")):
        done = subprocess.run(
            [sys.executable, str(tool), "--clips=2", "--device=cpu", out, *clip, *quiet],
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(said, done.stderr), done.stderr


def test_only_the_known_message_is_hidden(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("freemask.tests.printer")
    with hidden(logger.name, "known"):
        logger.warning("known to all")
        logger.warning("unknown")
    logger.warning("known afterwards")
    assert caplog.messages == ["unknown", "known afterwards"]


def test_bars_come_back_as_they_were() -> None:
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    libraries = (of_diffusers, of_transformers)
    with without_bars():
        assert not any(library.is_progress_bar_enabled() for library in libraries)
    assert all(library.is_progress_bar_enabled() for library in libraries)
    of_diffusers.disable_progress_bar()
    try:
        with without_bars():
            pass
        assert not of_diffusers.is_progress_bar_enabled()
    finally:
        of_diffusers.enable_progress_bar()
