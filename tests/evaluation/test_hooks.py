"""Hooks: what other programs read and write, when they run, and what goes wrong."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from five_folder import write_five

from freemask.data.five import read_five
from freemask.evaluation.hooks import check_hook, run_hooks
from freemask.evaluation.public_samples import five_samples
from freemask.evaluation.samples import SampleSource
from freemask.io.resumable import ResumableFolder
from freemask.io.scaling import whole
from freemask.types import InputError

KEYS = ("shape-0000-ddim", "shape-0001-ddim", "shape-0001-naive")


def hook(tmp_path: Path, body: str, name: str = "hook") -> str:
    """A command that runs Python with `edits` read and `figures` to write."""
    script = tmp_path / f"{name}.py"
    script.write_text(
        "import json, sys\n"
        "edits, figures = json.load(open(sys.argv[1])), {}\n"
        f"{body}\n"
        "json.dump(figures, open(sys.argv[2], 'w'))\n"
    )
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(script))} {{edits}} {{figures}}"


@pytest.fixture
def samples(tmp_path: Path) -> list[SampleSource]:
    edits = read_five(write_five(tmp_path / "five"))
    return five_samples(edits, ["shape"], frames=1, choose=whole)


@pytest.fixture
def run(tmp_path: Path, samples: list[SampleSource]) -> Any:
    """Runs hooks on one edit of the first sample and two of the second."""
    folder = ResumableFolder(tmp_path / "out" / "parts", "1")
    rows = {
        "shape-0000": [{"method": "ddim"}],
        "shape-0001": [{"method": "ddim"}, {"method": "naive"}],
    }
    return lambda *commands: run_hooks(commands, rows, samples, folder)


def test_a_hook_reads_every_edit_and_its_figures_become_columns(run: Any, tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    body = f"""
open({str(seen)!r}, "w").write(json.dumps(edits))
figures[edits[0]["key"]] = dict(yes_no=1, multiple_choice=0, motion=0.5)
figures[edits[2]["key"]] = dict(yes_no=1, multiple_choice=None)
"""
    found = run(hook(tmp_path, body))
    edits = json.loads(seen.read_text())
    assert tuple(edit["key"] for edit in edits) == KEYS
    assert edits[0]["source_prompt"] == "a bear moving left on the grass"
    assert edits[0]["source_yes_no_question"] == "Is there a bear?"
    assert edits[0]["clip"] == "0001_bear"
    assert Path(edits[0]["images"]) == (tmp_path / "five/images/0001_bear").resolve()
    assert Path(edits[0]["masks"]) == (tmp_path / "five/bmasks/0001_bear").resolve()
    expected = tmp_path / "out/results/naive/0002_cat/2_a_dog"
    assert Path(edits[2]["result"]) == expected.resolve()
    assert found[KEYS[0]] == {
        "five_motion": 50.0,
        "five_yes_no": 100.0,
        "five_choice": 0.0,
        "five_union": 100.0,
        "five_both": 0.0,
        "five_acc": 50.0,
    }
    assert found[KEYS[2]] == {}  # one question has no answer
    assert KEYS[1] not in found


def test_several_hooks_add_up_and_finished_ones_are_not_run_again(run: Any, tmp_path: Path) -> None:
    count = tmp_path / "count"
    first = hook(
        tmp_path,
        f"open({str(count)!r}, 'a').write('x')\nfigures[edits[0]['key']] = dict(yes_no=1)",
        "first",
    )
    second = hook(tmp_path, "figures[edits[0]['key']] = dict(multiple_choice=1)", "second")
    broken = hook(tmp_path, "sys.exit(3)", "broken")
    with pytest.raises(InputError, match="ended with code 3; the edits are kept"):
        run(first, broken)
    assert run(first, second)[KEYS[0]]["five_acc"] == 100
    assert count.read_text() == "x"


BAD = {
    "nothing": ("sys.exit(0)", "wrote no figures"),
    "a list": ("figures = []", "holds a list, not figures by key"),
    "an unknown edit": ("figures['shape-9'] = {}", "'shape-9' is no key of an edit"),
    "an unknown figure": ("figures[edits[0]['key']] = dict(acc=1)", "unknown figure 'acc'"),
    "a percentage": ("figures[edits[0]['key']] = dict(yes_no=100)", "yes_no is 100; it must be 0"),
    "text": ("figures[edits[0]['key']] = dict(motion='1')", "motion is '1'; it must be -1 to 1"),
}


@pytest.mark.parametrize(("body", "message"), BAD.values(), ids=BAD)
def test_anything_but_figures_is_refused(run: Any, tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        run(hook(tmp_path, body))


def test_a_command_that_cannot_work_is_refused_before_it_is_needed() -> None:
    check_hook(f"{shlex.quote(sys.executable)} a.py {{edits}} {{figures}}")
    with pytest.raises(InputError, match=r"has no {figures}; it stands for the file .* writes"):
        check_hook("python a.py {edits}")
    with pytest.raises(InputError, match=r"has no {edits}; .* reads"):
        check_hook("python a.py {figures}")
    with pytest.raises(InputError, match="no program 'nowhere'"):
        check_hook("nowhere {edits} {figures}")
    with pytest.raises(InputError, match="cannot be read: No closing quotation"):
        check_hook("python 'a {edits} {figures}")
