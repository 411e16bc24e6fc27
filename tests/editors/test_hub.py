"""Hub ids: one precision of what is used is downloaded, once, and announced in one line."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from fake_hub import COMMIT, FakeHub, running
from hub_listings import MODELSCOPE, MOTION_ADAPTER, SD_15, SD_21_BASE, WAN_21, ZEROSCOPE

from freemask.calibration.request import CalibrationRequest
from freemask.editors.checkpoints import PARTS
from freemask.editors.hub import Wanted, needed_files
from freemask.editors.registry import editor_class, load_editor, native_frame
from freemask.editors.request import EditorRequest
from freemask.modules.calibration import CalibrationModule
from freemask.modules.tuning import tune
from freemask.modules.tuning_request import TuningRequest
from freemask.profiling.checkpoint_report import checkpoint_report
from freemask.types import InputError, Video

HALF, SINGLE = torch.float16, torch.float32
UNET = "unet/diffusion_pytorch_model"
SMALL = {  # files without weights
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "vae/config.json",
}


def weights(unet: str, text: str, vae: str) -> set[str]:
    stem = "diffusion_pytorch_model"
    return {f"unet/{stem}.{unet}", f"text_encoder/{text}", f"vae/{stem}.{vae}"}


SAFE = weights("safetensors", "model.safetensors", "safetensors")
SAFE_HALF = weights("fp16.safetensors", "model.fp16.safetensors", "fp16.safetensors")
CASES = {  # listing, dtype, variant -> weights, GB
    "SD 1.5 on a GPU": (SD_15, HALF, None, SAFE_HALF, 2.13),
    "SD 1.5 on a CPU": (SD_15, SINGLE, None, SAFE, 4.27),
    "SD 1.5, another variant": (
        SD_15,
        HALF,
        "non_ema",
        SAFE_HALF - {f"{UNET}.fp16.safetensors"} | {f"{UNET}.non_ema.safetensors"},
        3.85,
    ),
    "SD 2.1 on a GPU": (SD_21_BASE, HALF, None, SAFE, 5.16),
    "ModelScope on a GPU": (MODELSCOPE, HALF, None, SAFE_HALF, 3.67),
    "Zeroscope on a GPU": (
        ZEROSCOPE,
        HALF,
        None,
        weights("bin", "pytorch_model.bin", "bin"),
        3.67,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_precision_of_what_is_used_and_nothing_else(case: str) -> None:
    listing, dtype, variant, wanted, size = CASES[case]
    files = needed_files(listing, PARTS, Wanted(dtype=dtype, variant=variant))
    assert set(files) == SMALL | wanted
    assert sum(listing[name] for name in files) / 1e9 == pytest.approx(size, abs=0.01)


WAN_PARTS = editor_class("wan").layout.parts
WAN_NEEDED = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors.index.json",
    *(f"text_encoder/model-0000{n}-of-00005.safetensors" for n in range(1, 6)),
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
    *(f"transformer/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)),
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, HALF, SINGLE])
def test_of_wan_the_shards_and_the_tokenizer_are_needed(dtype: torch.dtype) -> None:
    files = needed_files(WAN_21, WAN_PARTS, Wanted(dtype=dtype))
    assert set(files) == WAN_NEEDED
    assert sum(WAN_21[name] for name in files) / 1e9 == pytest.approx(28.9, abs=0.1)


def test_a_vocabulary_of_pieces_is_needed_without_a_fast_tokenizer() -> None:
    listing = {name: size for name, size in WAN_21.items() if name != "tokenizer/tokenizer.json"}
    files = needed_files(listing, WAN_PARTS, Wanted())
    assert set(files) == WAN_NEEDED - {"tokenizer/tokenizer.json"} | {"tokenizer/spiece.model"}


def test_a_second_transformer_is_needed_where_it_exists() -> None:
    names = [name for name in WAN_21 if name.startswith("transformer/")]
    second = {name.replace("transformer/", "transformer_2/"): WAN_21[name] for name in names}
    files = needed_files({**WAN_21, **second}, WAN_PARTS, Wanted())
    assert set(files) == WAN_NEEDED | set(second)


def test_a_variant_that_a_transformer_lacks_is_an_error() -> None:
    with pytest.raises(InputError, match=r"transformer has no variant 'fp16'; its .*: \(none\)"):
        needed_files(WAN_21, WAN_PARTS, Wanted(variant="fp16"))


@pytest.mark.parametrize(
    ("dtype", "weights"),
    [
        (HALF, "diffusion_pytorch_model.fp16.safetensors"),
        (SINGLE, "diffusion_pytorch_model.safetensors"),
    ],
)
def test_a_motion_adapter_lies_at_the_root(dtype: torch.dtype, weights: str) -> None:
    files = needed_files(MOTION_ADAPTER, ("",), Wanted(dtype=dtype))
    assert set(files) == {"config.json", weights}


def test_a_variant_that_is_not_there_is_an_error_that_lists_the_others() -> None:
    with pytest.raises(InputError, match=r"no variant 'fp8'; its variants are: \(none\), fp16, no"):
        needed_files(SD_15, PARTS, Wanted(dtype=HALF, variant="fp8"))


def test_shards_come_with_their_index() -> None:
    shards = {f"{UNET}-0000{n}-of-00002.safetensors": 1 for n in (1, 2)}
    index = f"{UNET}.safetensors.index.json"
    other = {name: size for name, size in SD_21_BASE.items() if not name.startswith(UNET)}
    files = needed_files({**other, **shards, index: 1}, PARTS, Wanted(dtype=HALF))
    assert {name for name in files if name.startswith(UNET)} == {*shards, index}


@pytest.fixture
def hub(
    checkpoint: Path,
    sd_checkpoint: Path,
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[FakeHub]:
    """A hub with a tiny checkpoint among files that nobody needs, and an empty cache."""
    from huggingface_hub import constants

    copy = tmp_path / "repository"
    shutil.copytree(checkpoint, copy)
    for decoy in (
        "model.ckpt",
        "safety_checker/model.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_flax_model.msgpack",
        "unet/model.onnx",
        "unet/openvino_model.bin",
        "text_encoder/pytorch_model.bin",
    ):
        (copy / decoy).parent.mkdir(exist_ok=True)
        (copy / decoy).write_bytes(b"decoy")
    repositories = {"some/model": copy, "some/sd": sd_checkpoint, "some/adapter": adapter}
    with running(FakeHub(repositories)) as served:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # the fake hub is local
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        resolve = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", resolve)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield served


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    own = [r.getMessage() for r in caplog.records if r.name.startswith("freemask")]
    caplog.clear()
    return own


def test_it_is_downloaded_once_and_announced(
    hub: FakeHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    editor = load_editor("zeroscope", checkpoint="some/model", device="cpu")
    assert editor.checkpoint == "some/model"
    sent = {name.removeprefix("some/model/") for name in hub.downloads}
    assert {name for name in sent if name.endswith((".safetensors", ".bin", ".ckpt", ".onnx"))} == {
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
    }
    size = sum(hub.files("some/model")[name].stat().st_size for name in sent)
    [line] = lines(caplog)
    assert line == (
        f"downloading {size / 2**20:.1f} MiB of some/model from {hub.url} to {tmp_path / 'cache'}"
    )
    hub.downloads.clear()
    load_editor("zeroscope", checkpoint="some/model", device="cpu")
    assert (hub.downloads, lines(caplog)) == ([], [])


def test_a_repository_without_the_backbone_is_refused_before_a_download(
    hub: FakeHub, wan_checkpoint: Path
) -> None:
    hub.repositories["some/wan"] = wan_checkpoint
    with pytest.raises(InputError, match="checkpoint some/wan: it has no unet folder, which this"):
        load_editor("zeroscope", checkpoint="some/wan", device="cpu")
    assert hub.downloads == []
    assert native_frame("wan", "some/wan").size == (64, 64)
    assert load_editor("wan", checkpoint="some/wan", device="cpu").name == "wan"
    report = checkpoint_report("some/wan", editors=["wan"], size=(64, 64))
    assert "self        3  3 at 8x8" in report


def test_without_a_network_the_cached_copy_serves(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    online = load_editor("zeroscope", checkpoint="some/model", device="cpu")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.downloads.clear()
    offline = load_editor("zeroscope", checkpoint="some/model", device="cpu")
    assert offline.dependencies == online.dependencies
    assert hub.downloads == []
    with pytest.raises(InputError, match=r"sd is neither a folder .* \(HF_HUB_OFFLINE is set\)"):
        load_editor("text2video_zero", checkpoint="some/sd")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert load_editor("zeroscope", checkpoint="some/model", device="cpu").dependencies
    with pytest.raises(InputError, match="could not be fetched from the hub"):
        load_editor("text2video_zero", checkpoint="some/sd")


def test_a_checkpoint_that_left_the_hub_is_read_from_the_cache(hub: FakeHub) -> None:
    load_editor("zeroscope", checkpoint="some/model", device="cpu")
    del hub.repositories["some/model"]
    assert load_editor("zeroscope", checkpoint="some/model", device="cpu").notes == ()


def test_a_revision_is_downloaded_and_recorded(
    hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    editor = load_editor("zeroscope", checkpoint="some/model", revision=COMMIT, device="cpu")
    assert editor.describe()["revision"] == COMMIT
    [line] = lines(caplog)
    assert f"of some/model (revision {COMMIT}) from" in line


def test_the_native_size_downloads_configs_alone(
    hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    assert native_frame("zeroscope", "some/model").size == (32, 32)
    configs = {f"some/model/{part}/config.json" for part in ("unet", "vae", "text_encoder")}
    assert set(hub.downloads) == configs | {"some/model/model_index.json"}
    assert lines(caplog) == []


def test_a_listing_of_sites_downloads_configs_alone(hub: FakeHub) -> None:
    shown = checkpoint_report("some/model", editors=["zeroscope"], size=(32, 32))
    assert "zeroscope on" in shown
    assert all(name.endswith(".json") for name in hub.downloads)


def test_tuning_and_calibration_take_a_variant(hub: FakeHub, tmp_path: Path) -> None:
    request = TuningRequest(tmp_path / "out", "a bear", checkpoint="some/sd", variant="fp8")
    with pytest.raises(InputError, match=r"some/sd.*fp8"):
        tune(Video(np.zeros((2, 32, 32, 3), np.uint8)), request)
    measured = CalibrationRequest(tmp_path / "book.json", clips=1, frames=2, size=(32, 32), steps=2)
    wanted = EditorRequest(checkpoint="some/model", variant="fp8", device="cpu")
    module = CalibrationModule(measured, measured.sources(), wanted)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    with pytest.raises(InputError, match=r"some/model.*fp8"):
        trainer.predict(module)


def test_a_motion_adapter_is_downloaded(hub: FakeHub, sd_checkpoint: Path) -> None:
    options = {"motion_adapter": "some/adapter"}
    load_editor("animatediff", checkpoint=sd_checkpoint, device="cpu", options=options)
    assert sorted(hub.downloads) == [
        "some/adapter/config.json",
        "some/adapter/diffusion_pytorch_model.safetensors",
    ]


@pytest.mark.parametrize(
    ("failure", "revision", "said"),
    [
        (None, "nope", "some/model has no revision 'nope'"),
        ((404, "RepoNotFound"), None, "the hub has no public model of that name"),
        ((401, "RepoNotFound"), None, "log in with `hf auth login` if it is private"),
        ((403, "GatedRepo"), None, "is gated: accept its terms at http.*/some/model, then log in"),
        ((500, "Broken"), None, "could not be fetched from the hub"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(
    failure: tuple[int, str] | None, revision: str | None, said: str, hub: FakeHub
) -> None:
    if failure:
        hub.failures["some/model"] = failure
    with pytest.raises(InputError, match=said) as caught:
        load_editor("zeroscope", checkpoint="some/model", revision=revision)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a/b/c", "./a", "a//b", "not a name"])
def test_a_path_that_does_not_exist_is_no_hub_id(name: str) -> None:
    with pytest.raises(InputError, match="is neither a folder nor a hub id"):
        load_editor("zeroscope", checkpoint=name)
