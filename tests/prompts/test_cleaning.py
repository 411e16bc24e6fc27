"""Prompts are cleaned as Wan's pipeline cleans them."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from diffusers.pipelines.wan.pipeline_wan import prompt_clean

from freemask.prompts.cleaning import clean


@pytest.mark.parametrize(
    ("prompt", "cleaned"),
    [
        ("a bear", "a bear"),
        ("  a\n\tbear\u00a0 on\u3000snow ", "a bear on snow"),
        ("a bear &amp; a panda", "a bear & a panda"),
        ("&amp;quot;bear&amp;quot;&nbsp;", '"bear"'),
        ("&amp;amp;amp;", "&amp;"),
        ("一只熊\uff0c在雪地里", "一只熊\uff0c在雪地里"),
        ("", ""),
    ],
)
def test_entities_and_spaces_are_resolved(
    monkeypatch: pytest.MonkeyPatch, prompt: str, cleaned: str
) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    assert clean(prompt) == cleaned


@pytest.mark.parametrize("prompt", ["a  bear &amp;lt; b\u0085c", " 熊\u200b ", "a &#x1F43B; &nbsp"])
def test_prompts_are_those_of_the_pipeline(prompt: str) -> None:
    assert clean(prompt) == prompt_clean(prompt)


def test_text_is_repaired_before_entities_are_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    def fix_text(text: str) -> str:
        return text.replace("Ã©", "&eacute;")

    monkeypatch.setitem(sys.modules, "ftfy", SimpleNamespace(fix_text=fix_text))
    assert clean("a bÃ©ar") == "a béar"
