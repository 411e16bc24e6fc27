"""`auto` uses a Triton kernel after it has agreed with the reference, and torch if it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from freemask.kernels import dispatch, self_check, verdict_files, verify
from freemask.kernels.dev.interpreter import interpreted
from freemask.kernels.dev.testing import Sample, Shape, blend_case
from freemask.kernels.triton import attend, blended
from freemask.kernels.triton import word as word_room

ALL_LENGTHS = self_check.LENGTHS
SMALL = Shape(batch=1, heads=1, queries=20, keys=20, source_keys=20, dim=16)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of verdicts. The CPU plays the GPU: `auto` is Triton there, interpreted."""
    monkeypatch.setenv("FREEMASK_CACHE", str(tmp_path))
    monkeypatch.setattr(dispatch, "AUTO_DEVICES", ("cuda", "cpu"))
    monkeypatch.setattr(self_check, "LENGTHS", ((8, 8),))  # the shortest sample, to save time
    verify.forget()
    with interpreted(verified=True):
        yield tmp_path / "kernels"
    verify.forget()


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of queries of every launch of the blended kernel."""
    seen: list[int] = []
    original = blended.launch
    monkeypatch.setattr(
        blended, "launch", lambda call: seen.append(call.q.shape[2]) or original(call)
    )
    return seen


def small(dtype: torch.dtype = torch.float32) -> Sample:
    return blend_case(SMALL, dtype)


def break_blended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the results of the kernel too large by 5%."""
    original = blended.launch
    monkeypatch.setattr(blended, "launch", lambda call: original(call) * 1.05)


def break_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the inner loop of both kernels, so that its sum of weights is too large."""
    import triton

    def faulty(*arguments):  # type: ignore[no-untyped-def]
        acc0, acc1, total, looked = original(*arguments)
        return acc0, acc1, total + total, looked

    original = attend.attend
    wrong = triton.jit(faulty)
    for room in (blended, word_room):
        monkeypatch.setattr(room, "attend", wrong)


def fail_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(call: object) -> None:
        raise RuntimeError("failed to find a C compiler\nset CC")

    monkeypatch.setattr(blended, "launch", launch)


def test_a_right_kernel_is_verified_once_and_runs(launches: list[int], folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = small().run("auto")
        verified = len(launches)
        assert verified == len(self_check.LENGTHS) + 1
        assert torch.equal(small().run("auto"), first)
    assert launches[verified:] == [20]
    assert torch.equal(first, small().run("triton"))
    (kept,) = folder.glob("*.json")
    found = json.loads(kept.read_text())
    assert found["reason"] is None
    assert found["of"]["dim"] == 16
    assert found["of"]["dtype"] == "torch.float32"
    assert found["of"]["torch"].startswith(torch.__version__)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kernel", self_check.CHECKS)
def test_all_samples_of_a_right_kernel_agree(monkeypatch, kernel: str, dtype: torch.dtype) -> None:
    monkeypatch.setattr(self_check, "LENGTHS", ALL_LENGTHS)
    assert self_check.CHECKS[kernel](torch.device("cpu"), dtype, 24) is None


def test_every_dtype_and_head_dimension_is_verified_by_itself(folder: Path) -> None:
    small().run("auto")
    small(torch.float16).run("auto")
    blend_case(Shape(batch=1, heads=1, queries=20, keys=20, source_keys=20, dim=24)).run("auto")
    kept = [json.loads(path.read_text())["of"] for path in folder.glob("*.json")]
    assert sorted((one["dtype"], one["dim"]) for one in kept) == [
        ("torch.float16", 16),
        ("torch.float32", 16),
        ("torch.float32", 24),
    ]


def test_a_wrong_result_warns_once_and_runs_on_torch(monkeypatch, launches) -> None:
    break_blended(monkeypatch)
    says = r"Triton kernel of blended .* head dimension 16, on cpu: error \S+ exceeds the budget"
    with pytest.warns(RuntimeWarning, match=says) as caught:
        found = small().run("auto")
    assert len(caught) == 1
    assert torch.equal(found, small().run("torch"))
    verified = len(launches)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(small().run("auto"), found)
    assert len(launches) == verified  # the kernel is not tried again


def test_a_broken_inner_loop_fails_both_kernels(monkeypatch) -> None:
    break_softmax(monkeypatch)
    case = small()
    with pytest.warns(RuntimeWarning, match="kernel of blended attention fails"):
        assert torch.equal(case.run("auto"), case.run("torch"))
    tensors, weights = (case.q, case.k, case.v), torch.ones(20)
    from freemask.kernels import word_attention

    with pytest.warns(RuntimeWarning, match="kernel of word attention fails"):
        out, _ = word_attention(*tensors, word_weights=weights)
    expected, _ = word_attention(*tensors, word_weights=weights, backend="torch")
    assert torch.equal(out, expected)


def test_an_explicit_backend_raises_with_the_reason(monkeypatch) -> None:
    break_blended(monkeypatch)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"'triton' fails on cpu, .* exceeds the budget"):
            small().run("triton")
    with pytest.warns(
        RuntimeWarning, match="fails"
    ):  # the error before has not used up the warning
        small().run("auto")


def test_a_compile_error_is_reported_and_tried_again_by_the_next_process(
    monkeypatch, folder: Path
) -> None:
    with monkeypatch.context() as patch:
        fail_to_compile(patch)
        with pytest.warns(RuntimeWarning, match="RuntimeError: failed to find a C compiler. PyTor"):
            assert torch.equal(small().run("auto"), small().run("torch"))
    assert list(folder.glob("*")) == []
    verify.forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small().run("auto")


def test_a_verdict_on_disk_saves_the_check(launches: list[int]) -> None:
    small().run("auto")
    launches.clear()
    verify.forget()
    started = time.perf_counter()
    assert verify.trusts("blended", small().q)
    assert time.perf_counter() - started < 0.05
    assert launches == []


def test_a_wrong_result_on_disk_is_told_again(monkeypatch, launches: list[int]) -> None:
    with monkeypatch.context() as patch:
        break_blended(patch)
        with pytest.warns(RuntimeWarning):
            small().run("auto")
    launches.clear()
    verify.forget()
    with pytest.warns(RuntimeWarning, match="exceeds the budget"):
        small().run("auto")
    assert launches == []


@pytest.mark.parametrize("changed", ["source_hash", "device_name"])
def test_another_source_or_device_is_verified_again(monkeypatch, launches, changed: str) -> None:
    small().run("auto")
    launches.clear()
    verify.forget()
    monkeypatch.setattr(verdict_files, changed, lambda *_: "another")
    small().run("auto")
    assert len(launches) == len(self_check.LENGTHS) + 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"of": {}}', "\udcff"])
def test_a_damaged_verdict_is_replaced(folder: Path, launches: list[int], content: str) -> None:
    small().run("auto")
    (kept,) = folder.glob("*.json")
    right = kept.read_text()
    kept.write_bytes(content.encode("utf-8", "surrogateescape"))
    verify.forget()
    small().run("auto")
    assert kept.read_text() == right


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FREEMASK_CACHE", str(tmp_path / "file"))
    assert verify.trusts("blended", small().q)
    assert (tmp_path / "file").read_text() == ""


def test_the_folder_is_that_of_the_user(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FREEMASK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert verdict_files.folder() == tmp_path / "freemask" / "kernels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert verdict_files.folder() == Path.home() / ".cache" / "freemask" / "kernels"


def test_threads_share_one_check(launches: list[int]) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: verify.trusts("blended", small().q), range(8)))
    assert len(launches) == len(self_check.LENGTHS)


def test_processes_share_the_folder(folder: Path) -> None:
    code = """
