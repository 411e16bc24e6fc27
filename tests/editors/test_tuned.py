"""Tuned checkpoints: they run as the published networks, and faulty ones are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from published import PublishedUNet
from torch import Tensor
from tuned_checkpoints import FATEZERO, TUNE_A_VIDEO, temporal_weights, unet_weights, write_tuned

from freemask.editors.editor import Editor
from freemask.editors.registry import load_editor
from freemask.types import InputError

FRAMES, SIZE = 3, (4, 6)
BLOCKS = 7  # transformer blocks of the tiny UNet
Sees = Callable[[int], Sequence[Sequence[int]]]


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
def test_tune_a_video_equals_the_published_network(
    sd_checkpoint: Path, tmp_path: Path, pickled: bool
) -> None:
    folder = tmp_path / "tuned"
    state = write_tuned(sd_checkpoint, folder, "Tune-A-Video", TUNE_A_VIDEO, pickled=pickled)
    editor = load("tune_a_video", folder)
    published = PublishedUNet(state, dict(editor.backbone.config), sparse_causal)  # type: ignore[arg-type]
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
def test_fatezero_equals_the_published_network(
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
    config = dict(editor.backbone.config)  # type: ignore[arg-type]
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
    published = PublishedUNet(state, dict(editor.backbone.config), sees)  # type: ignore[arg-type]
    assert_equal_networks(editor, published)  # FateZero: no layer here has 640 channels


def test_every_block_has_a_temporal_site(sd_checkpoint: Path, tmp_path: Path) -> None:
    write_tuned(sd_checkpoint, tmp_path / "tuned", "Tune-A-Video", TUNE_A_VIDEO)
    sites = load("tune_a_video", tmp_path / "tuned").sites((8, 12))
    kinds = [site.kind for site in sites]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "self": BLOCKS,
        "cross": BLOCKS,
        "temporal": BLOCKS,
    }


def change_weights(folder: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.bin"
    state = torch.load(file, weights_only=True)
    edit(state)
    torch.save(state, file)


def widen_text_encoder(folder: Path) -> None:
    from transformers import CLIPTextModel

    config = CLIPTextModel.from_pretrained(folder / "text_encoder").config
    config.hidden_size = 24
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")


TEMPORAL = "mid_block.attentions.0.transformer_blocks.0.attn_temp.to_q.weight"
BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a temporal weight is missing": (
        lambda c: change_weights(c, lambda s: s.pop(TEMPORAL)),
        "lacks 1 weights, such as mid_block.*attn_temp",
    ),
    "a weight too many": (
        lambda c: change_weights(c, lambda s: s.update({"extra.weight": torch.zeros(1)})),
        "adds 1 weights, such as extra.weight",
    ),
    "a temporal weight too many": (
        lambda c: change_weights(
            c, lambda s: s.update({"conv_in.attn_temp.weight": torch.zeros(1)})
        ),
        "adds 1 weights, such as conv_in.attn_temp",
    ),
    "a weight of another shape": (
        lambda c: change_weights(c, lambda s: s.update({TEMPORAL: torch.zeros(1)})),
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
        "has no complete weights",
    ),
    "another text encoder": (
        widen_text_encoder,
        "the text encoder is 24 wide, the UNet's cross-attention needs 16",
    ),
}


@pytest.mark.parametrize(("broken", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_tuned_checkpoint_is_an_error_that_names_the_fault(
    sd_checkpoint: Path, tmp_path: Path, broken: Callable[[Path], Any], said: str
) -> None:
    write_tuned(sd_checkpoint, tmp_path / "tuned", "Tune-A-Video", TUNE_A_VIDEO)
    broken(tmp_path / "tuned")
    with pytest.raises(InputError, match=said):
        load("tune_a_video", tmp_path / "tuned")


def test_diffusers_class_of_the_same_name_is_refused(
    checkpoint: Path, sd_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"a Zeroscope or ModelScope.*use editor=zeroscope"):
        load("tune_a_video", checkpoint)
    write_tuned(sd_checkpoint, tmp_path / "tuned", "Tune-A-Video", TUNE_A_VIDEO)
    with pytest.raises(InputError, match=r"does not fit|cannot be loaded"):
        load("zeroscope", tmp_path / "tuned")
    with pytest.raises(InputError, match="holds a UNet3DConditionModel, this editor needs"):
        load("text2video_zero", checkpoint)
