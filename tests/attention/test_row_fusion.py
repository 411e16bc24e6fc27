"""Edits that compute the tokens inside their mask: where they equal edits over all tokens.

`inside` and `all` are the same function where the tokens outside show the same keys and values:

    a mask of ones                     nothing lies outside
    one block                          its keys and values outside depend on latents outside alone
    the source's own latents and text  the edit is the source
    outside=own, source_every=1        every step is a pass over all tokens

Wan computes norms in float32 whatever the dtype, so equality holds to its rounding.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_wan import write_wan
from torch import Tensor

from freemask.attention.branches import lane_calls
from freemask.attention.fusion import Fusion
from freemask.attention.row_fusion import RowFusion
from freemask.editors import load_editor
from freemask.editors.editor import Editor
from freemask.prepare import prepare
from freemask.sampling.guidance import make_fusion, predict_guided
from freemask.types import EditRequest, InputError, Inversion, Masks, Trajectory, Video

SIZE, STEPS = (32, 48), 6
PROMPTS = ("a bear on the grass", "a panda on the grass")
FUSED = {"fusion.self_replace": [0, 1], "fusion.cross_replace": [0, 1]}
PLAIN = {"fusion.self_replace": [0, 0], "fusion.cross_replace": [0, 0]}
ONES = torch.ones(9, *SIZE)
BOX = torch.zeros(9, *SIZE)
BOX[:, 8:24, 16:40] = 1
SOFT = BOX * 0.4 + 0.6 * BOX.roll((4, 4), (1, 2)) * BOX


@pytest.fixture(scope="module")
def one_block(tmp_path_factory: pytest.TempPathFactory) -> Editor:
    folder: Path = tmp_path_factory.mktemp("one")
    write_wan(folder, transformer={"num_layers": 1})
    return load_editor("wan", checkpoint=folder, device="cpu")


class Step:
    """One step of an edit of random latents, which are the source's outside the mask."""

    def __init__(
        self,
        editor: Editor,
        mask: Tensor,
        *,
        prompts: tuple[str, str] = PROMPTS,
        guidance: float = 5.0,
        same: bool = False,
        **overrides: Any,
    ) -> None:
        frames = np.random.default_rng(0).integers(0, 256, (9, *SIZE, 3), dtype=np.uint8)
        settings = {"strength": 1.0, "fusion.margin": 0.0, "flow.state": "pinned", **overrides}
        request = EditRequest(
            *prompts, words=("bear", "panda" if "panda" in prompts[1] else "bear"),
            steps=STEPS, guidance=guidance, overrides=settings,
        )  # fmt: skip
        self.editor = editor
        self.prepared = prepare(editor, Video(frames), request, mask=mask)
        generator = torch.Generator().manual_seed(0)
        self.source = torch.randn(1, editor.latent_channels, 3, 8, 12, generator=generator)
        inside = editor.latent_time.union(mask)[:, ::4, ::4] > 0
        other = torch.randn(self.source.shape, generator=generator)
        self.current = self.source if same else torch.where(inside, other, self.source)
        trajectory = Trajectory(torch.zeros(STEPS + 1, *self.source.shape[1:]), ())
        self.inversion = Inversion(trajectory, {}, prompts[0])
        self.fusion = make_fusion(editor, self.prepared, self.inversion, Masks(mask[None], "given"))
        self.inside = inside

    def run(self, step: int = 0) -> dict[str, Tensor]:
        self.fusion.at(step)
        arguments = (self.editor, self.prepared, self.fusion, self.source, self.current, 700.0)
        with torch.no_grad(), self.editor.hooked(self.prepared.sites, self.fusion):
            return predict_guided(*arguments)

    def edit(self, step: int = 0) -> Tensor:
        """Returns the guided output of the edit inside the mask."""
        return self.run(step)["edit"][:, :, self.inside]


def both(editor: Editor, mask: Tensor, **keywords: Any) -> tuple[Step, Step]:
    made = [Step(editor, mask, **{"fusion.rows": rows}, **keywords) for rows in ("all", "inside")]
    assert [type(step.fusion) for step in made] == [Fusion, RowFusion]
    return made[0], made[1]


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fusion", [PLAIN, FUSED], ids=["plain", "fused"])
@pytest.mark.parametrize("state", ["pinned", "coupled"])
def test_a_mask_of_ones_gives_the_edit_over_all_tokens(
    state: str, fusion: dict[str, Any], wan: Editor
) -> None:
    dense, sparse = both(wan, ONES, **fusion, **{"flow.state": state})
    for branch, output in dense.run().items():
        close(sparse.run()[branch], output)


