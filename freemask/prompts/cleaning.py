"""Cleans prompts as Wan's pipeline does before it encodes them."""

from __future__ import annotations

import contextlib
import html
import importlib


def clean(prompt: str) -> str:
    """Returns a prompt as `WanPipeline` of diffusers encodes it.

    Repairs wrongly decoded text by ftfy where that package is installed, resolves HTML entities
    twice (`&amp;quot;` is a quotation mark), and turns each run of whitespace into one space.
    """
    with contextlib.suppress(ImportError):  # without ftfy, diffusers skips the repair too
        prompt = importlib.import_module("ftfy").fix_text(prompt)
    return " ".join(html.unescape(html.unescape(prompt)).split())
