"""Stored features equal the replayed source, and lie in host memory or on disk."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from attention.test_fusion import FRAMES, STEPS, edited, make_call, make_fusion
from torch import Tensor

from freemask.attention.features import CudaTransfer, Features, FeatureStore, HostTransfer
from freemask.types import InputError


@pytest.mark.parametrize("on_disk", [False, True])
def test_stored_features_serve_as_the_replayed_source(on_disk: bool, tmp_path: Path) -> None:
    store = FeatureStore(lambda *_: True, folder=tmp_path if on_disk else None)
    calls = {entry: make_call("self", 3, seed=10 * entry) for entry in range(STEPS)}
    for entry, call in calls.items():
        store.at(entry)
        store.capture(call.rows(0, FRAMES))
    store.flush()
    assert bool(list(tmp_path.rglob("*.safetensors"))) == on_disk
    stored, replayed = make_fusion(store=store), make_fusion()
    for step in (0, 3, 1):
        call = calls[STEPS - 1 - step]
        stored.at(step)
        replayed.at(step)
        found = edited(stored, call.rows(FRAMES, None))
        torch.testing.assert_close(found, edited(replayed, call), rtol=0, atol=0)


def test_the_store_keeps_what_is_wanted_and_leaves_nothing_behind(tmp_path: Path) -> None:
    store = FeatureStore(
        lambda site, entry: site.kind == "self" and entry == 1, folder=tmp_path / "new"
    )
    for entry in range(2):
        store.at(entry)
        for kind in ("self", "cross"):
            store.capture(make_call(kind, 1))  # type: ignore[arg-type]
    store.flush()
    assert store.open(0) == {}
    assert set(store.open(1)) == {"blocks.self.q", "blocks.self.k"}
    del store
    gc.collect()
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_that_cannot_hold_features_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="store_folder"):
        FeatureStore(lambda *_: True, folder=tmp_path / "file" / "folder")


class SpyTransfer(HostTransfer):
    """A device whose tensors carry a mark, so that a test sees where each one lies."""

    def __init__(self) -> None:
        self.on_host: list[Tensor] = []
        self.fetched: list[Tensor] = []
        self.events: list[str] = []

    def to_host(self, x: Tensor) -> Tensor:
        self.on_host.append(x.clone())
        return self.on_host[-1]

    def to_device(self, x: Tensor) -> Tensor:
        self.events.append("fetch")
        self.fetched.append(x.clone())
        return self.fetched[-1]

    def finish(self) -> None:
        self.events.append("finish")

    def arrive(self, features: Features) -> None:
        self.events.append(f"arrive {len(features)}")


def is_one_of(x: Tensor, others: list[Tensor]) -> bool:
    return any(x is other for other in others)


def test_features_lie_in_host_memory_and_are_fetched_one_step_ahead() -> None:
    spy = SpyTransfer()
    store = FeatureStore(lambda *_: True, transfer=spy)
    for entry in range(STEPS):
        store.at(entry)
        store.capture(make_call("self", 1, seed=entry))
    kept = [x for features in store._entries.values() for x in features.values()]
    assert len(kept) == 2 * STEPS
    assert all(is_one_of(x, spy.on_host) for x in kept)
    assert store.nbytes == sum(x.nbytes for x in spy.on_host)

    last = store.open(STEPS - 1)
    assert spy.events == ["fetch", "fetch", "arrive 2", "fetch", "fetch"]
    assert all(is_one_of(x, spy.fetched) for x in last.values())
    for entry in range(STEPS - 2, -1, -1):  # each was fetched while the step before it ran
        before = len(spy.fetched)
        found = store.open(entry)
        assert all(is_one_of(x, spy.fetched[:before]) for x in found.values())
        assert torch.equal(found["blocks.self.q"], make_call("self", 1, seed=entry).q)
    assert len(spy.fetched) == 2 * STEPS


def test_features_are_written_to_disk_after_their_copies_have_ended(tmp_path: Path) -> None:
    spy = SpyTransfer()
    store = FeatureStore(lambda *_: True, transfer=spy, folder=tmp_path)
    store.at(0)
    store.capture(make_call("self", 1))
    store.flush()
    assert spy.events == ["finish"]
    assert store.nbytes == 0


def test_a_gpu_copies_into_pinned_memory_without_blocking(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's calls are replaced; the copy itself runs on the CPU."""
    asked: list[dict[str, Any]] = []

    class Stream:
        def __init__(self, *_: object) -> None:
            self.waited = 0

        def wait_stream(self, other: object) -> None:
            self.waited += 1

        def __enter__(self) -> Stream:
            return self

        def __exit__(self, *_: object) -> None: ...

    def empty_like(x: Tensor, **options: Any) -> Tensor:
        asked.append(options)
        return torch.empty(x.shape, dtype=x.dtype)

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: Stream())
    monkeypatch.setattr(torch, "empty_like", empty_like)
    monkeypatch.setattr(Tensor, "record_stream", lambda self, stream: None)
    transfer = CudaTransfer(torch.device("cuda"))
    x = torch.arange(6.0)
    assert torch.equal(transfer.to_host(x), x)
    assert asked == [{"device": "cpu", "pin_memory": True}]
    assert transfer.stream.waited == 1  # type: ignore[attr-defined]
