"""Teachers by name: which models serve, what is downloaded, and that they are freed."""

from __future__ import annotations

import re
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from fake_hub import FakeHub, running
from safetensors.torch import load_file, save_file

from freemask.segmentation.registry import loaded_teacher, teacher_class, teacher_name
from freemask.segmentation.sam2 import Sam2Teacher
from freemask.segmentation.sam3 import Sam3Teacher
from freemask.types import InputError


def test_the_config_says_which_teacher_it_is(
    sam2: Path, sam3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", None)  # not needed
    assert teacher_class(sam2) is Sam2Teacher
    assert teacher_class(str(sam3)) is Sam3Teacher


def test_other_models_are_refused_with_those_that_serve(checkpoint: Path, tmp_path: Path) -> None:
    known = r"these types are: sam3_video \(facebook/sam3\), sam2_video \(facebook/sam2"
    with pytest.raises(InputError, match=rf"has no config.json.*{known}"):
        teacher_class(checkpoint)
    with pytest.raises(InputError, match=rf"of type 'clip_text_model', .*{known}"):
        teacher_class(checkpoint / "text_encoder")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        teacher_class(tmp_path)
    with pytest.raises(InputError, match="neither a folder nor a hub id"):
        teacher_class("./nowhere")


def test_an_old_transformers_is_named_with_the_version_that_is_needed(
    sam3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Old:
        __version__ = "4.57.1"

    monkeypatch.setitem(__import__("sys").modules, "transformers", Old())  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"SAM 3 needs transformers 5.0 or newer, .* 4\.57\.1"):
        teacher_class(sam3)


def test_the_weights_are_freed_even_if_the_teacher_is_still_held(sam2: Path) -> None:
    with loaded_teacher(sam2, "cpu") as teacher:
        model = weakref.ref(teacher.model)
        assert model() is not None
        assert not any(values.requires_grad for values in teacher.model.parameters())
    assert model() is None
    assert teacher.name == sam2.name


def test_a_lack_of_memory_is_one_sentence_and_frees_the_weights(sam2: Path) -> None:
    with (
        pytest.raises(InputError, match=r"memory of cpu ran out with teacher .*, or give --device"),
        loaded_teacher(sam2, "cpu") as teacher,
    ):
        raise torch.OutOfMemoryError
    assert not hasattr(teacher, "model")


def _damage(folder: Path, change: Any) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_model_with_missing_or_pickled_weights_is_refused(sam2: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(sam2, tmp_path / "copy")
    _damage(copy, lambda weights: weights.pop("no_memory_embedding"))
    with (
        pytest.raises(
            InputError, match=r"lacks 1 of its weights, the first .* no_memory_embedding"
        ),
        loaded_teacher(copy, "cpu"),
    ):
        pass
    (copy / "model.safetensors").write_bytes(b"not a file of weights")
    with pytest.raises(InputError, match="cannot be loaded from"), loaded_teacher(copy, "cpu"):
        pass
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(InputError, match="no safetensors"), loaded_teacher(copy, "cpu"):
        pass


def test_a_teacher_of_the_hub_is_downloaded_after_its_config(
    sam3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # the fake hub is local
    repository = shutil.copytree(sam3, tmp_path / "repository")
    (repository / "sam3.pt").write_bytes(b"pickled")
    with running(FakeHub({"meta/sam": repository})) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        assert teacher_class("meta/sam") is Sam3Teacher
        assert hub.downloads == ["meta/sam/config.json"]
        with loaded_teacher("meta/sam", "cpu") as teacher:
            assert teacher.name == "meta/sam"
    names = {re.sub("^meta/sam/", "", name) for name in hub.downloads}
    assert {"model.safetensors", "tokenizer.json"} <= names
    assert "sam3.pt" not in names


def test_a_teacher_is_called_by_its_hub_id_or_by_its_folder(tmp_path: Path) -> None:
    assert teacher_name("facebook/sam3") == "facebook/sam3"
    assert teacher_name(tmp_path) == tmp_path.name
