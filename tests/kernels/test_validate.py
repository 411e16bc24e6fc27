"""The checks of the kernels' arguments."""

import pytest
import torch

from freemask.kernels import blended_attention, word_attention
from freemask.kernels.dev.testing import Shape, blend_case
from freemask.kernels.mask_plan import MaskPlan

KEYS = torch.zeros(2, 2, 9, 40)


def blended(**changes):
    arguments = {**vars(blend_case(Shape(queries=70, keys=50, source_keys=50))), **changes}
    q, k, v = (arguments.pop(name) for name in ("q", "k", "v"))
    return blended_attention(q, k, v, **arguments)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"q": torch.zeros(70, 40)}, r"q is \(B, H, N, D\)"),
        ({"k": torch.zeros(2, 2, 0, 40)}, "no empty axis"),
        ({"k": torch.zeros(2, 2, 50, 40).int()}, "k is floating point"),
        ({"v": torch.zeros(2, 2, 50, 40).half()}, "share one dtype"),
        ({"v": torch.zeros(2, 2, 50, 40, device="meta")}, "one device"),
        ({"v": torch.zeros(2, 2, 51, 40)}, "v must be"),
        ({"k": torch.zeros(2, 1, 50, 40)}, "k must be"),
        ({"k": torch.zeros(3, 2, 50, 40)}, "k must be"),
        ({"v_kept": torch.zeros(2, 2, 51, 40)}, "v_kept must be"),
        ({"v_source": torch.zeros(2, 2, 51, 40)}, "v_source must be"),
        ({"v_source": None, "k_source": torch.zeros(2, 2, 9, 40)}, "v_source must be"),
        ({"q_source": torch.zeros(2, 2, 71, 40)}, "q_source must have the shape"),
        ({"mask": torch.zeros(2, 71)}, r"\(B, Nq\) = \(2, 70\)"),
        ({"mask": torch.full((2, 70), 255.0)}, r"lies in \[0, 1\]"),
        ({"mask": MaskPlan.from_mask(torch.zeros(2, 71))}, r"\(B, Nq\) = \(2, 70\)"),
        ({"mask": MaskPlan.from_mask(torch.zeros(2, 70)).to("meta")}, "mask is on meta"),
        ({"scale": 0.0}, "positive and finite"),
        ({"scale": float("nan")}, "positive and finite"),
        ({"frame_table": [[0, 1]]}, "frame_table must be"),
        ({"frame_table": [[0.5], [0.5]]}, "integers"),
        ({"frame_table": [[0], [2]]}, "from 0 to 1"),
        ({"frame_table": [[0], [-1]]}, "from 0 to 1"),
        ({"k_outside": KEYS}, "given together"),
        ({"k_source_outside": KEYS}, "given together"),
        ({"k_outside": KEYS, "v_outside": KEYS[:, :, 1:]}, "v_outside must be"),
        ({"k_outside": KEYS, "v_outside": KEYS.half()}, "share one dtype"),
        (
            {"k_outside": KEYS, "v_outside": KEYS, "frame_table": [[0], [1]]},
            "k_outside and frame_table exclude",
        ),
        (
            {"k_outside": KEYS, "v_outside": KEYS, "v_kept": torch.zeros(2, 2, 50, 40)},
            "k_outside and v_kept exclude",
        ),
        ({"part_bytes": 0}, "part_bytes must be positive, got 0"),
    ],
)
def test_bad_arguments_are_errors_that_say_what_was_expected(changes, says):
    with pytest.raises(ValueError, match=says):
        blended(**changes)


@pytest.mark.parametrize(
    ("weights", "says"),
    [(torch.ones(51), "word_weights must be"), (torch.ones(50, device="meta"), "meta")],
)
def test_bad_word_weights_are_errors(weights, says):
    case = blend_case(Shape(keys=50))
    with pytest.raises(ValueError, match=says):
        word_attention(case.q, case.k, case.v, word_weights=weights)