import torch
from freemask.kernels import dispatch, self_check
from freemask.kernels.dev.interpreter import interpreted
from freemask.kernels.dev.testing import Shape, blend_case
dispatch.AUTO_DEVICES = ("cpu",)
self_check.LENGTHS = ((8, 8),)
with interpreted(verified=True):
    blend_case(Shape(batch=1, heads=1, queries=20, keys=20, source_keys=20, dim=16)).run("auto")
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    several = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", code], env=environment)
        for _ in range(2)
    ]
    assert [process.wait() for process in several] == [0, 0]
    (kept,) = folder.iterdir()
    assert json.loads(kept.read_text())["reason"] is None


def test_the_random_state_stays() -> None:
    before = torch.random.get_rng_state()
    verify.trusts("word", small().q)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_running_out_of_memory_is_no_verdict(monkeypatch, folder: Path) -> None:
    def launch(call: object) -> None:
        raise torch.OutOfMemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(blended, "launch", launch)
        with pytest.raises(torch.OutOfMemoryError):
            verify.trusts("blended", small().q)
    assert verify.trusts("blended", small().q)


def test_a_compiled_call_is_verified_when_it_runs(monkeypatch) -> None:
    break_blended(monkeypatch)
    case = small()

    def call(q: torch.Tensor) -> torch.Tensor:
        from freemask.kernels import blended_attention

        sources = {"q_source": case.q_source, "k_source": case.k_source, "mask": case.mask}
        return blended_attention(q, case.k, case.v, **sources)

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    with pytest.warns(RuntimeWarning, match="fails"):
        found = compiled(case.q)
    assert torch.equal(found, call(case.q))
    assert len(verify._verdicts) == 1
