"""Plugins: a package that pip installs brings an editor, and an edit runs with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from freemask.io.video import write_video
from freemask.types import Video

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "somebodys-editor"
version = "1.0"
[project.entry-points."freemask.editors"]
somebodys = "somebodys_editor:Somebodys"
[tool.setuptools]
py-modules = ["somebodys_editor"]
"""
MODULE = """
from dataclasses import dataclass

from diffusers import UNet3DConditionModel

from freemask.editors import UNetEditor


@dataclass
class SomebodysOptions:
    loudness: float = 1.0


class Somebodys(UNetEditor):
    name = "somebodys"
    architectures = ("UNet3DConditionModel",)
    Options = SomebodysOptions

    @classmethod
    def load_backbone(cls, checkpoint, options):
        return checkpoint.model(UNet3DConditionModel)

    def predict(self, latents, timestep, text):
        out = self.backbone(latents.to(self.dtype), timestep, text.to(self.dtype)).sample
        return self.options.loudness * out
"""


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """Installs the package into a folder and returns the folder."""
    source, target = tmp_path / "source", tmp_path / "installed"
    source.mkdir()
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "somebodys_editor.py").write_text(MODULE)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--target", str(target), str(source)),
        ],
        check=True,
    )
    return target


@pytest.mark.slow
def test_an_installed_package_brings_an_editor(
    plugins: Path, checkpoint: Path, video: Video, tmp_path: Path
) -> None:
    write_video(video, tmp_path / "clip.mp4")

    def freemask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "freemask", *arguments],
            env={**os.environ, "PYTHONPATH": str(plugins)},
            capture_output=True,
            text=True,
        )

    assert "somebodys        none             UNet3DConditionModel" in freemask("editors").stdout
    edit = [
        *("edit", "--video", str(tmp_path / "clip.mp4"), "--frames", "2", "--size", "32x48"),
        *("--source", "a bear on the grass", "--target", "a panda on the grass", "--steps", "2"),
        *("--editor", "somebodys", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")),
        *("mask.policy=naive", "--option"),
    ]
    refused = freemask(*edit, "loudnes=2")
    assert refused.returncode == 2
    assert "did you mean 'loudness'" in refused.stderr
    done = freemask(*edit, "loudness=0.5")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["editor"]["name"] == "somebodys"
