"""The example: its workflow fits the nodes, means the same as its prompt, and runs."""

from __future__ import annotations

import json
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import torch

from freemask.data import sprites
from freemask.io.image_batches import images_of
from freemask.io.video import read_video
from integrations.comfyui import NODE_CLASS_MAPPINGS

FOLDER = Path(__file__).parents[3] / "integrations/comfyui"
WORKFLOW = json.loads((FOLDER / "example_workflows/bear_to_panda.json").read_text())
PROMPT = json.loads((FOLDER / "example_prompt.json").read_text())
NODES = {node["id"]: node for node in WORKFLOW["nodes"]}
OWN = [node for node in WORKFLOW["nodes"] if node["type"] in NODE_CLASS_MAPPINGS]
WIDGETS = {  # of ComfyUI's own nodes, in the order of a workflow; None is no input
    "LoadVideo": ["file", None],
    "GetVideoComponents": [],
    "PreviewImage": [],
    "PreviewAny": [],
    "CreateVideo": ["fps"],
    "SaveVideo": ["filename_prefix", "format", "codec"],
}
OUTPUTS = {
    "LoadVideo": ["VIDEO"],
    "GetVideoComponents": ["IMAGE", "AUDIO", "FLOAT"],
    "PreviewImage": [],
    "PreviewAny": [],
    "CreateVideo": ["VIDEO"],
    "SaveVideo": [],
}
STEPS = 4


def inputs_of(kind: str) -> dict[str, tuple[Any, ...]]:
    groups = NODE_CLASS_MAPPINGS[kind].INPUT_TYPES()
    return {**groups["required"], **groups["optional"]}


def widgets_of(kind: str) -> list[str | None]:
    """Returns the names of the values of a node in a workflow, in order."""
    if kind not in NODE_CLASS_MAPPINGS:
        return list(WIDGETS[kind])
    names: list[str | None] = []
    for name, (shape, *options) in inputs_of(kind).items():
        if isinstance(shape, list) or shape in ("INT", "FLOAT", "STRING", "BOOLEAN"):
            names.append(name)
            names += [None] if options[0].get("control_after_generate") else []
    return names


def prompt_of(workflow: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the inputs of each node, as ComfyUI's page makes a prompt of a workflow."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        names = widgets_of(node["type"])
        assert len(names) == len(node["widgets_values"]), node["type"]
        inputs = {n: v for n, v in zip(names, node["widgets_values"], strict=True) if n}
        linked = [entry for entry in node["inputs"] if entry["link"] is not None]
        inputs |= {entry["name"]: links[entry["link"]] for entry in linked}
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def test_the_workflow_means_the_prompt() -> None:
    given = {key: {k: node[k] for k in ("class_type", "inputs")} for key, node in PROMPT.items()}
    assert prompt_of(WORKFLOW) == given


def test_links_join_outputs_and_inputs_of_one_type() -> None:
    assert len(WORKFLOW["links"]) == WORKFLOW["last_link_id"] >= 10
    for number, source, out, target, slot, kind in WORKFLOW["links"]:
        output, entry = NODES[source]["outputs"][out], NODES[target]["inputs"][slot]
        assert number in output["links"]
        assert entry["link"] == number
        assert output["type"] == kind
        assert entry["type"] in (kind, "*")


@pytest.mark.parametrize("node", OWN, ids=lambda node: node["type"])
def test_nodes_of_the_workflow_are_as_they_are_defined(node: dict[str, Any]) -> None:
    kind = NODE_CLASS_MAPPINGS[node["type"]]
    shown = [(output["name"], output["type"]) for output in node["outputs"]]
    assert shown == list(zip(kind.RETURN_NAMES, kind.RETURN_TYPES, strict=True))
    defined = inputs_of(node["type"])
    assert all(defined[entry["name"]][0] == entry["type"] for entry in node["inputs"])
    required = {n for n, (t, *_) in kind.INPUT_TYPES()["required"].items() if n not in WIDGETS}
    given = {entry["name"] for entry in node["inputs"]} | {*widgets_of(node["type"])}
    assert required <= given


def test_every_kind_of_node_is_in_the_example() -> None:
    assert {node["type"] for node in OWN} == set(NODE_CLASS_MAPPINGS)


def test_outputs_of_other_nodes_are_those_of_comfyui() -> None:
    for node in WORKFLOW["nodes"]:
        if node["type"] in OUTPUTS:
            assert [output["type"] for output in node["outputs"]] == OUTPUTS[node["type"]]


def stand_in(kind: str, inputs: dict[str, Any]) -> tuple[Any, ...]:
    """Does what a node of ComfyUI does, as far as the example needs it."""
    if kind == "LoadVideo":
        return (read_video(FOLDER / inputs["file"]),)
    if kind == "GetVideoComponents":
        return images_of(inputs["video"]), None, inputs["video"].fps
    return tuple(inputs.values())


def execute(prompt: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Runs the nodes of a prompt, each after those that it takes something from."""
    linked = {
        key: {value[0] for value in node["inputs"].values() if isinstance(value, list)}
        for key, node in prompt.items()
    }
    results: dict[str, tuple[Any, ...]] = {}
    for key in TopologicalSorter(linked).static_order():
        kind, inputs = prompt[key]["class_type"], dict(prompt[key]["inputs"])
        for name, value in inputs.items():
            if isinstance(value, list):
                inputs[name] = results[value[0]][value[1]]
        if "steps" in inputs:
            inputs["steps"] = STEPS
        node = NODE_CLASS_MAPPINGS.get(kind)
        run = getattr(node(), node.FUNCTION) if node else None
        results[key] = run(**inputs) if run else stand_in(kind, inputs)
    return results


def test_the_prompt_runs_and_the_mask_lies_on_the_bear() -> None:
    with torch.inference_mode():  # as in ComfyUI
        results = execute(PROMPT)
    images = results["2"][0]
    mask, heat, preview, _ = results["4"]
    edited, used, report = results["6"]
    assert images.shape == edited.shape == preview.shape == (8, 64, 64, 3)
    assert mask.shape == heat.shape == used.shape == (8, 64, 64)
    scene = sprites.sample_scene(
        5, "heldout", frames=8, size=(64, 64), object="bear", colour=None, ground="grass",
        motion="left", style=None,
    )  # fmt: skip
    truth = torch.from_numpy(scene.render().mask) >= 0.5
    found = mask >= 0.5
    assert (found & truth).sum() / (found | truth).sum() > 0.7
    far = torch.nn.functional.max_pool2d(used, 15, stride=1, padding=7) == 0
    torch.testing.assert_close(edited[far], images[far], rtol=0, atol=0)
    assert (edited - images)[found].abs().mean() > 0.1
    assert results["8"][0].shape[0] == 1
    assert report.startswith("task shape: 'bear' becomes 'panda'")


def test_the_registry_finds_what_it_asks_for() -> None:
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())
    own = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text())["project"]
    assert project["project"]["version"] == own["version"]
    assert project["project"]["requires-python"] == own["requires-python"]
    assert project["project"]["dependencies"] == [own["name"]]
    assert set(project["tool"]["comfy"]) == {"PublisherId", "DisplayName", "requires-comfyui"}
