"""The nodes for ComfyUI: types, shapes, polarity, and the same edit as `freemask.edit`."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from freemask.pipeline import edit
from freemask.types import EditRequest, Video

FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui"
PROMPT = "a bear on the grass"
NAIVE = "mask.policy=naive"
CORE = {  # of ComfyUI: types of inputs that are linked, and of outputs
    "LoadVideo": ({}, ["VIDEO"]),
    "GetVideoComponents": ({"video": "VIDEO"}, ["IMAGE", "AUDIO", "FLOAT"]),
    "CreateVideo": ({"images": "IMAGE", "fps": "FLOAT", "audio": "AUDIO"}, ["VIDEO"]),
    "SaveVideo": ({"video": "VIDEO"}, []),
    "PreviewImage": ({"images": "IMAGE"}, []),
}
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN")


@pytest.fixture(scope="module")
def nodes() -> Any:
    """The package as ComfyUI loads it: by the path of its folder, under a name of its own."""
    name = "custom_nodes_freemask"
    spec = importlib.util.spec_from_file_location(name, FOLDER / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def images() -> torch.Tensor:
    frames = np.random.default_rng(0).integers(0, 255, (3, 32, 48, 3), dtype=np.uint8)
    return torch.from_numpy(frames).float() / 255


@pytest.fixture
def loaded(nodes: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A tiny editor whose native frame is 32x48."""
    from freemask.editors.native_size import NativeFrame
    from freemask.editors.request import EditorRequest

    monkeypatch.setattr(EditorRequest, "native_frame", lambda self: NativeFrame((32, 48), 8))
    node = nodes.NODE_CLASS_MAPPINGS["FreeMaskLoadEditor"]()
    (editor,) = node.load(
        editor="zeroscope", checkpoint=str(checkpoint), dtype="float32", device="cpu"
    )
    return editor


def run(nodes: Any, name: str, **inputs: Any) -> tuple[Any, ...]:
    kind = nodes.NODE_CLASS_MAPPINGS[f"FreeMask{name}"]
    return getattr(kind(), kind.FUNCTION)(**inputs)


def edit_inputs(**more: Any) -> dict[str, Any]:
    return {
        "source": PROMPT, "target": "a panda on the grass", "task": "auto", "steps": 2,
        "guidance": 7.5, "seed": 3, "overrides": NAIVE,
    } | more  # fmt: skip


def test_every_node_has_what_comfyui_reads(nodes: Any) -> None:
    assert set(nodes.NODE_CLASS_MAPPINGS) == set(nodes.NODE_DISPLAY_NAME_MAPPINGS)
    for kind in nodes.NODE_CLASS_MAPPINGS.values():
        assert callable(getattr(kind, kind.FUNCTION))
        assert kind.CATEGORY == "FreeMask"
        assert kind.DESCRIPTION
        assert len(kind.RETURN_TYPES) == len(kind.RETURN_NAMES)
        for given in kind.INPUT_TYPES().values():
            for name, (what, *options) in given.items():
                assert isinstance(what, list) or what.isupper(), name
                assert what == "FREEMASK_EDITOR" or options[0].get("tooltip") or name == "editor"
        if "MASK" in kind.RETURN_TYPES:
            assert "1 (white) = edit" in kind.DESCRIPTION


def test_an_edit_is_that_of_the_library(nodes: Any, loaded: Any, images: torch.Tensor) -> None:
    out, mask, report = run(nodes, "EditVideo", editor=loaded, images=images, **edit_inputs())
    request = EditRequest(
        PROMPT, "a panda on the grass", steps=2, seed=3, overrides={"mask.policy": "naive"}
    )
    expected = edit(loaded.editor, Video((images * 255).round().byte().numpy()), request)
    assert torch.equal((out * 255).round().byte(), torch.from_numpy(expected.video.frames))
    assert torch.equal(mask, expected.masks.values[-1])
    assert (out.dtype, tuple(out.shape)) == (torch.float32, (3, 32, 48, 3))
    assert "task shape: 'bear' becomes 'panda'" in report


@pytest.mark.parametrize("entries", [1, 3])
def test_a_mask_of_ones_edits_and_one_of_zeros_keeps(
    nodes: Any, loaded: Any, images: torch.Tensor, entries: int
) -> None:
    for value in (0.0, 1.0):
        mask = torch.full((entries, 16, 24), value)
        out, used, _ = run(
            nodes, "EditVideo", editor=loaded, images=images, mask=mask, **edit_inputs()
        )
        assert torch.equal(used, torch.full((3, 32, 48), value))
        same = (out - images).abs().max() < 1 / 255
        assert bool(same) == (value == 0)


def test_other_sizes_come_back_and_pixels_outside_stay(nodes: Any, loaded: Any) -> None:
    large = torch.rand(2, 70, 100, 3)
    mask = torch.zeros(1, 70, 100)
    mask[:, 20:40, 30:60] = 1
    out, used, _ = run(nodes, "EditVideo", editor=loaded, images=large, mask=mask, **edit_inputs())
    assert out.shape == large.shape
    assert used.shape == (2, 70, 100)
    far = torch.ones(70, 100, dtype=torch.bool)
    far[10:50, 20:70] = False
    assert (out - large).abs()[:, far].max() <= 0.5 / 255 + 1e-6
    assert (out - large).abs()[:, 25:35, 40:50].max() > 0.02


