"""Editors that inflate Stable Diffusion are the published networks and load their files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from published import PublishedUNet
from safetensors.torch import load_file, save_file
from torch import Tensor

from freemask.editors import inflated
from freemask.editors.editor import Editor
from freemask.editors.registry import load_editor
from freemask.editors.scheduler import make_scheduler
from freemask.editors.text2video_zero import translated
from freemask.sampling.generation import generate
from freemask.types import InputError

FRAMES, SIZE = 3, (4, 6)
BLOCKS = 7  # transformer blocks of the tiny UNet
Sees = Callable[[int], Sequence[Sequence[int]]]


def unet_weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


def temporal_weights(
    spatial: dict[str, Tensor], names: tuple[str, str], convolutions: str
) -> dict[str, Tensor]:
    """Random temporal weights as a release would have them. convolutions: "", "full" or "low"."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    added = {}
    for name, weight in spatial.items():
        if name.endswith("attn1.to_q.weight"):
            block, width = name.removesuffix("attn1.to_q.weight"), len(weight)
            for layer in ("to_q", "to_k", "to_v", "to_out.0"):
                added[f"{block}{names[0]}.{layer}.weight"] = draw(width, width)
            added[f"{block}{names[0]}.to_out.0.bias"] = draw(width)
            added[f"{block}{names[1]}.weight"] = draw(width) + 1
            added[f"{block}{names[1]}.bias"] = draw(width)
        if convolutions and weight.ndim == 4 and weight.shape[-1] > 1:
            conv, width = name.removesuffix("weight"), len(weight)
            if convolutions == "full":
                added[f"{conv}conv_temporal.weight"] = draw(width, width, 3)
                added[f"{conv}conv_temporal.bias"] = draw(width)
            else:
                rank = 8 if width >= 8 else width // 2
                added[f"{conv}conv_temporal.down.weight"] = draw(rank, width, 3)
                added[f"{conv}conv_temporal.up.weight"] = draw(width, rank, 3)
    return added


LAYOUTS: dict[str, dict[str, Any]] = {
    "Tune-A-Video": {"class": "UNet3DConditionModel", "blocks": "3D"},
    "FateZero": {"class": "UNetPseudo3DConditionModel", "blocks": "Pseudo3D"},
}
TUNE_A_VIDEO, FATEZERO = ("attn_temp", "norm_temp"), ("attn_temporal", "norm_temporal")


def write_tuned(
    sd: Path,
    folder: Path,
    layout: str,
    names: tuple[str, str],
    convolutions: str = "",
    *,
    pickled: bool = True,
    **config: Any,
) -> dict[str, Tensor]:
    """A tuned checkpoint in a release's layout; returns its weights."""
    shutil.copytree(sd, folder)
    file = folder / "unet" / "config.json"
    kind = LAYOUTS[layout]
    text = file.read_text().replace("2D", kind["blocks"])
    values = json.loads(text) | config | {"_class_name": kind["class"]}
    file.write_text(json.dumps(values))
    spatial = unet_weights(sd)
    state = spatial | temporal_weights(spatial, names, convolutions)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    if pickled:
        torch.save(state, folder / "unet" / "diffusion_pytorch_model.bin")
    else:
        save_file(state, folder / "unet" / "diffusion_pytorch_model.safetensors")
    return state


def load(name: str, folder: Path, **options: Any) -> Editor:
    return load_editor(name, checkpoint=folder, device="cpu", options=options)


def assert_equal_networks(editor: Editor, published: PublishedUNet) -> None:
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(2, 4, FRAMES, *SIZE, generator=generator)
    text = torch.randn(2, 5, 16, generator=generator)
    with torch.no_grad():
        ours, theirs = editor.predict(latents, 321, text), published(latents, 321, text)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def sparse_causal(frames: int) -> list[list[int]]:
    return [[0, max(f - 1, 0)] for f in range(frames)]


