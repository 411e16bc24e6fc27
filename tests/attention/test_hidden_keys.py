"""Keys that an attention does not see, by one more channel."""

from __future__ import annotations

import torch

from freemask.attention.hidden_keys import without_keys

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
