"""Editors: the registry, checkpoints that load or say why not, latents and text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from freemask import editors
from freemask.editors.checkpoints import PARTS
from freemask.editors.editor import Editor
from freemask.editors.registry import load_editor
from freemask.editors.zeroscope import Zeroscope
from freemask.types import InputError, Video

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


def noise_video(frames: int, size: tuple[int, int], seed: int = 0) -> Video:
    generator = np.random.default_rng(seed)
    return Video(generator.integers(0, 256, (frames, *size, 3), dtype=np.uint8))


def test_the_registry_knows_its_editors_and_takes_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editors, "EDITORS", dict(editors.EDITORS))

    class Mine(Zeroscope):
        pass

    editors.register("mine", Mine)
    assert editors.editor_class("mine") is Mine
    assert {"mine", "zeroscope"} <= set(editors.available())
    with pytest.raises(InputError, match="registered already"):
        editors.register("mine", Mine)
    with pytest.raises(InputError, match="no demo checkpoint"):
        load_editor("mine")


def test_an_editor_of_another_package_is_found_by_its_entry_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Points(list[Any]):
        names = ("theirs",)

    class Point:
        load = staticmethod(lambda: Zeroscope)

    monkeypatch.setattr(editors, "entry_points", lambda **_: Points([Point()]))
    assert "theirs" in editors.available()
    assert editors.editor_class("theirs") is Zeroscope


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"name": "zeroscop"}, r"unknown editor 'zeroscop'; did you mean 'zeroscope'"),
        ({"device": "toaster"}, r"device 'toaster' cannot be used here"),
        ({"device": "cuda:99"}, r"device 'cuda:99' cannot be used here"),
        ({"dtype": "float23"}, r"unknown dtype 'float23'; did you mean 'float32'"),
        ({"dtype": "int8"}, r"unknown dtype 'int8'"),
        ({"checkpoint": "nowhere"}, r"'nowhere' is neither a folder nor a hub id"),
        ({"checkpoint": "./a/b"}, r"'./a/b' is neither a folder nor a hub id"),
    ],
)
def test_a_choice_that_is_not_known_is_named(
    choice: dict[str, str], said: str, checkpoint: Path
) -> None:
    options: dict[str, Any] = {"name": "zeroscope", "checkpoint": checkpoint, **choice}
    with pytest.raises(InputError, match=said):
        load_editor(options.pop("name"), **options)


def test_a_hub_that_cannot_be_reached_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(InputError, match=r"could not be fetched from the hub \(no route\)"):
        load_editor("zeroscope", checkpoint="some/model")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_is_loaded_frozen_in_the_dtype_asked_for(checkpoint: Path, dtype: str) -> None:
    loaded = load_editor("zeroscope", checkpoint=checkpoint, device="cpu", dtype=dtype)
    assert loaded.dtype == getattr(torch, dtype)
    assert loaded.device.type == "cpu"
    for part in (loaded.unet, loaded.vae, loaded.text_encoder):
        assert not part.training
        assert not any(weight.requires_grad for weight in part.parameters())


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


def load(folder: Path) -> Editor:
    return load_editor("zeroscope", checkpoint=folder, device="cpu")


def set_config(folder: Path, part: str, **values: Any) -> None:
    path = folder / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(folder: Path, weights: str, change: Callable[[dict[str, Any]], Any]) -> None:
    state = load_file(folder / weights)
    change(state)
    save_file(state, folder / weights, metadata={"format": "pt"})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize("part", PARTS)
def test_a_folder_without_a_part_is_refused(part: str, copy: Path) -> None:
    shutil.rmtree(copy / part)
    with pytest.raises(InputError, match=f"has no {part} folder"):
        load(copy)


def first_of(state: dict[str, Any]) -> str:
    return sorted(name for name in state if name.endswith("weight"))[0]


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "of Stable Diffusion": (
        lambda c: set_config(c, "unet", _class_name="UNet2DConditionModel"),
        "holds a UNet2DConditionModel, this editor needs a UNet3DConditionModel",
    ),
    "no config": (lambda c: (c / "unet/config.json").unlink(), "cannot be read"),
    "config is no JSON": (lambda c: (c / "unet/config.json").write_text("{"), "cannot be read"),
    "config is a list": (lambda c: (c / "unet/config.json").write_text("[]"), "no settings"),
    "unknown blocks": (
        lambda c: set_config(c, "unet", down_block_types=["Foo", "Bar"]),
        "unet cannot be loaded",
    ),
    "other widths": (
        lambda c: set_config(c, "unet", cross_attention_dim=24),
        "the text encoder is 16 wide",
    ),
    "no unet weights": (lambda c: (c / UNET).unlink(), "unet cannot be loaded"),
    "no vae weights": (lambda c: (c / VAE).unlink(), "vae cannot be loaded"),
    "no text weights": (lambda c: (c / TEXT).unlink(), "text_encoder cannot be loaded"),
    "half the unet": (lambda c: cut(c / UNET), "unet cannot be loaded"),
    "half the text encoder": (lambda c: cut(c / TEXT), "text_encoder cannot be loaded"),
    "a unet weight too few": (
        lambda c: change_weights(c, UNET, lambda s: s.pop(first_of(s))),
        "does not fit its config: 1 missing keys",
    ),
    "a unet weight too many": (
        lambda c: change_weights(c, UNET, lambda s: s.update(extra=torch.ones(1))),
        "1 unexpected keys, such as extra",
    ),
    "a text weight too few": (
        lambda c: change_weights(c, TEXT, lambda s: s.pop(first_of(s))),
        "1 missing keys",
    ),
    "no vocabulary": (
        lambda c: [file.unlink() for file in (c / "tokenizer").iterdir()],
        "no tokenizer.json and no vocab.json",
    ),
    "no scheduler": (
        lambda c: (c / "scheduler/scheduler_config.json").unlink(),
        "scheduler cannot be loaded",
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_checkpoint_says_what_is_wrong(broken: str, copy: Path) -> None:
    breaking, said = BROKEN[broken]
    breaking(copy)
    with pytest.raises(InputError, match=said):
        load(copy)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize(
    ("weights", "pickled"),
    [
        (UNET, "unet/diffusion_pytorch_model.bin"),
        (VAE, "vae/diffusion_pytorch_model.bin"),
        (TEXT, "text_encoder/pytorch_model.bin"),
    ],
)
def test_a_pickle_is_refused_and_never_executed(weights: str, pickled: str, copy: Path) -> None:
    trace = copy / "executed"
    (copy / weights).unlink()
    torch.save({"weight": Bomb(trace)}, copy / pickled)
    with pytest.raises(InputError, match="cannot be loaded"):
        load(copy)
    assert not trace.exists()
    torch.load(copy / pickled, weights_only=False)
    assert trace.exists()


def test_latents_are_the_scaled_mean_of_the_posterior(editor: Editor) -> None:
    video = noise_video(3, (12, 20))
    pixels = torch.from_numpy(video.frames).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        mean = editor.vae.encode(pixels).latent_dist.mean
    found = editor.encode(video)
    assert found.shape == (1, 4, 3, 3, 5)
    assert found.dtype == torch.float32
    expected = mean * editor.vae.config.scaling_factor
    torch.testing.assert_close(found[0].transpose(0, 1), expected)


def test_decoding_undoes_the_scale_and_keeps_the_order_of_frames(editor: Editor) -> None:
    video = noise_video(11, (12, 20))  # more frames than go through the VAE at a time
    latents = editor.encode(video)
    decoded = editor.decode(latents, fps=5)
    assert (decoded.frames.shape, decoded.fps) == ((11, 12, 20, 3), 5)
    alone = editor.decode(latents[:, :, 9:10], fps=5)
    assert np.abs(decoded.frames[9:10].astype(int) - alone.frames).max() <= 1
    with torch.no_grad():
        raw = editor.vae.decode(latents[0, :, 2][None] / editor.vae.config.scaling_factor).sample
    levels = ((raw[0].clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.abs(decoded.frames[2] - levels).max() <= 1


def test_frames_that_the_vae_does_not_divide_are_refused(editor: Editor) -> None:
    assert editor.pixel_factor == 4
    assert editor.latent_size((36, 52)) == (9, 13)
    for size in ((36, 50), (34, 52), (0, 4)):
        with pytest.raises(InputError, match=f"{size[0]}x{size[1]}.*multiples of 4"):
            editor.latent_size(size)
    with pytest.raises(InputError, match="multiples of 4"):
        editor.encode(noise_video(1, (10, 12)))


def test_a_clip_in_a_batch_is_what_it_is_alone(editor: Editor) -> None:
    z = torch.randn(2, 4, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    text = editor.encode_text(["a bear", "a panda"])
    with torch.no_grad():
        both = editor.predict(z, 301, text)
        alone = torch.cat([editor.predict(z[n : n + 1], 301, text[n : n + 1]) for n in (0, 1)])
    torch.testing.assert_close(both, alone, rtol=1e-4, atol=1e-5)


def test_text_states_are_padded_to_the_encoders_length(editor: Editor) -> None:
    states = editor.encode_text(["a bear", "a panda moving left", ""])
    assert states.shape == (3, editor.tokenizer.model_max_length, 16)
    torch.testing.assert_close(editor.encode_text(["a bear"]), states[:1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(states[0], states[1])


def test_a_fingerprint_knows_the_weights(editor: Editor, checkpoint: Path) -> None:
    other = load(checkpoint)
    assert other.fingerprint() == editor.fingerprint()
    next(other.unet.parameters()).data[0] += 1
    assert other.fingerprint() != editor.fingerprint()


def test_a_codebook_beside_the_weights_is_found(editor: Editor, copy: Path) -> None:
    assert editor.codebook is None
    (copy / "codebook.json").write_text("{}")
    assert load(copy).codebook == copy / "codebook.json"
