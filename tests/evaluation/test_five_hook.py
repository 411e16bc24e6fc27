"""`tools/five_hook.py`, which calls a clone of FiVE-Bench: here one whose models are stand-ins."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from five_folder import write_five

from freemask.data.five import read_five
from freemask.evaluation.hooks import run_hooks
from freemask.evaluation.public_samples import five_samples
from freemask.io.resumable import ResumableFolder
from freemask.io.scaling import whole

TOOL = Path(__file__).parents[2] / "tools" / "five_hook.py"
CLONE = """
import os

class FiVEAcc_Qwen_VL:
    def __init__(self, num_frames, model_id):
        assert (num_frames, model_id) == (4, "Qwen/Qwen2.5-VL-7B-Instruct")

    def get_score(self, src_q, tgt_q, multi_choice_q, video_path):
        if "naive" in video_path:
            return "nan", "nan"
        right = (src_q, tgt_q) == ("Is there a bear?", "Is there a panda?")
        return int(right), int("b) a panda" in multi_choice_q)

class MotionFidelityScore:
    def __init__(self, cotracker_model_path):
        assert cotracker_model_path == "tracker.pth"

    def calculate_MFS(self, original_video_path, edit_video_path, video_masks=None):
        assert os.path.isdir(original_video_path)
        if video_masks is None:
            return 0.9
        assert len(video_masks) == 3 and video_masks[0].shape == (32, 48)
        return 0.8
"""


@pytest.mark.parametrize("tracked", [True, False])
def test_figures_are_those_of_its_own_code(tmp_path: Path, tracked: bool) -> None:
    (tmp_path / "clone" / "evaluation").mkdir(parents=True)
    (tmp_path / "clone" / "evaluation" / "metrics_calculator.py").write_text(CLONE)
    edits = read_five(write_five(tmp_path / "five"))
    samples = five_samples(edits, ["shape"], frames=1, choose=whole)
    rows = {
        "shape-0000": [{"method": "ddim"}, {"method": "naive"}],
        "shape-0001": [{"method": "ddim"}],
    }
    words = [sys.executable, str(TOOL), "{edits}", "{figures}", "--five", str(tmp_path / "clone")]
    words += ["--cotracker", "tracker.pth"] if tracked else []
    folder = ResumableFolder(tmp_path / "parts", "1")
    found = run_hooks([shlex.join(words)], rows, samples, folder)
    motion = {"five_motion": 90.0, "five_motion_edit": 80.0} if tracked else {}
    answered = found["shape-0000-ddim"]
    assert answered["five_acc"] == 100
    assert {name: answered[name] for name in motion} == pytest.approx(motion)
    assert found["shape-0000-naive"] == pytest.approx(motion)  # its judge failed
    assert found.get("shape-0001-ddim", {}) == pytest.approx(motion)  # it has no questions
    assert json.loads(folder.path("hook-figures.json").read_text())