@pytest.mark.parametrize("pickled", [True, False], ids=["bin", "safetensors"])
def test_tune_a_video_is_the_published_network(
    sd_checkpoint: Path, tmp_path: Path, pickled: bool
) -> None:
    folder = tmp_path / "tuned"
    state = write_tuned(sd_checkpoint, folder, "Tune-A-Video", TUNE_A_VIDEO, pickled=pickled)
    editor = load("tune_a_video", folder)
    published = PublishedUNet(state, dict(editor.unet.config), sparse_causal)  # type: ignore[arg-type]
    assert_equal_networks(editor, published)


@pytest.mark.parametrize("convolutions", ["", "full", "low"])
@pytest.mark.parametrize(
    ("frames", "sees"),
    [
        (["mid"], lambda n: [[(n - 1) // 2]] * n),
        ([-1, "first"], lambda n: [[max(f - 1, 0), 0] for f in range(n)]),
        ([0, 1, "last"], lambda n: [[f, min(f + 1, n - 1), n - 1] for f in range(n)]),
    ],
    ids=["mid", "previous and first", "own, next and last"],
)
def test_fatezero_is_the_published_network(
    sd_checkpoint: Path, tmp_path: Path, frames: list[Any], sees: Sees, convolutions: str
) -> None:
    folder = tmp_path / "tuned"
    state = write_tuned(
        sd_checkpoint,
        folder,
        "FateZero",
        FATEZERO,
        convolutions,
        SparseCausalAttention_index=frames,
        least_sc_channel=32,
    )
    editor = load("fatezero", folder)
    config = dict(editor.unet.config)  # type: ignore[arg-type]
    assert_equal_networks(editor, PublishedUNet(state, config, sees, FATEZERO, least=32))
    chosen = load("fatezero", folder, frames=[0], least_sc_channel=0)
    own = PublishedUNet(state, config, lambda n: [[f] for f in range(n)], FATEZERO)
    assert_equal_networks(chosen, own)


@pytest.mark.parametrize("name", ["tune_a_video", "fatezero"])
def test_untuned_temporal_attention_adds_nothing(sd_checkpoint: Path, name: str) -> None:
    editor = load(name, sd_checkpoint)
    state = unet_weights(sd_checkpoint)
    zero = temporal_weights(state, TUNE_A_VIDEO, "")
    state |= {key: torch.zeros_like(weight) for key, weight in zero.items()}
    sees = sparse_causal if name == "tune_a_video" else lambda n: [[f] for f in range(n)]
    published = PublishedUNet(state, dict(editor.unet.config), sees)  # type: ignore[arg-type]
    assert_equal_networks(editor, published)  # fatezero: no layer has its 640 channels


def test_text2video_zero_moves_latents_as_diffusers_does() -> None:
    from diffusers.pipelines.deprecated.text_to_video_synthesis import pipeline_text_to_video_zero

    first = torch.randn(1, 4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    stock = pipeline_text_to_video_zero.create_motion_field_and_warp_latents(
        20.0, -7.0, [0, 1, 2, 3, 4], first[:, :, 0].repeat(5, 1, 1, 1)
    )
    moved = translated(first, (20.0, -7.0), 5)
    assert torch.equal(moved[0].transpose(0, 1), stock)
    assert not torch.equal(moved[:, :, 4], moved[:, :, 0])


def test_text2video_zero_generates_as_diffusers_does(
    sd_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same latents after a whole run of diffusers' pipeline, from the same noise."""
    from diffusers import UNet2DConditionModel
    from diffusers.pipelines.deprecated.text_to_video_synthesis import pipeline_text_to_video_zero

    editor = load("text2video_zero", sd_checkpoint)
    frames, (h, w) = 4, (8, 8)
    shape = (1, editor.vae.config.latent_channels, frames, h, w)
    size = (h * editor.pixel_factor, w * editor.pixel_factor)
    ours: list[Tensor] = []
    monkeypatch.setattr(editor, "decode", lambda latents, fps: ours.append(latents))
    generate(editor, "a bear", frames=frames, size=size, steps=50, seed=3)

    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(shape, generator=generator)

    def fresh(size: torch.Size, generator: torch.Generator, **_: Any) -> Tensor:
        drawn = torch.randn(1, size[1], size[0], *size[2:], generator=generator)
        return drawn[0].transpose(0, 1)

    monkeypatch.setattr(pipeline_text_to_video_zero, "randn_tensor", fresh)
    pipeline = pipeline_text_to_video_zero.TextToVideoZeroPipeline(
        editor.vae, editor.text_encoder, editor.tokenizer,
        UNet2DConditionModel.from_pretrained(sd_checkpoint / "unet"),
        make_scheduler(editor.scheduler_config, 50), None, None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        "a bear", video_length=frames, height=size[0], width=size[1], latents=noise[:, :, 0],
        generator=generator, output_type="latent",
    ).images  # fmt: skip
    theirs = torch.as_tensor(theirs)
    error = (ours[0][0].transpose(0, 1) - theirs).abs().max()
    assert error < 1e-3 * theirs.abs().max()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"motion": [1.0]}, r"motion is \[1\.0\]; it must be two numbers"),
        ({"motion_window": [0.1, 1.2]}, "must be two fractions"),
        ({"motion_window": [0.1]}, "must be two fractions"),
    ],
)
def test_a_motion_that_is_none_is_refused(
    sd_checkpoint: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        load("text2video_zero", sd_checkpoint, **options)


def test_one_frame_is_generated_without_motion(sd_checkpoint: Path) -> None:
    editor = load("text2video_zero", sd_checkpoint, anchor=2)
    noise = torch.randn(1, 4, 1, *SIZE)
    scheduler = make_scheduler(editor.scheduler_config, 50)
    start, latents = editor.begin(noise, lambda *_: noise, scheduler, torch.Generator())
    assert (start, latents) == (0, noise)
    assert generate(editor, "a bear", frames=3, size=(16, 16), steps=4).num_frames == 3


def test_text2video_zero_is_the_processor_of_diffusers(sd_checkpoint: Path) -> None:
    from diffusers import UNet2DConditionModel
    from diffusers.pipelines.deprecated.text_to_video_synthesis import pipeline_text_to_video_zero

    editor = load("text2video_zero", sd_checkpoint)
    stock = UNet2DConditionModel.from_pretrained(sd_checkpoint / "unet").eval()
    stock.set_attn_processor(pipeline_text_to_video_zero.CrossFrameAttnProcessor(batch_size=2))
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(2, 4, FRAMES, *SIZE, generator=generator)
    text = torch.randn(2, 5, 16, generator=generator)
    images = latents.transpose(1, 2).flatten(0, 1)
    with torch.no_grad():
        theirs = stock(images, 321, text.repeat_interleave(FRAMES, 0)).sample
        ours = editor.predict(latents, 321, text)
        other = load("text2video_zero", sd_checkpoint, anchor=1).predict(latents, 321, text)
    torch.testing.assert_close(ours.transpose(1, 2).flatten(0, 1), theirs, rtol=1e-4, atol=1e-5)
    assert (ours - other).abs().max() > 1e-3
    with pytest.raises(InputError, match="anchor is 7; the clip's frames are 0 to 2"):
        load("text2video_zero", sd_checkpoint, anchor=7).predict(latents, 321, text)


def test_sites_are_those_of_the_layout(sd_checkpoint: Path, tmp_path: Path) -> None:
    write_tuned(sd_checkpoint, tmp_path / "tuned", "Tune-A-Video", TUNE_A_VIDEO)
    sites = load("tune_a_video", tmp_path / "tuned").sites((8, 12))
    kinds = [site.kind for site in sites]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "self": BLOCKS,
        "cross": BLOCKS,
        "temporal": BLOCKS,
    }
    assert {s.kind for s in load("text2video_zero", sd_checkpoint).sites(SIZE)} == {"self", "cross"}


def test_frames_are_held_inside_the_clip() -> None:
    table = inflated.frame_table(["first", -1, 2, "mid", "last"], 4)
    assert table.tolist() == [[0, 0, 2, 1, 3], [0, 0, 3, 1, 3], [0, 1, 3, 1, 3], [0, 2, 3, 1, 3]]


def change(folder: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.bin"
    state = torch.load(file, weights_only=True)
    edit(state)
    torch.save(state, file)


TEMPORAL = "mid_block.attentions.0.transformer_blocks.0.attn_temp.to_q.weight"
BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a temporal weight is missing": (
        lambda c: change(c, lambda s: s.pop(TEMPORAL)),
        "lacks 1 weights, such as mid_block.*attn_temp",
    ),
    "a weight too many": (
        lambda c: change(c, lambda s: s.update({"extra.weight": torch.zeros(1)})),
        "adds 1 weights, such as extra.weight",
    ),
    "a temporal weight too many": (
        lambda c: change(c, lambda s: s.update({"conv_in.attn_temp.weight": torch.zeros(1)})),
        "adds 1 weights, such as conv_in.attn_temp",
    ),
    "a weight of another shape": (
        lambda c: change(c, lambda s: s.update({TEMPORAL: torch.zeros(1)})),
        r"attn_temp.to_q.weight is \(1,\), must be \(32, 32\)",
    ),
    "a pickle of something else": (
        lambda c: torch.save({"a": Path("x")}, c / "unet" / "diffusion_pytorch_model.bin"),
        "cannot be read as weights",
    ),
    "a list of tensors": (
        lambda c: torch.save([torch.zeros(1)], c / "unet" / "diffusion_pytorch_model.bin"),
        "is not a state dict",
    ),
    "a file cut short": (
        lambda c: (c / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"PK"),
        "cannot be read as weights",
    ),
    "a safetensors file cut short": (
        lambda c: (c / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"1234567"),
        "cannot be read as weights",
    ),
    "no weights": (
        lambda c: (c / "unet" / "diffusion_pytorch_model.bin").unlink(),
        "has no weights; looked for",
    ),
    "another text encoder": (
        lambda c: change_text(c),
        "the text encoder is 24 wide, the UNet's cross-attention needs 16",
    ),
}


