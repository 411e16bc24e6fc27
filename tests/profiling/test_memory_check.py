"""An edit that does not fit is refused before weights are loaded, with what would fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from command_desk import Desk

from freemask.cli.commands import main
from freemask.editors.request import EditorRequest
from freemask.profiling import memory_check
from freemask.profiling.checkpoint_report import BACKBONES
from freemask.profiling.memory_check import RESERVE, Clip, check_memory, least_bytes
from freemask.types import EditRequest, InputError

GIB = 2**30
WANTED = EditorRequest(
    editor="zeroscope", checkpoint=str(BACKBONES / "zeroscope"), device="cpu", dtype="float16"
)
CLIP = Clip(24, (320, 576))


def request(**overrides: object) -> EditRequest:
    return EditRequest(
        "a bear on the grass", "a panda on the grass", overrides=overrides, method="released"
    )


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Pretends that there is a GPU with some free memory, in GiB; returns the setter."""

    def set_free(gib: float) -> None:
        free = int(gib * GIB)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 * GIB))

    monkeypatch.setattr(
        memory_check, "runtime", lambda *_: (torch.device("cuda", 0), torch.float16)
    )
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 0)
    return set_free


def needed(clip: Clip) -> int:
    return least_bytes(WANTED.blueprint(), clip, 50, 2, on_gpu=True)


def check(clip: Clip, **overrides: object) -> None:
    check_memory(WANTED, request(**overrides), frames=clip.frames, size=clip.size)


def test_an_edit_that_fits_passes_to_the_byte(gpu) -> None:
    least = needed(CLIP)
    gpu((least + RESERVE) / GIB)
    check(CLIP)
    gpu((least + RESERVE - 1) / GIB)
    with pytest.raises(InputError, match=r"24 frames of 320x576 need about .* --force to try"):
        check(CLIP)


@pytest.mark.slow
def test_a_refusal_names_the_largest_clips_that_fit(gpu) -> None:
    free = 4.5
    gpu(free)
    with pytest.raises(InputError) as refused:
        check(CLIP)
    said = str(refused.value)
    assert f"need about {needed(CLIP) / GIB:.1f} GiB of memory on cuda:0" in said
    assert "4.0 GiB are free" in said
    frames = int(re.search(r"--frames (\d+)", said)[1])
    h, w = map(int, re.search(r"--size (\d+)x(\d+)", said).groups())
    usable = free * GIB - RESERVE
    assert needed(Clip(frames, CLIP.size)) <= usable < needed(Clip(frames + 1, CLIP.size))
    assert needed(Clip(24, (h, w))) <= usable
    assert h % 8 == w % 8 == 0
    assert w / h == pytest.approx(576 / 320, rel=0.05)
    larger = h + 8, round((h + 8) * 576 / 320 / 8) * 8
    assert needed(Clip(24, larger)) > usable
    check(Clip(frames, CLIP.size))
    check(Clip(24, (h, w)))


@pytest.mark.slow
def test_a_long_clip_is_told_the_window_that_fits(gpu) -> None:
    gpu(4.5)
    with pytest.raises(InputError, match=r"24 frames of 320x576 need.* give window\.frames=\d+ or"):
        check_memory(WANTED, request(), frames=500, size=(320, 576))
    check_memory(WANTED, request(**{"window.frames": 8}), frames=500, size=(320, 576))


@pytest.mark.slow
def test_weights_that_do_not_fit_leave_no_smaller_clip(gpu) -> None:
    gpu(2.0)
    with pytest.raises(InputError, match="nothing smaller would fit: take a smaller checkpoint"):
        check(CLIP)


def test_memory_that_the_allocator_holds_counts_as_free(gpu, monkeypatch) -> None:
    gpu(0.5)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 40 * GIB)
    check(CLIP)


@pytest.mark.slow
def test_the_host_counts_on_a_cpu(monkeypatch) -> None:
    monkeypatch.setattr(memory_check, "available_host_bytes", lambda: 4 * GIB)
    with pytest.raises(InputError, match=r"need about \S+ GiB of memory on cpu, and 3\.5 GiB"):
        check(CLIP)


def test_stored_features_must_fit_in_host_memory(gpu, monkeypatch, tmp_path: Path) -> None:
    gpu(70)
    monkeypatch.setattr(memory_check, "available_host_bytes", lambda: 8 * GIB)
    with pytest.raises(InputError, match=r"features=store keeps about .* 8\.0 GiB are free"):
        check(CLIP, features="store")
    check(CLIP, features="store", store_folder=str(tmp_path))
    check(CLIP)


def test_the_system_says_what_is_free() -> None:
    total = memory_check.os.sysconf("SC_PHYS_PAGES") * memory_check.os.sysconf("SC_PAGE_SIZE")
    assert 0 < memory_check.available_host_bytes() <= total
    assert memory_check.free_bytes(torch.device("cpu")) <= total


@pytest.mark.parametrize("command", ["edit", "masks"])
def test_commands_refuse_before_loading_and_force_tries(
    tmp_path: Path, checkpoint: Path, monkeypatch, capsys, command: str
) -> None:
    desk = Desk(tmp_path, checkpoint)
    if command == "edit":
        arguments = desk.edit(size="32x48")
    else:
        clip = ["--frames=4", "--size=32x48", "--steps=2", f"--checkpoint={checkpoint}"]
        words = ["--source=a bear on the grass", "--words=bear", "mask.policy=naive"]
        video = f"--video={tmp_path / 'clip.mp4'}"
        arguments = ["masks", video, f"--out={tmp_path / 'out'}", *clip, *words]
    monkeypatch.setattr(memory_check, "free_bytes", lambda device: RESERVE + 1000)
    with monkeypatch.context() as patch:
        patch.setattr(EditorRequest, "load_editor", lambda self: pytest.fail("weights were read"))
        assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "4 frames of 32x48 need about 0.0 GiB of memory on cpu" in said
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--force"]) == 0
    assert (tmp_path / "out").is_dir()
