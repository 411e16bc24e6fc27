"""Measures FiVE-Acc and motion fidelity of finished edits with FiVE-Bench's own code.

freemask evaluate --benchmark five --data DIR --editor wan --hook "FIVE_PYTHON tools/five_hook.py
    {edits} {figures} --five CLONE --cotracker CLONE/scaled_offline.pth"

It runs in the environment of FiVE-Bench (FIVE_PYTHON), which has Qwen2.5-VL's and CoTracker3's
packages and a GPU; it imports `evaluation/metrics_calculator.py` of a clone of its repository, and
nothing of freemask. `freemask.evaluation.hooks` describes the two files.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

STRIDE = 8  # between the masks that its evaluation reads
QUESTIONS = ("source_yes_no_question", "target_yes_no_question", "multiple_choice_question")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures all edits and writes the figures; returns the exit code."""
    options = _parse(arguments)
    sys.path.insert(0, str(options.five / "evaluation"))
    import metrics_calculator as five  # type: ignore[import-not-found]

    edits = json.loads(options.edits.read_text(encoding="utf-8"))
    judge = tracker = None
    if any(edit.get(QUESTIONS[1]) and edit.get(QUESTIONS[2]) for edit in edits):
        judge = five.FiVEAcc_Qwen_VL(num_frames=options.frames, model_id=options.model)
    if options.cotracker:
        tracker = five.MotionFidelityScore(cotracker_model_path=str(options.cotracker))
    figures = {edit["key"]: {**_answers(judge, edit), **_motion(tracker, edit)} for edit in edits}
    options.figures.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return 0


def _answers(judge: Any, edit: Mapping[str, Any]) -> dict[str, int | None]:
    """Returns whether the questions of an edit are answered right; nothing if it has none."""
    source, target, choice = (edit.get(question) for question in QUESTIONS)
    if judge is None or not (target and choice):
        return {}
    yes_no, multiple = judge.get_score(source, target, choice, edit["result"])
    return {"yes_no": _number(yes_no), "multiple_choice": _number(multiple)}


def _motion(tracker: Any, edit: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns motion fidelity on the whole frame and around the object."""
    if tracker is None:
        return {}
    score = tracker.calculate_MFS
    masks = [_mask(file) for file in sorted(Path(edit["masks"]).iterdir())[::STRIDE]]
    return {
        "motion": _number(score(edit["images"], edit["result"])),
        "motion_edit": _number(score(edit["images"], edit["result"], masks)),
    }


def _mask(file: Path) -> np.ndarray:
    """Reads a mask as bool `(H, W)`, true at every level above 0."""
    return np.asarray(Image.open(file).convert("L")) > 0


def _number(value: Any) -> Any:
    """Returns a number, or None for the "nan" that FiVE-Bench returns for a failure."""
    number = float(value)
    if math.isnan(number):
        return None
    return value if isinstance(value, int) else number


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("edits", type=_path, help="JSON file of the edits")
    parser.add_argument("figures", type=_path, help="JSON file to write")
    parser.add_argument("--five", type=_path, required=True, help="clone of its repository")
    parser.add_argument("--cotracker", type=_path, help="weights of CoTracker3; none: no motion")
    parser.add_argument("--model", default="Qwen/Qwen2.5-VL-7B-Instruct", help="model that answers")
    parser.add_argument("--frames", type=int, default=4, help="frames that the model sees")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
