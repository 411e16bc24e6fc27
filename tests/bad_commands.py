"""Bad inputs of all commands but `edit`: by name, the arguments and the sentence that they end in.

Most cases are quick, because everything that can be wrong is found before a checkpoint is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from command_desk import Desk, as_options
from PIL import Image

Case = tuple[Callable[[Desk], list[str]], str]
JOB = {"id": "a", "video": "clip.mp4", "source": "a bear", "target": "a panda"}


def masks(desk: Desk, *overrides: str, **options: object) -> list[str]:
    given = {
        "video": desk.folder / "clip.mp4",
        "source": "a bear on the grass",
        "words": "bear",
        "checkpoint": desk.checkpoint,
        "out": desk.folder / "out",
        "frames": 2,
        "steps": 2,
        "device": "cpu",
    } | options
    return ["masks", *as_options(given), *overrides]


def calibrate(desk: Desk, **options: object) -> list[str]:
    given = {"out": desk.folder / "book.json", "checkpoint": desk.checkpoint, "device": "cpu"}
    return ["calibrate", *as_options(given | options)]


def davis(desk: Desk, captions: str, **options: object) -> list[str]:
    """Returns a calibration on a folder in DAVIS layout with one clip of two frames."""
    for part in ("JPEGImages", "Annotations"):
        folder = desk.folder / "davis" / part / "480p" / "bear"
        folder.mkdir(parents=True)
        for n in range(2):
            Image.new("P", (48, 32), n).save(folder / f"{n:05d}.png")
    desk.file("davis/captions.yaml", captions)
    return calibrate(desk, data=desk.folder / "davis", frames=2, **options)


def evaluate(desk: Desk, *overrides: str, **options: object) -> list[str]:
    given = {"out": desk.folder / "out", "checkpoint": desk.checkpoint, "device": "cpu"} | options
    return ["evaluate", *as_options(given), *overrides]


def tune(desk: Desk, **options: object) -> list[str]:
    given = {"video": desk.folder / "clip.mp4", "prompt": "a bear", "out": desk.folder / "out"}
    given |= {"frames": 2}
    return ["tune", *as_options(given | options)]


def predict(
    desk: Desk, *overrides: str, jobs: object = None, name: str = "jobs.jsonl"
) -> list[str]:
    text = jobs if isinstance(jobs, str | bytes) else json.dumps(jobs or JOB)
    listed = desk.file(name, text)
    return ["predict", f"jobs={listed}", f"out={desk.folder / 'out'}", *overrides]


MASKS: dict[str, Case] = {
    "masks of no word": (lambda d: masks(d, words=None), "required: --words"),
    "masks of two words": (lambda d: masks(d, words="bear,grass"), "'bear,grass' is not one word"),
    "masks of a pair": (lambda d: masks(d, words="bear:panda"), "names pairs"),
    "masks of a word that is not there": (lambda d: masks(d, words="lion"), "'lion' is not in"),
    "masks of no clip": (lambda d: masks(d, video="none.mp4"), "no video at 'none.mp4'"),
    "masks without steps": (lambda d: masks(d, steps=0), "'0' is not a whole number of 1 or more"),
    "masks into a folder of something else": (
        lambda d: masks(d, out=d.file("precious/thesis.txt", "years").parent),
        "is no earlier result",
    ),
    "masks under an unknown policy": (
        lambda d: masks(d, "mask.policy=nave"),
        "mask.policy is 'nave'",
    ),
    "masks with settings of nothing": (
        lambda d: masks(d, "maks.policy=best"),
        "unknown config key",
    ),
}
CALIBRATE: dict[str, Case] = {
    "a codebook of another suffix": (
        lambda d: calibrate(d, out="book.yaml"),
        "a codebook's name must end in .json",
    ),
    "a calibration on no clips": (
        lambda d: calibrate(d, clips=0),
        "'0' is not a whole number of 1",
    ),
    "a calibration on no frames": (lambda d: calibrate(d, frames=-2), "'-2' is not a whole number"),
    "a calibration on an unknown sprite": (
        lambda d: calibrate(d, words="beer"),
        "no sprite is called 'beer'; did you mean 'bear'",
    ),
    "a calibration on pairs": (lambda d: calibrate(d, words="bear:panda"), "names pairs"),
    "a calibration on no folder": (lambda d: calibrate(d, data="none"), "none is not in DAVIS lay"),
    "a calibration of no checkpoint": (
        lambda d: calibrate(d, checkpoint="./none"),
        "neither a folder nor a hub id",
    ),
    "a calibration of an unknown editor": (
        lambda d: calibrate(d, editor="zero"),
        "unknown editor 'zero'",
    ),
    "captions that are no mapping": (lambda d: davis(d, "- bear"), "must map clip names to"),
    "captions that are no YAML": (lambda d: davis(d, "bear: ["), "captions.yaml cannot be read"),
    "captions of a clip in one word": (lambda d: davis(d, "bear: brown"), "'bear' must be"),
    "captions without a prompt": (
        lambda d: davis(d, "bear: {word: bear}"),
        "'bear' needs both a prompt and a word|prompt",
    ),
    "captions of an unknown clip": (
        lambda d: davis(d, "beer: {prompt: a bear, word: bear}"),
        "has no clip 'beer'; did you mean 'bear'",
    ),
    "captions with an unknown key": (
        lambda d: davis(d, "bear: {prompt: a bear, wrod: bear}"),
        "unknown config key 'wrod'",
    ),
    "captions of an edit to nothing": (
        lambda d: davis(d, "bear: {prompt: a bear, word: bear, edits: [{word: panda}]}"),
        "an edit of 'bear' needs a target",
    ),
    "captions of an unknown task": (
        lambda d: davis(
            d, "bear: {prompt: a bear, word: bear, edits: [{target: a panda, task: shpae}]}"
        ),
        "unknown task 'shpae'",
    ),
    "a word that no caption has": (
        lambda d: davis(d, "bear: {prompt: a bear, word: bear}", words="lion"),
        "has one of the words lion",
    ),
}
EVALUATE: dict[str, Case] = {
    "an unknown method to compare": (
        lambda d: evaluate(d, methods="freemsk"),
        "unknown method 'freemsk'; did you mean 'freemask'",
    ),
    "an unknown task to compare": (lambda d: evaluate(d, tasks="shpe"), "shpe"),
    "a comparison on no clips": (lambda d: evaluate(d, clips=0), "'0' is not a whole number of 1"),
    "a comparison in no process": (lambda d: evaluate(d, processes=0), "'0' is not a whole number"),
    "a comparison without steps": (lambda d: evaluate(d, steps="few"), "'few' is not a whole"),
    "a comparison on no folder": (
        lambda d: evaluate(d, data="none"),
        "none is not in DAVIS layout",
    ),
    "a comparison by no CLIP": (lambda d: evaluate(d, clip="none"), "CLIP folder none has no"),
    "a comparison by no LPIPS": (lambda d: evaluate(d, lpips="none.pth"), "none.pth"),
    "a comparison with an unknown key": (
        lambda d: evaluate(d, "mask.polcy=best"),
        "unknown config key 'mask.polcy'",
    ),
    "a comparison with a value out of range": (lambda d: evaluate(d, "eta=-1"), "eta is -1"),
}
TUNE: dict[str, Case] = {
    "tuning without a prompt": (lambda d: tune(d)[:2], "required: --prompt"),
    "tuning to an empty prompt": (lambda d: tune(d, prompt=" "), "prompt is empty"),
    "tuning without steps": (lambda d: tune(d, steps=0), "'0' is not a whole number of 1 or more"),
    "tuning that never saves": (lambda d: tune(d, save_every=0), "'0' is not a whole number"),
    "tuning at no rate": (lambda d: tune(d, learning_rate=0), "learning_rate is 0.0; it must be"),
    "tuning at an endless rate": (lambda d: tune(d, learning_rate="inf"), "'inf' is not a number"),
    "tuning with samples before the start": (
        lambda d: tune(d, sample_every=-5),
        "sample_every is -5; it must be 0 or more",
    ),
    "tuning with a negative seed": (lambda d: tune(d, seed=-5), "seed is -5; it must be 0 or more"),
    "tuning on no clip": (lambda d: tune(d, video="none.mp4"), "no video at 'none.mp4'"),
    "tuning of no checkpoint": (lambda d: tune(d, checkpoint="./none"), "neither a folder nor"),
    "tuning of another architecture": (
        lambda d: tune(d, checkpoint=d.checkpoint, frames=2),
        "UNet2DConditionModel|UNet3DConditionModel",
    ),
}
PREDICT: dict[str, Case] = {
    "no list of jobs": (lambda d: ["predict", "jobs=none.csv"], "job list none.csv does not exist"),
    "an empty name of a list": (lambda d: ["predict", "jobs="], "no job list is given"),
    "a folder of jobs": (lambda d: ["predict", f"jobs={d.folder}"], "is a folder"),
    "a list in a spreadsheet's own format": (
        lambda d: predict(d, jobs=b"PK\3\4", name="jobs.xlsx"),
        "its name must end in",
    ),
    "a list of bytes": (lambda d: predict(d, jobs=b"\x00\x01\x81"), "is not text"),
    "an empty list": (lambda d: predict(d, jobs="\n"), "is empty"),
    "a list that is no JSON": (lambda d: predict(d, jobs="{oops"), "jobs.jsonl:1 is not JSON"),
    "a list that is no YAML": (
        lambda d: predict(d, jobs="- {id: [", name="jobs.yaml"),
        "is not YAML",
    ),
    "a list that is a mapping": (
        lambda d: predict(d, jobs='{"id": "a"}', name="jobs.json"),
        "holds a dict, not a list",
    ),
    "a row with too many cells": (
        lambda d: predict(d, jobs="id,video\na,b,c\n", name="jobs.csv"),
        "jobs.csv:2 has 3 cells, the header has 2",
    ),
    "a quotation without an end": (
        lambda d: predict(d, jobs='id,video\na,"b\n', name="jobs.csv"),
        "is no row of a table",
    ),
    "a header of nothing": (
        lambda d: predict(d, jobs="name,file\na,b\n", name="jobs.csv"),
        "unknown key 'name'",
    ),
    "a job that is a number": (lambda d: predict(d, jobs="3"), "is a int, not a job"),
    "a job with an unknown key": (
        lambda d: predict(d, jobs=JOB | {"taks": 1}),
        "did you mean 'task",
    ),
    "a job without a target": (
        lambda d: predict(d, jobs={k: v for k, v in JOB.items() if k != "target"}),
        "jobs.jsonl:1 lacks target",
    ),
    "a job with a path for a name": (lambda d: predict(d, jobs=JOB | {"id": "a/b"}), "plain name"),
    "a job without steps": (
        lambda d: predict(d, jobs=JOB | {"steps": 0}),
        "steps is 0; it must be",
    ),
    "a job with a negative seed": (lambda d: predict(d, jobs=JOB | {"seed": -1}), "seed is -1"),
    "a job with steps in words": (
        lambda d: predict(d, jobs=JOB | {"steps": "ten"}),
        "whole number",
    ),
    "a job with half a step": (lambda d: predict(d, jobs=JOB | {"steps": 2.5}), "whole number"),
    "a job with endless guidance": (
        lambda d: predict(d, jobs=JOB | {"guidance": float("inf")}),
        "guidance is inf",
    ),
    "a job that starts before its clip": (
        lambda d: predict(d, jobs=JOB | {"start": -1}),
        "jobs.jsonl:1: start",
    ),
    "a job with a stride of 0": (lambda d: predict(d, jobs=JOB | {"stride": 0}), "stride"),
    "a job with no frames": (lambda d: predict(d, jobs=JOB | {"frames": 0}), "frames"),
    "a job with half a size": (lambda d: predict(d, jobs=JOB | {"size": "64"}), "HEIGHTxWIDTH"),
    "a job with three words": (
        lambda d: predict(d, jobs=JOB | {"words": "a:b:c"}),
        "is not of the form OLD",
    ),
    "a job with settings of no value": (
        lambda d: predict(d, jobs=JOB | {"overrides": "strength"}),
        "not of the form key=value",
    ),
    "two jobs of one name": (
        lambda d: predict(d, jobs=f"{json.dumps(JOB)}\n{json.dumps(JOB)}"),
        "ids must differ, these repeat",
    ),
    "no config": (lambda d: predict(d, "--config=none.yaml"), "config none.yaml does not exist"),
    "a config that is no YAML": (
        lambda d: predict(d, f"--config={d.file('c.yaml', 'a: [')}"),
        "c.yaml is not YAML",
    ),
    "a config with an unknown key": (
        lambda d: predict(d, f"--config={d.file('c.yaml', 'jbos: x')}"),
        "unknown config key 'jbos'; did you mean 'jobs'",
    ),
    "an unknown key of the run": (lambda d: predict(d, "outt=x"), "unknown config key 'outt'"),
    "an unknown logger": (lambda d: predict(d, "trainer.logger=cvs"), "did you mean 'csv'"),
    "an unknown accelerator": (
        lambda d: predict(d, "trainer.accelerator=gpuu"),
        "Lightning refuses these trainer settings",
    ),
    "devices in words": (lambda d: predict(d, "trainer.devices=two"), "Lightning refuses|devices"),
    "two dtypes": (
        lambda d: predict(d, "dtype=float16", "trainer.precision=bf16-true"),
        "dtype=float16 and trainer.precision=bf16-true differ",
    ),
    "an unknown editor of the run": (lambda d: predict(d, "editor=zero"), "unknown editor 'zero'"),
    "an out that is a file": (
        lambda d: predict(d, f"out={d.file('o', 'x')}/out"),
        "cannot write to",
    ),
    "an unknown option of predict": (lambda d: predict(d, "--fast=1"), "unrecognized arguments"),
}
OTHERS: dict[str, Case] = {
    "nothing to profile": (lambda d: ["profile"], "nothing to measure"),
    "a profile of no frames": (lambda d: ["profile", "--edit", "--frames=0"], "'0' is not a whole"),
    "a profile of an unknown task": (
        lambda d: ["profile", "--edit", "--task=shpe"],
        "unknown task",
    ),
    "editors of no checkpoint": (
        lambda d: ["editors", "--checkpoint=./none"],
        "neither a folder nor|none",
    ),
    "memory of an unknown editor": (
        lambda d: ["editors", "--memory", "--editor=zero"],
        "unknown editor 'zero'",
    ),
    "memory in an unknown dtype": (
        lambda d: ["editors", "--memory", "--editor=zeroscope", "--dtype=float8"],
        "unknown dtype 'float8'",
    ),
    "memory of no frames": (lambda d: ["editors", "--memory", "--frames=0"], "'0' is not a whole"),
    "memory of half a size": (
        lambda d: ["editors", "--memory", "--size=64"],
        "is not HEIGHTxWIDTH",
    ),
    "a demo of no config": (lambda d: ["demo", "--config=none.yaml"], "none.yaml"),
    "a demo with an unknown key": (lambda d: ["demo", "stpes=3"], "unknown config key 'stpes'"),
    "a home of nobody": (
        lambda d: ["demo", "--out=~nobody-here/out"],
        "names no home folder of this system",
    ),
    "no command": (lambda d: [], "required: command"),
}
COMMANDS = MASKS | CALIBRATE | EVALUATE | TUNE | PREDICT | OTHERS
