"""Options come from request dataclasses: their defaults, converters, help and words."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest

from freemask.batch.jobs import ClipRequest
from freemask.calibration.request import CalibrationRequest
from freemask.cli import arguments
from freemask.cli.arguments import add_request, field_docs, make_request
from freemask.cli.commands import COMMANDS, make_parser
from freemask.editors.request import EditorRequest
from freemask.evaluation.methods import BenchmarkSettings
from freemask.evaluation.request import EvaluationRequest
from freemask.io.values import parse_words
from freemask.modules.tuning_request import TuningRequest
from freemask.profiling.request import ProfileRequest
from freemask.segmentation.edit_mask import TeacherMask
from freemask.settings.presets import config_folder
from freemask.types import EditRequest, InputError, Words

REQUESTS = (
    EditRequest,
    ClipRequest,
    EditorRequest,
    CalibrationRequest,
    BenchmarkSettings,
    EvaluationRequest,
    TuningRequest,
    ProfileRequest,
    TeacherMask,
)


@dataclass(frozen=True)
class Example:
    """An example.

    name: a name of 100%,
        in two lines.
    steps, clips: numbers.
    seed: a number.
    words: a pair.
    size: height and width.
    """

    name: str
    steps: int = 3
    clips: int = 2
    seed: int = 0
    size: tuple[int, int] | None = (64, 96)
    words: Words = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)


def parse(*given: str) -> Example:
    parser = argparse.ArgumentParser()
    add_request(parser, Example)
    return make_request(Example, parser.parse_args(given))


def test_defaults_are_those_of_the_dataclass() -> None:
    assert parse("--name=a") == Example("a")


def test_every_field_can_be_set() -> None:
    given = ["--steps=4", "--clips=5", "--seed=-6", "--size=32x48", "--words=bear:panda"]
    pairs = ["--option=x=1", "--option=y=[1,2]", "mask.policy=naive", "strength=0.5"]
    assert parse("--name=a", *given, *pairs) == Example(
        "a", 4, 5, -6, (32, 48), ("bear", "panda"), {"x": 1, "y": [1, 2]},
        {"mask.policy": "naive", "strength": 0.5},
    )  # fmt: skip


def test_words_may_be_several_pairs_or_in_one_prompt_alone() -> None:
    assert parse("--name=a", "--words=bear:panda,grass:snow").words == (
        ("bear", "panda"),
        ("grass", "snow"),
    )
    assert parse("--name=a", "--words=bear:").words == ("bear", "")
    assert parse("--name=a", "--words=:hat").words == ("", "hat")


def test_values_that_do_not_fit_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for given, message in {
        "--steps=0": "--steps: '0' is not a whole number of 1 or more",
        "--size=64": "--size: '64' is not HEIGHTxWIDTH",
        "--words=:": "--words: ':' is not of the form OLD:NEW",
        "--words=a:b:c": "--words: 'a:b:c' is not of the form OLD:NEW",
    }.items():
        with pytest.raises(SystemExit):
            parse("--name=a", given)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse()
    assert "required: --name" in capsys.readouterr().err
    with pytest.raises(InputError, match="'x' is not of the form key=value"):
        parse("--name=a", "x")


def test_help_comes_from_the_docstring() -> None:
    docs = field_docs(Example)
    assert docs["name"] == "a name of 100%%, in two lines"
    assert docs["steps"] == docs["clips"] == "numbers"
    parser = argparse.ArgumentParser()
    add_request(parser, Example)
    shown = " ".join(parser.format_help().split())
    assert "--name NAME a name of 100%, in two lines" in shown
    assert "--size HxW height and width (default: 64x96)" in shown


@pytest.mark.parametrize("kind", REQUESTS)
def test_every_field_of_a_request_is_documented_and_convertible(kind: type) -> None:
    for entry in fields(kind):
        if entry.name in ("settings", "overrides"):
            continue
        assert field_docs(kind)[entry.name]
        special = entry.type == "bool" or entry.name in ("options", *arguments.REPEATED)
        assert special or entry.type in arguments.CONVERTERS


@pytest.mark.parametrize("kind", [EvaluationRequest, ProfileRequest])
def test_defaults_of_an_editor_agree(kind: type) -> None:
    defaults = {entry.name: entry.default for entry in fields(kind)}
    for entry in fields(EditorRequest):
        assert defaults[entry.name] == entry.default


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("bear:panda", [("bear", "panda")]),
        (" bear : panda ", [("bear", "panda")]),
        ("bear", [("bear", "bear")]),
        ("bear,duck", [("bear", "bear"), ("duck", "duck")]),
        ("bear:panda, duck,", [("bear", "panda"), ("duck", "duck")]),
        ("", []),
    ],
)
def test_words_have_one_grammar(text: str, pairs: list[tuple[str, str]]) -> None:
    assert parse_words(text) == pairs


def test_commands_differ_in_how_many_words_they_take() -> None:
    converters = {kind: convert for kind, (convert, _) in arguments.CONVERTERS.items()}
    words, word_list = (converters[kind] for kind in ("Words", "tuple[str, ...]"))
    assert words("bear") == ("bear", "bear")
    assert words("bear,duck") == (("bear", "bear"), ("duck", "duck"))
    assert word_list("bear,duck") == ("bear", "duck")
    assert arguments.one_word("bear") == "bear"
    for convert, text in (
        (words, ""),
        (words, "a:b:c"),
        (word_list, "bear:panda"),
        (arguments.one_word, "bear,duck"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=text or "''"):
            convert(text)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("float", "7.5", 7.5),
        ("float", "nan", "'nan' is not a number"),
        ("float | None", "fast", "'fast' is not a number"),
        ("int", "-3", -3),
        ("int", "2.5", "'2.5' is not a whole number"),
        ("int | None", "all", None),
        ("tuple[int, int] | Literal['source'] | None", "source", "source"),
        ("tuple[int, int] | Literal['source'] | None", "64X96", (64, 96)),
        ("tuple[int, int] | Literal['source'] | None", "big", "'big' is not HEIGHTxWIDTH"),
        ("Literal['source'] | None", "source", "source"),
        ("Literal['source'] | None", "target", "'target' is not source"),
        ("Path", "~/clip", Path("/home/me/clip")),
        ("Path", "~nobody-here/clip", "names no home folder"),
    ],
)
def test_text_becomes_a_value_or_an_error(
    kind: str, text: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    convert, _ = arguments.CONVERTERS[kind]
    if isinstance(value, str) and value != text:
        with pytest.raises(argparse.ArgumentTypeError, match=value):
            convert(text)
    else:
        assert convert(text) == value


DEFAULTS = {  # of the command line, by command
    "export-diffusers": {"editor": "zeroscope", "checkpoint": "demo", "variant": None},
    "ui": {"host": "127.0.0.1", "port": None, "auth": None, "share": False, "upload_mb": 200},
    "predict": {"config": config_folder() / "predict.yaml", "retry_failed": False, "quiet": False},
    "demo": {"config": None, "out": Path("out/demo")},
    "doctor": {"json": Path("out/doctor.json")},
    "edit": {
        "words": (), "task": "auto", "keep": "", "method": "auto", "steps": 50, "guidance": 7.5,
        "seed": 0, "frames": 8, "start": 0, "stride": 1, "size": None, "mask": None,
        "editor": "zeroscope", "checkpoint": "demo", "device": "auto", "dtype": "auto",
        "options": [], "out": Path("out/edit"),
    },
    "masks": {"task": "auto", "steps": 50, "frames": 8, "out": Path("out/masks")},
    "editors": {"memory": False, "frames": 8, "size": (512, 512), "steps": 50, "dtype": "float16"},
    "evaluate": {
        "clips": 24, "first_clip": 0, "data": "sprites", "methods": (), "ablations": [],
        "tasks": (), "benchmark": "auto", "columns": [], "hooks": [], "clip": None, "lpips": None,
        "lpips_squeeze": None, "dino": None, "niqe": False, "processes": 1, "captions": None,
        "size": None, "frames": "auto", "steps": 50, "out": Path("out/evaluate"),
    },
    "calibrate": {
        "data": "sprites", "clips": 64, "words": (), "captions": None, "frames": "auto",
        "size": None, "steps": 50, "editor": "zeroscope", "out": Path("codebook.json"),
    },
    "tune": {
        "checkpoint": "demo", "steps": 500, "learning_rate": 3e-5, "precision": "32-true",
        "accelerator": "auto", "sample_every": 100, "save_every": 50, "seed": 0, "frames": 8,
        "out": Path("out/tuned"),
    },
    "profile": {"attention": False, "edit": False},
}  # fmt: skip
REQUIRED = {
    "edit": ["--video=v", "--source=a", "--target=b"],
    "masks": ["--video=v", "--source=a", "--words=w"],
    "tune": ["--video=v", "--prompt=a"],
    "export-diffusers": ["out"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_defaults_of_the_commands(command: str) -> None:
    given = [command, *REQUIRED.get(command, [])]
    options = vars(make_parser(given).parse_args(given))
    assert {name: options[name] for name in DEFAULTS[command]} == DEFAULTS[command]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_answers_at_once_and_lists_defaults(command: str) -> None:
    code = (
        "import sys; from freemask.cli import commands\n"
        f"try: commands.main([*{command.split()!r}, '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'diffusers', 'transformers', 'lightning'} & set(sys.modules)))"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - started < 5
    *shown, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    if command and command != "profile":
        assert "(default: " in " ".join(" ".join(shown).split())
        assert f"usage: freemask {command}" in shown[0]
