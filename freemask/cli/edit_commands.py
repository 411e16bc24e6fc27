"""Defines the commands that edit: `demo`, `edit`, `masks`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from freemask.cli.arguments import add_out, add_request, make_request, one_word, path
from freemask.cli.interrupts import interruptible
from freemask.cli.progress import add_force, add_quiet, echo, echo_error
from freemask.editors.request import EditorRequest
from freemask.progress import show_progress
from freemask.types import EditRequest, InputError

if TYPE_CHECKING:
    from freemask.batch.jobs import JobInputs


def add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=path, help="a file like configs/demo.yaml, which is the default"
    )
    parser.add_argument(
        "--out",
        type=path,
        default=Path("out/demo"),
        help="folder of the result (default: out/demo)",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="keys that differ from the config"
    )
    add_quiet(parser)


def run_demo(options: argparse.Namespace) -> None:
    from freemask.evaluation.demo import run

    progress = show_progress(quiet=options.quiet)
    with interruptible(options.out):
        echo(run(options.config, options.out, options.overrides, progress))


def add_edit(parser: argparse.ArgumentParser) -> None:
    from freemask.batch.jobs import ClipRequest, Job
    from freemask.segmentation.edit_mask import TeacherMask

    add_request(parser, EditRequest)
    add_request(parser, ClipRequest)
    add_request(parser, Job, skip=("id", "clip", "request", "problem"))
    add_request(parser, TeacherMask)
    add_request(parser, EditorRequest)
    add_out(parser, "out/edit")
    parser.add_argument(
        "--dry-run", action="store_true", help="print size and cost of the edit, and stop"
    )
    add_force(parser)
    add_quiet(parser)


def run_edit(options: argparse.Namespace) -> None:
    from freemask.batch.jobs import ClipRequest, Job, check_job
    from freemask.batch.single_edit import run_with_fallback
    from freemask.io.read_clip import describe_scaling
    from freemask.prepare import preflight
    from freemask.profiling.memory_check import check_memory
    from freemask.sampling.cost import stage_costs
    from freemask.segmentation.edit_mask import TeacherMask, object_stays

    clip, request = make_request(ClipRequest, options), make_request(EditRequest, options)
    job = make_request(Job, options, id="edit", clip=clip, request=request)
    teacher = make_request(TeacherMask, options)
    if job.mask and teacher.mask_from:
        raise InputError("--mask and --mask-from both give the mask; leave one of them out")
    wanted = make_request(EditorRequest, options)
    with interruptible(options.out, atomic=True):
        inputs = check_job(job, options.out, wanted.native_frame)
        masked = bool(job.mask or teacher.mask_from)
        notes = preflight(wanted, request, inputs.video.size, masked=masked)
        prompt = teacher.prompt(request, wanted)
        if not options.force:
            check_memory(wanted, request, frames=inputs.video.num_frames, size=inputs.video.size)
        padded = wanted.latent_time().padded(inputs.video.num_frames)
        echo_error(describe_scaling(inputs.video, padded))
        if options.dry_run:
            _echo_notes(notes)
            _echo_cost(wanted, request, inputs)
            return
        shown = _echo_notes(inputs.video.origin.notes if inputs.video.origin else (), notes)
        if prompt:
            labels = show_progress(quiet=options.quiet)
            mask = teacher.make(
                inputs.video,
                prompt,
                stays=object_stays(request),
                device=wanted.device,
                progress=labels,
            )
            inputs = replace(inputs, mask=mask)
        editor = wanted.load_editor()
        shown |= _echo_notes(editor.notes)
        progress = show_progress(quiet=options.quiet, costs=stage_costs(editor, request))
        result = run_with_fallback(editor, job, inputs, progress=progress)
        if prompt:
            details = {**result.details, "mask_from": teacher.describe(prompt)}
            result = replace(result, details=details)
        result.save(options.out)
        _echo_notes([line for line in result.remarks if line not in shown])
        echo(result.summary(options.out))


def _echo_notes(*groups: Iterable[str]) -> set[str]:
    """Prints remarks, one a line. Returns them."""
    for line in chain(*groups):
        echo_error(f"note: {line}")
    return set(chain(*groups))


def _echo_cost(wanted: EditorRequest, request: EditRequest, inputs: JobInputs) -> None:
    """Prints what an edit would cost."""
    import torch

    from freemask.profiling.edit_cost import cost_lines, edit_costs

    frames, size = inputs.video.num_frames, inputs.video.size
    mask = None if inputs.mask is None else torch.from_numpy(inputs.mask)
    costs = edit_costs(wanted, request, frames=frames, size=size, mask=mask)
    for line in cost_lines(costs):
        echo(line)


def add_masks(parser: argparse.ArgumentParser) -> None:
    from freemask.batch.jobs import ClipRequest

    add_request(parser, EditRequest, skip=("target", "words", "method", "guidance", "seed"))
    parser.add_argument(
        "--words", type=one_word, required=True, metavar="W", help="the word to look for"
    )
    add_request(parser, ClipRequest)
    add_request(parser, EditorRequest)
    add_out(parser, "out/masks")
    add_force(parser)
    add_quiet(parser)


def run_masks(options: argparse.Namespace) -> None:
    from freemask.batch.jobs import ClipRequest
    from freemask.calibration.inspect import FILES, show_masks
    from freemask.io.atomic import check_writable
    from freemask.io.read_clip import describe_scaling
    from freemask.prepare import preflight
    from freemask.profiling.memory_check import check_memory

    words = (options.words, options.words)
    request = make_request(EditRequest, options, target=options.source, words=words)
    with interruptible(options.out, atomic=True):
        wanted = make_request(EditorRequest, options)
        video = make_request(ClipRequest, options).read(wanted.native_frame)
        check_writable(options.out, FILES)
        notes = preflight(wanted, request, video.size)
        if not options.force:
            frames, size = video.num_frames, video.size
            check_memory(wanted, request, frames=frames, size=size, inversion_only=True)
        padded = wanted.latent_time().padded(video.num_frames)
        echo_error(describe_scaling(video, padded))
        editor = wanted.load_editor()
        progress = show_progress(quiet=options.quiet)
        echo(show_masks(editor, video, request, options.out, progress=progress))
        for line in (*editor.notes, *notes):
            echo_error(f"note: {line}")