def test_a_word_gives_a_mask_and_a_sheet(nodes: Any, loaded: Any, images: torch.Tensor) -> None:
    given = {
        "editor": loaded, "images": images, "prompt": PROMPT, "word": "bear", "steps": 3,
        "overrides": NAIVE,
    }  # fmt: skip
    mask, shown = run(nodes, "WordMask", **given)
    assert (mask.shape, set(mask.unique().tolist())) == ((3, 32, 48), {0.0, 1.0})
    assert shown.shape == images.shape
    (sheet,) = run(nodes, "MaskSheet", **given)
    assert (sheet.ndim, sheet.shape[0], sheet.shape[-1]) == (4, 1, 3)
    assert 0 <= sheet.min() < sheet.max() <= 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"target": PROMPT}, "freemask: .*nothing"),
        ({"overrides": "mask.policy=none_such"}, "freemask: mask.policy is 'none_such'"),
        ({"mask": torch.zeros(2, 8, 8)}, "freemask: the mask has 2 frames and the clip 3"),
        ({"images": torch.zeros(0, 32, 48, 3)}, "freemask: images are"),
        ({"words": "a:b:c"}, "freemask: "),
    ],
)
def test_errors_are_one_sentence(
    nodes: Any, loaded: Any, images: torch.Tensor, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(RuntimeError, match=says):
        run(nodes, "EditVideo", **{"editor": loaded, "images": images} | edit_inputs(**changes))


def test_comfyui_shows_progress_and_interrupts(
    nodes: Any, loaded: Any, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Exception):
        pass

    seen: list[tuple[int, int]] = []

    class ProgressBar:
        def __init__(self, total: int) -> None:
            self.total = total

        def update_absolute(self, done: int, total: int) -> None:
            seen.append((done, total))

    def interrupt() -> None:
        if len(seen) == 3:
            raise Interrupted

    comfy, utils, management = (
        ModuleType(f"comfy{part}") for part in ("", ".utils", ".model_management")
    )
    utils.ProgressBar = ProgressBar  # type: ignore[attr-defined]
    management.throw_exception_if_processing_interrupted = interrupt  # type: ignore[attr-defined]
    management.get_torch_device = lambda: torch.device("cpu")  # type: ignore[attr-defined]
    for module in (comfy, utils, management):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(Interrupted):
        run(nodes, "EditVideo", editor=loaded, images=images, **edit_inputs())
    assert len(seen) == 3
    assert sys.modules["custom_nodes_freemask.nodes"].device_of("auto") == "cpu"


def described(nodes: Any, kind: str) -> tuple[dict[str, str], list[str], list[str]]:
    """Returns the linked inputs with their types, the widgets, and the types of the outputs."""
    if kind in CORE:
        return CORE[kind][0], [], CORE[kind][1]
    node = nodes.NODE_CLASS_MAPPINGS[kind]
    given = node.INPUT_TYPES()
    inputs = {**given["required"], **given.get("optional", {})}
    is_widget = {n: isinstance(v[0], list) or v[0] in WIDGETS for n, v in inputs.items()}
    slots = {n: v[0] for n, v in inputs.items() if not is_widget[n]}
    return slots, [n for n in inputs if is_widget[n]], list(node.RETURN_TYPES)


def test_the_example_workflow_fits_the_nodes(nodes: Any) -> None:
    flow = json.loads((FOLDER / "example_workflow.json").read_text())
    by_id = {node["id"]: node for node in flow["nodes"]}
    for node in flow["nodes"]:
        slots, widgets, outputs = described(nodes, node["type"])
        assert {i["name"]: i["type"] for i in node["inputs"]} == slots
        assert [o["type"] for o in node["outputs"]] == outputs
        if node["type"] not in CORE:
            assert len(node["widgets_values"]) == len(widgets) + ("seed" in widgets)
    for number, origin, output, target, place, kind in flow["links"]:
        assert by_id[origin]["outputs"][output]["type"] == kind
        assert number in by_id[origin]["outputs"][output]["links"]
        slot = by_id[target]["inputs"][place]
        assert (slot["type"], slot["link"]) == (kind, number)


def test_the_example_prompt_runs(nodes: Any, loaded: Any, images: torch.Tensor) -> None:
    """Node by node in the order of their links, with ComfyUI's own nodes replaced."""
    prompt = json.loads((FOLDER / "example_prompt.json").read_text())
    done: dict[str, tuple[Any, ...]] = {}
    while len(done) < len(prompt):
        for number, node in prompt.items():
            links = [v for v in node["inputs"].values() if isinstance(v, list)]
            if number in done or any(link[0] not in done for link in links):
                continue
            inputs = {
                name: done[v[0]][v[1]] if isinstance(v, list) else v
                for name, v in node["inputs"].items()
            }
            kind = node["class_type"]
            if kind == "GetVideoComponents":
                done[number] = (images, None, 8.0)
            elif kind == "FreeMaskLoadEditor":
                done[number] = (loaded,)
            elif kind in CORE:
                done[number] = tuple(None for _ in CORE[kind][1])
            else:
                inputs |= {"steps": 2, "overrides": NAIVE}
                done[number] = run(nodes, kind.removeprefix("FreeMask"), **inputs)
    kinds = {node["class_type"]: number for number, node in prompt.items()}
    out, mask, _ = done[kinds["FreeMaskEditVideo"]]
    assert out.shape == images.shape
    assert torch.equal(mask, done[kinds["FreeMaskWordMask"]][0])
