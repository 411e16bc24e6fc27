"""FreeMask as modular blocks: an exported folder gives the edit of `freemask.edit`, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ModularPipeline
from diffusers.models import attention_dispatch

import freemask
from freemask.cli.commands import main
from freemask.editors import wan_attention
from freemask.editors.request import EditorRequest
from freemask.modular.components import modular_kind
from freemask.modular.export import export
from freemask.types import EditRequest, InputError, Video

SOURCE, TARGET = "a bear on the grass", "a panda on the grass"
NAIVE = {"mask.policy": "naive"}
FRAMES = np.random.default_rng(0).integers(0, 255, (9, 32, 48, 3), dtype=np.uint8)


def loaded(editor: str, checkpoint: Path, folder: Path) -> Any:
    export(EditorRequest(editor=editor, checkpoint=str(checkpoint)), folder)
    pipeline = ModularPipeline.from_pretrained(str(folder), trust_remote_code=True)
    pipeline.load_components(dtype=torch.float32)
    return pipeline


def run(pipeline: Any, output: str = "videos", **more: Any) -> Any:
    given = {"num_inference_steps": 3, "overrides": NAIVE, "seed": 2} | more
    return pipeline(video=FRAMES, source_prompt=SOURCE, prompt=TARGET, output=output, **given)


def expected(editor: str, checkpoint: Path, **more: Any) -> freemask.EditResult:
    made = freemask.load_editor(editor, checkpoint=checkpoint, device="cpu")
    request = EditRequest(SOURCE, TARGET, steps=3, seed=2, overrides=NAIVE)
    return freemask.edit(made, Video(FRAMES), request, **more)


@pytest.fixture
def wan_pipeline(wan_checkpoint: Path, tmp_path: Path) -> Any:
    return loaded("wan", wan_checkpoint, tmp_path / "exported")


def test_the_edit_with_wan_is_that_of_the_library(wan_pipeline: Any, wan_checkpoint: Path) -> None:
    result = expected("wan", wan_checkpoint)
    assert np.array_equal(run(wan_pipeline), result.video.frames)
    assert torch.equal(run(wan_pipeline, "masks").values, result.masks.values)
    mask = torch.zeros(9, 32, 48)
    mask[:, 8:24, 8:24] = 1
    given = expected("wan", wan_checkpoint, mask=mask)
    assert np.array_equal(run(wan_pipeline, mask=mask), given.video.frames)


def test_the_edit_with_zeroscope_is_that_of_the_library(checkpoint: Path, tmp_path: Path) -> None:
    pipeline = loaded("zeroscope", checkpoint, tmp_path / "exported")
    result = expected("zeroscope", checkpoint)
    assert np.array_equal(run(pipeline), result.video.frames)


def test_plain_branches_take_the_backend_that_was_chosen(
    wan_pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    fused: list[str] = []
    dispatch, blended = attention_dispatch.dispatch_attention_fn, freemask.kernels.blended_attention

    def spied(*tensors: Any, backend: Any = None, **named: Any) -> Any:
        seen.append(backend)
        return dispatch(*tensors, backend=backend, **named)

    def fuse(*tensors: Any, **named: Any) -> Any:
        fused.append(named["backend"])
        return blended(*tensors, **named)

    registry = attention_dispatch._AttentionBackendRegistry  # the choice is global too
    monkeypatch.setattr(registry, "_active_backend", registry._active_backend)
    monkeypatch.setattr(wan_attention, "dispatch_attention_fn", spied)
    monkeypatch.setattr(freemask.kernels, "blended_attention", fuse)
    before = run(wan_pipeline)
    assert seen == []
    wan_pipeline.transformer.set_attention_backend("_native_math")
    after = run(wan_pipeline)
    assert {getattr(name, "value", name) for name in seen} == {"_native_math"}
    assert set(fused) == {"auto"}
    assert np.abs(before.astype(int) - after.astype(int)).max() <= 2


def test_frames_may_be_pictures_or_floats(wan_pipeline: Any) -> None:
    from PIL import Image

    from freemask.modular.blocks import as_clip

    pictures = [Image.fromarray(frame) for frame in FRAMES]
    for frames in (
        pictures,
        FRAMES / 255,
        torch.from_numpy(FRAMES),
        torch.from_numpy(FRAMES) / 255,
    ):
        assert np.array_equal(as_clip(frames, 8.0).frames, FRAMES)
    with pytest.raises(InputError, match=r"video is \(32, 48, 3\); it must be frames"):
        as_clip(FRAMES[0], 8.0)


def test_what_cannot_be_is_refused_with_the_reason(
    wan_pipeline: Any, sd_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="13 frames are more than one context window"):
        wan_pipeline(
            video=np.concatenate([FRAMES, FRAMES[:4]]),
            source_prompt=SOURCE,
            prompt=TARGET,
            overrides=NAIVE | {"window.frames": 9, "window.overlap": 4, "window.anchors": 1},
        )
    wan_pipeline.update_components(vae=None)
    with pytest.raises(InputError, match="component vae is not loaded"):
        run(wan_pipeline)
    with pytest.raises(
        InputError, match=r"editor tune_a_video has no modular blocks.*wan, zeroscope"
    ):
        modular_kind("tune_a_video")
    folder = str(tmp_path / "refused")
    assert main(["export-diffusers", folder, "--checkpoint", str(sd_checkpoint)]) == 2
    assert "UNet2DConditionModel" in capsys.readouterr().err
    assert not Path(folder).exists()


def test_the_command_says_how_to_load_the_folder(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "exported")
    assert main(["export-diffusers", folder, "--checkpoint", str(checkpoint)]) == 0
    said = capsys.readouterr().out
    assert f"ModularPipeline.from_pretrained({folder!r}, trust_remote_code=True)" in said
