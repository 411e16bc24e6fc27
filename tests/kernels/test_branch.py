"""One plain attention of a blend, whole or in part."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from freemask.kernels.branch import Branch, attend_to_two, join_frames


def make_branch(table=None):
    q, k, v = torch.randn(3, 4, 2, 16, 8)
    return Branch(q, k, v, table, 0.3)


def test_a_branch_is_plain_attention():
    branch = make_branch()
    expected = scaled_dot_product_attention(branch.q, branch.k, branch.v, scale=0.3)
    assert torch.equal(branch.run(), expected)
    rows = torch.arange(8).expand(4, 8)
    torch.testing.assert_close(branch.run(rows), expected[:, :, :8])


def test_a_part_gives_its_share_of_the_whole():
    for table in (None, torch.tensor([[0, 0], [0, 1], [1, 3], [2, 0]])):
        branch = make_branch(table)
        part = branch.part(slice(1, 3))
        torch.testing.assert_close(part.run(), branch.run()[1:3])


@pytest.mark.parametrize("known", [True, False])
def test_keys_in_two_places_are_one_attention(known, monkeypatch):
    branch = make_branch()
    k, v = torch.randn(2, 4, 2, 5, 8)
    expected = replace(branch, k=torch.cat([k, branch.k], 2), v=torch.cat([v, branch.v], 2)).run()
    if not known:
        monkeypatch.setattr("freemask.kernels.branch.cpu_flash_attention", lambda: None)
    both = replace(branch, outside=(k, v))
    torch.testing.assert_close(both.run(), expected)
    torch.testing.assert_close(both.part(slice(1, 3)).run(), expected[1:3])
    assert attend_to_two(branch.q, (k, v), (k, v), 0.3).shape == branch.q.shape


def test_a_place_that_no_query_likes_weighs_nothing():
    branch = make_branch()
    far = 1e4 * branch.q[:, :, :1]
    k = torch.cat([-far, -far], 2)
    one = replace(branch, q=branch.q[:, :, :1])
    out = attend_to_two(one.q, (k, torch.full_like(k, 1e6)), (one.k, one.v), one.scale)
    torch.testing.assert_close(out, one.run())


def test_frames_are_joined_in_the_order_of_the_table():
    x = torch.arange(6.0).view(3, 1, 2, 1)
    assert join_frames(x, torch.tensor([[2, 0]])).flatten().tolist() == [4, 5, 0, 1]
    assert join_frames(x, torch.tensor([[1], [0]])).flatten(1).tolist() == [[2, 3], [0, 1]]
    assert join_frames(x, None) is x