def change_text(folder: Path) -> None:
    from transformers import CLIPTextModel

    config = CLIPTextModel.from_pretrained(folder / "text_encoder").config
    config.hidden_size = 24
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")


@pytest.mark.parametrize(("broken", "said"), BROKEN.values(), ids=BROKEN)
def test_a_tuned_checkpoint_that_does_not_fit_says_how(
    sd_checkpoint: Path, tmp_path: Path, broken: Callable[[Path], Any], said: str
) -> None:
    write_tuned(sd_checkpoint, tmp_path / "tuned", "Tune-A-Video", TUNE_A_VIDEO)
    broken(tmp_path / "tuned")
    with pytest.raises(InputError, match=said):
        load("tune_a_video", tmp_path / "tuned")


def test_a_namesake_is_told_apart(checkpoint: Path, sd_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a Zeroscope or ModelScope.*use editor=zeroscope"):
        load("tune_a_video", checkpoint)
    write_tuned(sd_checkpoint, tmp_path / "tuned", "Tune-A-Video", TUNE_A_VIDEO)
    with pytest.raises(InputError, match=r"does not fit|cannot be loaded"):
        load("zeroscope", tmp_path / "tuned")
    with pytest.raises(InputError, match="holds a UNet3DConditionModel, this editor needs"):
        load("text2video_zero", checkpoint)


def test_options_that_are_not_known_are_named(sd_checkpoint: Path) -> None:
    with pytest.raises(InputError, match="unknown config key 'frame'; did you mean 'frames'"):
        load("fatezero", sd_checkpoint, frame=["mid"])
    with pytest.raises(InputError, match="frame choice 'middle' is neither"):
        load("fatezero", sd_checkpoint, frames=["middle"])
    with pytest.raises(InputError, match="unknown config key 'anchor'"):
        load("zeroscope", sd_checkpoint, anchor=1)
