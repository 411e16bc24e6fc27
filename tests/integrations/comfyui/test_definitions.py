"""What the nodes say of themselves: types, ranges, defaults, tooltips."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

import pytest

from integrations.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

FOLDER = Path(__file__).parents[3] / "integrations/comfyui"
NODES = pytest.mark.parametrize("node", NODE_CLASS_MAPPINGS.values(), ids=NODE_CLASS_MAPPINGS)
TYPES = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}
SOCKETS = ("IMAGE", "MASK", "FREEMASK_EDITOR")


def inputs_of(node: Any) -> dict[str, tuple[Any, ...]]:
    groups = node.INPUT_TYPES()
    return {**groups["required"], **groups.get("optional", {})}


def test_the_folder_is_loaded_by_its_path_under_any_name() -> None:
    name = "/anywhere/custom_nodes/freemask"
    spec = importlib.util.spec_from_file_location(name, FOLDER / "__init__.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        assert list(module.NODE_CLASS_MAPPINGS) == list(NODE_CLASS_MAPPINGS)
        assert module.NODE_CLASS_MAPPINGS["FreeMaskEditVideo"].__module__.startswith(name)
    finally:
        for loaded in [one for one in sys.modules if one.startswith(name)]:
            del sys.modules[loaded]


def test_there_are_four_nodes_and_each_has_a_name() -> None:
    assert list(NODE_DISPLAY_NAME_MAPPINGS) == list(NODE_CLASS_MAPPINGS)
    assert [name.removesuffix(" (FreeMask)") for name in NODE_DISPLAY_NAME_MAPPINGS.values()] == [
        "Load editor", "Word mask", "Edit video", "Mask sheet"
    ]  # fmt: skip


@NODES
def test_every_input_is_explained_and_its_default_is_allowed(node: Any) -> None:
    for name, (kind, *rest) in inputs_of(node).items():
        options = rest[0]
        assert options["tooltip"].endswith((".", "0.4", "grass", "bear")), name
        if kind in SOCKETS:
            continue
        default = options["default"]
        if isinstance(kind, list):
            assert default in kind, name
            continue
        assert type(default) is TYPES[kind], name
        if kind in ("INT", "FLOAT"):
            assert options["min"] <= default <= options["max"], name


@NODES
def test_the_function_takes_the_inputs_and_the_outputs_have_names(node: Any) -> None:
    function = inspect.signature(getattr(node, node.FUNCTION))
    taken = {name: p for name, p in function.parameters.items() if name != "self"}
    assert list(taken) == list(inputs_of(node)) or set(taken) == set(inputs_of(node))
    optional = {name for name, p in taken.items() if p.default is not p.empty}
    assert optional == set(node.INPUT_TYPES().get("optional", {}))
    assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES) == len(node.OUTPUT_TOOLTIPS)
    assert node.DESCRIPTION
    assert node.CATEGORY == "FreeMask"


@pytest.mark.parametrize("name", ["FreeMaskWordMask", "FreeMaskEditVideo"])
def test_nodes_with_masks_say_that_1_means_edit(name: str) -> None:
    node = NODE_CLASS_MAPPINGS[name]
    outputs = dict(zip(node.RETURN_NAMES, node.OUTPUT_TOOLTIPS, strict=True))
    said = [node.DESCRIPTION, outputs["mask"]]
    said += [rest[0]["tooltip"] for kind, *rest in inputs_of(node).values() if kind == "MASK"]
    assert len(said) == 2 + (name == "FreeMaskEditVideo")
    assert all("Mask 1 (white) = edit, 0 (black) = keep" in text for text in said)


def test_a_seed_can_change_from_run_to_run() -> None:
    kind, options = inputs_of(NODE_CLASS_MAPPINGS["FreeMaskEditVideo"])["seed"]
    assert (kind, options["control_after_generate"], options["max"]) == ("INT", True, 2**64 - 1)
