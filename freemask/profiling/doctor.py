"""Examines this machine: what freemask needs, what works, and why something does not.

    freemask doctor

Every check is a function in CHECKS that returns findings. A finding is "ok", a "note" (no GPU, for
example) or "broken". A check that raises is broken, with the reason. Each imports what it needs, so
that a library that cannot be imported is a finding too.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

OK, NOTE, BROKEN = "ok", "note", "broken"
GIB = 2**30
TILE_SECONDS = 100.0  # for all tiles; the whole examination takes at most two minutes
LITTLE_ROOM = 10 * GIB  # bytes on a disk that holds checkpoints
CODECS = {"h264": "edited.mp4", "gif": "edited.gif", "aac": "sound that cannot be copied"}


@dataclass(frozen=True)
class Finding:
    """What a check found.

    status: "ok", "note" or "broken".
    text: one line.
    data: figures for the JSON file.
    """

    status: str
    text: str
    data: dict[str, Any] = field(default_factory=dict)


Check = Callable[[], Sequence[Finding] | Iterator[Finding]]


def check_python() -> Sequence[Finding]:
    """Reports Python, the system, its processors and free memory."""
    from freemask.profiling.memory_check import available_host_bytes

    free = available_host_bytes()
    text = (
        f"{platform.python_version()} on {platform.platform()}, {os.cpu_count()} CPUs, "
        f"{free / GIB:.1f} GiB of memory free"
    )
    return [Finding(OK, text, {"free_memory": free})]


def check_libraries() -> Iterator[Finding]:
    """Compares the installed libraries with the versions that freemask asks for."""
    from packaging.requirements import Requirement

    found, wrong = {}, []
    for line in metadata.requires("freemask") or ():
        wanted = Requirement(line)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found[wanted.name] = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing")
            continue
        if not wanted.specifier.contains(found[wanted.name], prereleases=True):
            wrong.append(f"{wanted.name} {found[wanted.name]} is not {wanted.specifier}")
    shown = ", ".join(f"{name} {version}" for name, version in found.items())
    yield Finding(OK, f"freemask {metadata.version('freemask')}, {shown}", {"versions": found})
    yield from (Finding(BROKEN, f"{one}; pip install -U freemask") for one in wrong)


def check_torch() -> Sequence[Finding]:
    """Reports PyTorch, what it was built for, and its threads."""
    import torch

    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else None
    built = built or (f"ROCm {torch.version.hip}" if torch.version.hip else "CPU")
    threads = torch.get_num_threads()
    return [Finding(OK, f"{torch.__version__} for {built}, {threads} threads")]


def check_triton() -> Sequence[Finding]:
    """Reports Triton, and whether it finds the C compiler that it needs on a GPU."""
    import torch

    if importlib.util.find_spec("triton") is None:
        return [Finding(NOTE, "not installed; backend=auto runs on PyTorch's attention")]
    version, compiler = metadata.version("triton"), os.environ.get("CC")
    compiler = compiler or shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        status = BROKEN if torch.cuda.is_available() else NOTE
        return [Finding(status, f"{version}, but no C compiler, which its launcher needs; set CC")]
    return [Finding(OK, f"{version}, C compiler {Path(compiler).name}")]


def check_driver() -> Sequence[Finding]:
    """Reports the driver, and whether PyTorch can use it."""
    import torch

    tool = shutil.which("nvidia-smi")
    if tool is None:
        found = "" if torch.cuda.is_available() else "no NVIDIA driver"
        return [Finding(OK if not found else NOTE, found or "ROCm, or a driver without nvidia-smi")]
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    version = done.stdout.split("\n")[0].strip()
    if done.returncode:
        return [Finding(BROKEN, f"nvidia-smi fails: {(done.stdout + done.stderr).strip()}")]
    if not torch.cuda.is_available():
        return [
            Finding(BROKEN, f"NVIDIA {version}, but this PyTorch cannot use it; see pytorch.org")
        ]
    return [Finding(OK, f"NVIDIA {version}", {"driver": version})]


def check_devices() -> Iterator[Finding]:
    """Reports every GPU and its free memory."""
    import torch

    if not torch.cuda.is_available():
        yield Finding(NOTE, "no GPU; edits run on the CPU")
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        properties = torch.cuda.get_device_properties(index)
        kind = f"{properties.major}.{properties.minor}"
        text = (
            f"cuda:{index} {properties.name}, compute capability {kind}, {free / GIB:.1f} of "
            f"{total / GIB:.1f} GiB free"
        )
        yield Finding(OK, text, {"name": properties.name, "free": free, "total": total})


def check_codecs() -> Iterator[Finding]:
    """Looks for the encoders of results, and writes and reads a clip."""
    import av
    import numpy as np

    from freemask.io.video import read_video, write_video
    from freemask.types import Video

    yield Finding(OK, f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}")
    for name, purpose in CODECS.items():
        try:
            av.codec.Codec(name, "w")
        except ValueError:
            yield Finding(BROKEN, f"no encoder for {name}, which {purpose} needs")
    clip = Video(np.zeros((2, 16, 16, 3), np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        for name in ("clip.mp4", "clip.gif"):
            write_video(clip, Path(folder) / name)
            frames = read_video(Path(folder) / name).num_frames
            status = OK if frames == 2 else BROKEN
            yield Finding(status, f"{name}: {frames} of 2 frames were written and read")


def check_caches() -> Iterator[Finding]:
    """Reports the folders that freemask writes to, and the room on their disks."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from freemask.kernels import verdict_files

    folders = {
        "checkpoints of the hub": (Path(HF_HUB_CACHE), LITTLE_ROOM),
        "verified kernels": (verdict_files.folder(), 0),
        "frames of long clips": (Path(tempfile.gettempdir()), 0),
    }
    for what, (folder, needed) in folders.items():
        exists = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(exists).free
        problem = "" if os.access(exists, os.W_OK) else ", cannot be written"
        problem += ", little room for a checkpoint" if free < needed else ""
        text = f"{what}: {folder}, {free / GIB:.1f} GiB free{problem}"
        yield Finding(NOTE if problem else OK, text, {"folder": str(folder), "free": free})


