"""One plain attention of a blend, whole or in part."""

import torch
from torch.nn.functional import scaled_dot_product_attention

from freemask.kernels.branch import Branch, join_frames


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


def test_frames_are_joined_in_the_order_of_the_table():
    x = torch.arange(6.0).view(3, 1, 2, 1)
    assert join_frames(x, torch.tensor([[2, 0]])).flatten().tolist() == [4, 5, 0, 1]
    assert join_frames(x, torch.tensor([[1], [0]])).flatten(1).tolist() == [[2, 3], [0, 1]]
    assert join_frames(x, None) is x
