"""Keys that an attention does not see, and keys that count several times, by more channels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from freemask.attention.key_channels import repeated, with_copies, without_keys

FRAMES, HEADS, DIM = 3, 2, 4


def test_hidden_keys_have_no_part_in_the_attention() -> None:
    """As if they were not there; where all are hidden, all are seen."""
    q, k, v = (torch.rand(FRAMES, HEADS, n, DIM, dtype=torch.float64) for n in (4, 6, 6))
    hidden = torch.zeros(FRAMES, 6, dtype=torch.bool)
    hidden[0, 2:5], hidden[1] = True, True
    given = {"q": q, "k": k, "v": v, "q_source": q, "k_source": k, "frame_table": None}
    wide = without_keys(given, [(torch.ones(FRAMES, 4), hidden.float())])
    assert wide["frame_table"] is None
    scores = (wide["q"] @ wide["k"].transpose(-1, -2)) * DIM**-0.5
    found = (scores.softmax(-1) @ wide["v"])[..., :DIM]
    for frame, kept in enumerate(([0, 1, 5], range(6), range(6))):
        keys, values = k[frame][:, list(kept)], v[frame][:, list(kept)]
        expected = ((q[frame] @ keys.transpose(-1, -2)) * DIM**-0.5).softmax(-1) @ values
        torch.testing.assert_close(found[frame], expected)
    torch.testing.assert_close(wide["k_source"][..., :DIM], k)
    assert (wide["k_source"][..., DIM:] == 0).all()


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.bfloat16, 2e-2)])
def test_one_key_stands_for_all_padding(dtype: torch.dtype, error: float) -> None:
    """Also where the source has other keys; log(m) keeps its precision in half precision."""
    q, k, v, k_source = (
        torch.randn(FRAMES, HEADS, n, 16, dtype=torch.float64).to(dtype) for n in (7, 5, 5, 3)
    )
    wide = with_copies({"q": q, "k": k, "v": v, "q_source": q, "k_source": k_source}, 400)
    for name, keys, values in (("", k, v), ("_source", k_source, v[:, :, :3])):
        copies = 401 - keys.shape[2]
        every = (x.double() for x in (q, repeated(keys, copies), repeated(values, copies)))
        expected = F.scaled_dot_product_attention(*every)
        given = (wide["q" + name].double(), wide["k" + name].double(), values.double())
        found = F.scaled_dot_product_attention(*given, scale=16**-0.5)
        torch.testing.assert_close(found, expected, rtol=error, atol=error)
    assert (wide["v"][..., :16] == v).all()


def test_keys_for_every_token_stay_as_they_are() -> None:
    k = torch.rand(1, 1, 6, 4)
    given = {"q": k, "k": k, "v": k}
    assert with_copies(given, 6) is given
    assert repeated(k, 1) is k
