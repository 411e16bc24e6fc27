"""Runs the example prompt in ComfyUI itself: its loader, its checks, its executor and its caches.

    python in_comfyui.py COMFYUI NODES PROMPT CLIP WORK

Writes what happened to WORK/report.json. It runs in a process of its own, which imports ComfyUI's
modules.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import shutil
import sys
import weakref
from pathlib import Path
from typing import Any

EXTRAS = ("nodes_video", "nodes_preview_any")
STEPS = 2


class Server:
    """Takes the messages that ComfyUI sends to a browser."""

    def __init__(self) -> None:
        self.client_id: str | None = "test"
        self.last_node_id: str | None = None
        self.messages: list[tuple[str, Any]] = []

    def send_sync(self, event: Any, data: Any, sid: str | None = None) -> None:
        self.messages.append((str(event), data))


def run(executor: Any, prompt: dict[str, Any]) -> dict[str, Any]:
    """Returns the messages about a prompt that is run, by event, and what its nodes show."""
    outputs = [key for key, node in prompt.items() if node["class_type"].startswith("Preview")]
    outputs += [key for key, node in prompt.items() if node["class_type"] == "SaveVideo"]
    extra = {"client_id": "test"}
    executor.execute(copy.deepcopy(prompt), "prompt", extra_data=extra, execute_outputs=outputs)
    events = dict(executor.status_messages)
    return {
        "events": list(events),
        "cached": sorted(events["execution_cached"]["nodes"], key=int),
        "error": events.get("execution_error", {}).get("exception_message", ""),
        "shown": executor.history_result["outputs"],
    }


def freed_by_reset(executor: Any) -> bool:
    """Returns whether an editor is gone after ComfyUI has cleared its caches."""
    outputs = [entry for entry in executor.caches.outputs.cache.values() if entry]
    held = [x for entry in outputs for x in gc.get_referents(*entry) if hasattr(x, "keep_loaded")]
    editors = [weakref.ref(handle) for handle in held]
    del outputs, held
    executor.reset()
    gc.collect()
    return bool(editors) and not any(editor() for editor in editors)


def main(comfyui: str, nodes_folder: str, prompt_file: str, clip: str, work: str) -> None:
    sys.path.insert(0, comfyui)
    sys.argv = ["main.py", "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.utils
    import execution
    import folder_paths
    import nodes

    for name in ("input", "output", "temp"):
        (Path(work) / name).mkdir()
        getattr(folder_paths, f"set_{name}_directory")(str(Path(work) / name))
    shutil.copy(clip, Path(work) / "input")
    files = [(nodes_folder, "custom_nodes")]
    files += [(f"{comfyui}/comfy_extras/{name}.py", "comfy_extras") for name in EXTRAS]
    loaded = [asyncio.run(nodes.load_custom_node(a, module_parent=b)) for a, b in files]
    prompt = json.loads(Path(prompt_file).read_text())
    for node in prompt.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = STEPS
    valid, problem, _, node_errors = asyncio.run(
        execution.validate_prompt("prompt", copy.deepcopy(prompt), None)
    )
    bar: list[tuple[int, int]] = []
    comfy.utils.set_progress_bar_global_hook(
        lambda done, total, *_, **__: bar.append((done, total))
    )
    executor = execution.PromptExecutor(Server())
    report: dict[str, Any] = {"loaded": loaded, "valid": valid, "problem": [problem, node_errors]}
    report["first"], report["bar"] = run(executor, prompt), bar[:]
    report["again"] = run(executor, prompt)
    prompt["6"]["inputs"]["seed"] = 1
    comfy.utils.set_progress_bar_global_hook(lambda *_, **__: nodes.interrupt_processing())
    report["interrupted"] = run(executor, prompt)
    comfy.utils.set_progress_bar_global_hook(None)
    prompt["6"]["inputs"]["words"] = "whale:panda"
    report["wrong"] = run(executor, prompt)
    report["freed"] = freed_by_reset(executor)
    report["files"] = sorted(path.suffix for path in Path(work).rglob("*") if path.is_file())
    (Path(work) / "report.json").write_text(json.dumps(report, default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