def check_editors() -> Iterator[Finding]:
    """Loads every editor with its demo checkpoint."""
    from freemask.editors.registry import available, editor_class, load_editor

    for name in available():
        try:
            if editor_class(name).demo is None:
                yield Finding(NOTE, f"{name}: has no demo checkpoint, not loaded")
                continue
            load_editor(name, device="cpu")
        except Exception as error:
            yield Finding(BROKEN, f"{name}: {reason_of(error)}")
        else:
            yield Finding(OK, f"{name}: loads its demo checkpoint")


def check_kernels() -> Iterator[Finding]:
    """Compares the kernels with the reference: torch's on the CPU, Triton's on the first GPU."""
    import torch

    from freemask.kernels.self_check import CHECKS as KERNELS

    for name, check in KERNELS.items():
        reason = check(torch.device("cpu"), torch.float32, 40, "torch")
        text = f"{name} attention of the torch backend on the CPU: {reason or 'right'}"
        yield Finding(BROKEN if reason else OK, text)
    if not torch.cuda.is_available():
        yield Finding(NOTE, "Triton kernels not run: no GPU")
        return
    if importlib.util.find_spec("triton") is None:
        yield Finding(NOTE, "Triton kernels not run: triton is not installed")
        return
    from freemask.kernels.dev.tile_checks import check_tiles

    for one in check_tiles(torch.device("cuda", 0), seconds=TILE_SECONDS):
        if isinstance(one, str):
            yield Finding(NOTE, one)
        else:
            yield Finding(BROKEN if one.reason else OK, str(one), asdict(one))


CHECKS: dict[str, Check] = {
    "python": check_python,
    "libraries": check_libraries,
    "torch": check_torch,
    "triton": check_triton,
    "driver": check_driver,
    "devices": check_devices,
    "codecs": check_codecs,
    "caches": check_caches,
    "editors": check_editors,
    "kernels": check_kernels,
}


def examine(echo: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Runs all checks and returns their findings, as JSON types.

    echo: called with a line for every finding, as soon as it is known.

    The result holds "findings" (check, status, text and figures of each), "broken" (the number of
    broken ones) and "seconds".
    """
    started, rows = time.perf_counter(), []
    for check in CHECKS:
        for found in run_check(check):
            echo(f"{found.status:<7} {check:<10} {found.text}")
            rows.append({"check": check, "status": found.status, "text": found.text, **found.data})
    broken = sum(row["status"] == BROKEN for row in rows)
    seconds = round(time.perf_counter() - started, 1)
    return {"broken": broken, "seconds": seconds, "findings": rows}


def run_check(name: str) -> Iterator[Finding]:
    """Yields the findings of a check; an error ends it as a broken one."""
    try:
        yield from CHECKS[name]()
    except Exception as error:  # a report is worth more than a traceback
        yield Finding(BROKEN, reason_of(error))


def reason_of(error: BaseException) -> str:
    """Returns the kind and the first line of an error."""
    first = next(iter(str(error).strip().splitlines()), "no message")
    return f"{type(error).__name__}: {first}"
