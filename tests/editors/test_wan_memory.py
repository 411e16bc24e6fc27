"""Memory and precision of editor `wan`: what stays on a GPU, what an edit needs, fallback steps."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from freemask.batch.out_of_memory import STEPS
from freemask.editors.editor import Editor
from freemask.editors.registry import DTYPES, editor_class, load_editor, runtime
from freemask.editors.request import EditorRequest
from freemask.kernels.dev.timing import peak_bytes
from freemask.profiling import footprint
from freemask.profiling.memory_check import Clip, least_bytes

CLIP = Clip(9, (64, 96))


def blueprint(folder: Path, **options: Any) -> Editor:
    kind = editor_class("wan")
    return kind.blueprint(folder, torch.float32, kind.Options(**options))


def test_the_meta_device_counts_what_a_real_pass_allocates(
    wan: Editor, wan_checkpoint: Path
) -> None:
    inputs = footprint.inputs_of(wan, 2, 21, CLIP.size)
    with torch.inference_mode():
        wan.predict(*inputs)  # what libraries allocate on their first use
        measured = peak_bytes(lambda: wan.predict(*inputs), "cpu")
    counted = footprint.denoise_peak(blueprint(wan_checkpoint), 2, 21, CLIP.size)
    assert 0.75 * measured < counted < 1.25 * measured


def test_the_decoder_holds_one_latent_frame_and_the_finished_clip(wan_checkpoint: Path) -> None:
    editor = blueprint(wan_checkpoint)
    assert editor.decoder_input(9, CLIP.size) == editor.latent_shape(9, CLIP.size)
    at_9, at_21, at_33 = (
        footprint._decode_peak(editor, frames, CLIP.size) for frames in (9, 21, 33)
    )
    clip = 12 * 3 * 64 * 96 * 4  # bytes of 12 frames in float32
    assert clip <= at_33 - at_21 <= 3 * clip
    assert at_9 > 3 * clip  # most is the work on one latent frame


def test_the_text_encoder_waits_on_the_host_beside_a_gpu(wan_checkpoint: Path) -> None:
    editor = blueprint(wan_checkpoint)
    sizes = {
        name: footprint.weight_bytes(getattr(editor, name))
        for name in ("backbone", "vae", "text_encoder")
    }
    found = footprint.footprint(editor, frames=9, size=CLIP.size)
    assert found.weights == sizes["backbone"] + sizes["vae"]
    assert found.text == sizes["text_encoder"]
    later = found.trajectory + max(found.denoise, found.decode)
    assert found.peak == found.weights + max(found.text, later)
    on_cpu = least_bytes(editor, CLIP, 50, 2, on_gpu=False)
    on_gpu = least_bytes(editor, CLIP, 50, 2, on_gpu=True)
    assert on_cpu - on_gpu == sizes["text_encoder"] + sizes["vae"]


def test_group_offloading_keeps_two_blocks_on_the_gpu(wan_checkpoint: Path) -> None:
    plain, offloaded = blueprint(wan_checkpoint), blueprint(wan_checkpoint, offload="group")
    block = footprint.weight_bytes(plain.backbone.transformer.blocks[0])
    saved = footprint.resident_bytes(plain) - footprint.resident_bytes(offloaded)
    table = plain.backbone.transformer.scale_shift_table
    assert saved == block + table.numel() * table.element_size()


def test_an_editor_of_images_decodes_a_few_frames_at_once(editor: Editor) -> None:
    assert editor.decoder_input(20, (32, 48)) == (8, 4, 8, 12)
    assert editor.decoder_input(3, (32, 48)) == (3, 4, 8, 12)
    assert editor.resident == (editor.backbone, editor.vae, editor.text_encoder)


def test_prompts_are_encoded_once_and_one_by_one(
    wan: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor, encoded = deepcopy(wan), []
    editor._text_states.clear()
    forward = editor.text_encoder.forward

    def spy(ids: Tensor, mask: Tensor) -> Any:
        encoded.append(ids.shape)
        return forward(ids, mask)

    monkeypatch.setattr(editor.text_encoder, "forward", spy)
    first = editor.encode_text(["a bear", "a panda"])
    again = editor.encode_text(["a  panda", "", "a bear"])
    assert encoded == [(1, 512)] * 3
    assert torch.equal(again[[2, 0]], first)
    many = [f"a bear {'a ' * n}" for n in range(40)]
    assert editor.encode_text(many).shape == (40, 512, 16)
    assert len(editor._text_states) == 16


@pytest.mark.parametrize(
    ("name", "device", "dtype", "expected"),
    [
        ("wan", "meta", "auto", "bfloat16"),
        ("wan", "cpu", "auto", "float32"),
        ("wan", "meta", "float16", "float16"),
        ("zeroscope", "meta", "auto", "float16"),
        ("zeroscope", "cpu", "auto", "float32"),
    ],
)
def test_the_editor_says_its_half_precision(
    name: str, device: str, dtype: str, expected: str
) -> None:
    """The meta device stands for a GPU."""
    found = runtime(device, dtype, editor_class(name).half)
    assert found == (torch.device(device), DTYPES[expected])


def test_a_request_resolves_the_half_precision_of_its_editor(wan_checkpoint: Path) -> None:
    wanted = EditorRequest(editor="wan", checkpoint=str(wan_checkpoint), device="meta")
    assert wanted.blueprint().dtype == torch.bfloat16


def test_float16_is_loaded_with_a_remark(wan_checkpoint: Path) -> None:
    for dtype in ("float16", "bfloat16", "float32"):
        editor = load_editor("wan", checkpoint=wan_checkpoint, device="cpu", dtype=dtype)
        warned = any("overflow in float16; take dtype=bfloat16" in note for note in editor.notes)
        assert warned == (dtype == "float16")


def test_fallback_steps_that_change_nothing_are_skipped(wan: Editor) -> None:
    editor, job = deepcopy(wan), None
    applied = [
        name for name, step in STEPS.items() if name != "features=replay" and step(editor, job)
    ]
    assert applied == ["attention in smaller parts", "VAE in tiles"]  # on a CPU
    assert editor.vae.use_tiling
    assert not STEPS["VAE in tiles"](editor, job)


@torch.no_grad()
def test_a_vae_in_tiles_gives_nearly_the_same_clip(wan: Editor) -> None:
    editor = deepcopy(wan)
    z = torch.randn(editor.latent_shape(5, (64, 96)))
    whole = editor.decode(z, 8.0).frames.astype(int)
    editor.vae.enable_tiling(
        tile_sample_min_height=48, tile_sample_min_width=48,
        tile_sample_stride_height=32, tile_sample_stride_width=32,
    )  # fmt: skip
    tiled = editor.decode(z, 8.0).frames.astype(int)
    assert tiled.shape == whole.shape
    assert (tiled != whole).any()
    assert abs(tiled - whole).mean() < 8


def test_an_offloaded_text_encoder_stays_where_it_is(wan: Editor) -> None:
    editor = deepcopy(wan)
    editor._text_device = torch.device("meta")  # as if it were a GPU
    editor.offload()
    assert editor._text_device == torch.device("cpu")
    assert torch.equal(editor.encode_text(["a bear"]), wan.encode_text(["a bear"]))