@pytest.mark.parametrize("mask", [BOX, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize("masked", [["cross", "self", "latents"], ["latents"]], ids=str)
@pytest.mark.parametrize("fusion", [PLAIN, FUSED], ids=["plain", "fused"])
def test_one_block_gives_the_edit_over_all_tokens(
    fusion: dict[str, Any], masked: list[str], mask: Tensor, one_block: Editor
) -> None:
    dense, sparse = both(one_block, mask, **fusion, **{"fusion.masked": masked})
    close(sparse.edit(), dense.edit())


def test_one_block_with_weighted_words_gives_the_edit_over_all_tokens(one_block: Editor) -> None:
    weight = {**PLAIN, "fusion.word_weight": 2.5}
    dense, sparse = both(one_block, BOX, **weight)
    close(sparse.edit(), dense.edit())
    assert not torch.allclose(sparse.edit(), Step(one_block, BOX, **PLAIN).edit(), atol=1e-4)


@pytest.mark.parametrize("fusion", [PLAIN, FUSED], ids=["plain", "fused"])
def test_one_block_that_erases_gives_the_edit_over_all_tokens(
    fusion: dict[str, Any], one_block: Editor
) -> None:
    erase = {**fusion, "fusion.erase": [0, 1], "fusion.masked": ["cross", "self", "latents"]}
    dense, sparse = both(one_block, BOX, **erase)
    close(sparse.edit(), dense.edit())
    kept = Step(one_block, BOX, **{**erase, "fusion.erase": [0, 0]})
    assert not torch.allclose(sparse.edit(), kept.edit(), atol=1e-4)


@pytest.mark.parametrize("fusion", [PLAIN, FUSED], ids=["plain", "fused"])
def test_one_block_with_a_word_for_each_part_gives_the_edit_over_all_tokens(
    fusion: dict[str, Any], one_block: Editor
) -> None:
    steps, former = both(one_block, BOX, **fusion), Step(one_block, BOX, **fusion).edit()
    left, right = BOX[::4].clone(), BOX[::4].clone()  # of latent frames
    left[..., 28:], right[..., :28] = 0, 0
    text = steps[0].prepared.text["edit"].shape[1]
    words = tuple(torch.arange(text) == token for token in (1, 4))
    for step in steps:
        masks = replace(step.fusion.masks, parts=(left[None], right[None]))
        step.fusion = replace(step.fusion, masks=masks, part_words=words)
    close(steps[1].edit(), steps[0].edit())
    assert not torch.allclose(steps[0].edit(), former, atol=1e-4)


def test_a_guided_source_gives_the_velocities_over_all_tokens(one_block: Editor) -> None:
    coupled = {"flow.state": "coupled", "flow.source_guidance": 3.0, **PLAIN}
    dense, sparse = both(one_block, BOX, **coupled)
    close(sparse.edit(), dense.edit())
    inside = dense.inside
    close(sparse.run()["source"][:, :, inside], dense.run()["source"][:, :, inside])


def test_an_edit_that_is_the_source_gives_the_source(wan: Editor) -> None:
    prompts = (PROMPTS[0], PROMPTS[0])
    dense, sparse = both(wan, BOX, prompts=prompts, guidance=1.0, same=True, **PLAIN)
    close(sparse.edit(), dense.edit())


def test_several_blocks_differ_where_the_source_shows_other_keys(wan: Editor) -> None:
    dense, sparse = both(wan, BOX, **PLAIN)
    assert not torch.allclose(sparse.edit(), dense.edit(), atol=1e-4)


@pytest.mark.parametrize("fusion", [PLAIN, FUSED], ids=["plain", "fused"])
def test_own_keys_of_the_same_step_give_the_edit_over_all_tokens(
    fusion: dict[str, Any], wan: Editor
) -> None:
    dense, sparse = both(wan, BOX, **fusion, **{"fusion.outside": "own"})
    close(sparse.edit(), dense.edit())


@pytest.mark.parametrize("fusion", [PLAIN, FUSED], ids=["plain", "fused"])
@pytest.mark.parametrize("outside", ["source", "own"])
def test_kept_keys_serve_until_they_are_computed_again(
    outside: str, fusion: dict[str, Any], wan: Editor
) -> None:
    """Latents outside that change between two refreshes are not seen before the second."""
    kept = {"fusion.outside": outside, "fusion.source_every": 2, "fusion.rows": "inside"}
    step = Step(wan, BOX, **fusion, **kept)
    first = step.edit(0)
    moved = step.source + torch.where(step.inside, 0.0, 1.0)
    step.current = torch.where(step.inside, step.current, moved)
    step.source = moved
    close(step.edit(1), first)
    assert not torch.allclose(step.edit(2), first, atol=1e-4)


def test_a_branch_reads_its_own_keys_after_guidance_has_ended(wan: Editor) -> None:
    kept = {"fusion.outside": "own", "fusion.source_every": 2, "fusion.rows": "inside", **PLAIN}
    guided = Step(wan, BOX, **kept, guidance_range=[0.0, 0.5 / STEPS])  # in the first step alone
    alone = Step(wan, BOX, guidance=1.0, **kept)
    assert not torch.allclose(guided.edit(0), alone.edit(0), atol=1e-4)
    close(guided.edit(1), alone.edit(1))


def test_a_branch_that_begins_computes_its_own_keys(wan: Editor) -> None:
    kept = {"fusion.outside": "own", "fusion.source_every": 2, "fusion.rows": "inside", **PLAIN}
    later = Step(wan, BOX, **kept, guidance_range=[0.5 / STEPS, 1.0])  # from the second step on
    later.edit(0)
    close(later.edit(1), Step(wan, BOX, **kept).edit(0))


CALLS = {  # of steps 0, 1, 2; c is the share of the tokens inside
    ("pinned", "source", 1): lambda c: (1 + 2 * c,) * 3,
    ("pinned", "source", 2): lambda c: (1 + 2 * c, 2 * c, 1 + 2 * c),
    ("pinned", "own", 2): lambda c: (2, 2 * c, 2),
    ("coupled", "source", 1): lambda c: (1 + 2 * c,) * 3,
    ("coupled", "source", 3): lambda c: (1 + 2 * c, 3 * c, 3 * c),
    ("coupled", "own", 2): lambda c: (3, 3 * c, 3),
}


@pytest.mark.parametrize(("state", "outside", "every"), CALLS)
def test_a_step_costs_what_its_lanes_carry(
    state: str, outside: str, every: int, wan: Editor
) -> None:
    keys = {"flow.state": state, "fusion.outside": outside, "fusion.source_every": every}
    guided = {"flow.source_guidance": 1.0, "guidance_range": [0.0, 1.0]}
    step = Step(wan, BOX, **PLAIN, **keys, **guided, **{"fusion.rows": "inside"})
    fusion = step.fusion
    assert isinstance(fusion, RowFusion)
    found, coverage = [], fusion.coverage
    for number in range(3):
        fusion.at(number)
        found.append(sum(lane.calls(coverage) for lane in fusion.lanes))
    expected = CALLS[state, outside, every](coverage)
    assert found == pytest.approx(expected)
    assert coverage == pytest.approx(1 / 4, abs=0.1)
    run = (replace(fusion.plan, steps=3), 0, fusion.reads)
    assert lane_calls(*run, fusion.settings, coverage) == pytest.approx(sum(expected))


def test_what_a_lane_leaves_lives_for_one_block(wan: Editor) -> None:
    step = Step(wan, BOX, **FUSED, **{"fusion.rows": "inside"})
    fusion = step.fusion
    assert isinstance(fusion, RowFusion)
    held: list[int] = []
    attend = RowFusion.__call__

    def counting(call: Any) -> Tensor:
        out = attend(fusion, call)
        held.append(len(fusion._outside))
        return out

    step.fusion.at(0)
    with torch.no_grad(), wan.hooked(step.prepared.sites, counting):
        predict_guided(wan, step.prepared, fusion, step.source, step.current, 700.0)
    assert max(held) == 1
    assert held[-1] == 0


def test_auto_takes_fewer_calls(wan: Editor) -> None:
    assert isinstance(Step(wan, BOX, **PLAIN).fusion, RowFusion)
    assert type(Step(wan, ONES, **PLAIN).fusion) is Fusion  # 3 calls a step against 2
    coupled = {"flow.state": "coupled", **PLAIN}
    assert isinstance(Step(wan, BOX, **coupled).fusion, RowFusion)
    assert type(Step(wan, ONES, **coupled).fusion) is Fusion  # as many: the simpler one


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"fusion.latent_blend": [0.0, 0.8]}, "latents outside the mask are not the source's"),
        ({"fusion.latent_blend": [0.5, 1.0]}, "latents outside the mask are not the source's"),
        ({"fusion.masked": ["cross"]}, "latents outside the mask are not the source's"),
    ],
)
def test_rows_inside_need_the_sources_latents_outside(
    overrides: dict[str, Any], says: str, wan: Editor
) -> None:
    with pytest.raises(InputError, match=says):
        Step(wan, BOX, **FUSED, **overrides, **{"fusion.rows": "inside"})
    assert type(Step(wan, BOX, **FUSED, **overrides).fusion) is Fusion


@pytest.mark.parametrize("state", ["pinned", "coupled"])
def test_guidance_outside_its_range_takes_the_prompts_prediction(state: str, wan: Editor) -> None:
    for rows in ("all", "inside"):
        keys = {"fusion.rows": rows, "flow.state": state, **PLAIN}
        guided = Step(wan, BOX, **keys, guidance_range=[0.0, 0.5])
        alone = Step(wan, BOX, guidance=1.0, **keys)
        always = Step(wan, BOX, **keys)
        close(guided.edit(0), always.edit(0))
        close(guided.edit(3), alone.edit(3))
        plans = [guided.fusion.plan, alone.fusion.plan]
        assert plans[0].extra(3) == plans[1].extra(3) == ()
        assert plans[0].extra(2) != ()
