"""The reference: the blend of attention maps, and the frames that it joins."""

from dataclasses import replace

import torch

from freemask.kernels.dev.testing import Shape, blend_case
from freemask.kernels.reference import attention_map, gather_frames


def test_the_reference_is_the_blend_of_maps():
    case = blend_case(Shape(), torch.float64)
    weight = case.mask[:, None, :, None].double()
    edit = attention_map(case.q, case.k, 40**-0.5)
    source = attention_map(case.q_source, case.k_source, 40**-0.5)
    blended_map = weight * edit + (1 - weight) * source
    out = replace(case, v_source=case.v).run("reference")
    torch.testing.assert_close(out, blended_map @ case.v, rtol=0, atol=1e-14)


def test_frames_are_joined_in_the_order_of_the_table():
    x = torch.arange(6.0).view(3, 1, 2, 1)
    joined = gather_frames(x, torch.tensor([[2, 0], [1, 1]]))
    assert joined.flatten(1).tolist() == [[4, 5, 0, 1], [2, 3, 2, 3]]
    assert gather_frames(x, None) is x
