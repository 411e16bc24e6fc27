"""Long sequences: how many run together, and groups that stay bit-identical."""

import pytest
import torch

from freemask.kernels.mask_plan import MaskPlan
from freemask.kernels.row_groups import (
    FEWEST_ROWS,
    GROUP,
    LARGER_BLOCKS,
    even_parts,
    group_size,
    row_parts,
)


def lengths(mask, part_bytes, table=None):
    q = torch.zeros(*mask.shape[:1], 2, mask.shape[1], 8)
    parts = even_parts(q, MaskPlan.from_mask(mask).counts, table, part_bytes * q[0].nbytes)
    assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
    assert (parts[0].start, parts[-1].stop) == (0, len(mask))
    return [part.stop - part.start for part in parts]


@pytest.mark.parametrize(("count", "expected"), [(100, [5]), (2, [2, 2, 1]), (0.5, [1] * 5)])
def test_sequences_run_together_up_to_the_given_bytes(count, expected):
    mask = (torch.arange(64) < 20).float().expand(5, 64)
    assert lengths(mask, count) == expected


def test_sequences_of_uneven_coverage_run_one_by_one():
    mask = (torch.arange(64) < torch.arange(0, 50, 10)[:, None]).float()
    assert lengths(mask, 100) == [1] * 5


def test_sequences_with_a_frame_table_run_one_by_one():
    mask = (torch.arange(64) < 20).float().expand(5, 64)
    assert lengths(mask, 100, torch.zeros(5, 2, dtype=torch.int32)) == [1] * 5


def test_groups_grow_to_whole_blocks():
    assert [group_size(rows) for rows in (0, 1, 8, 9, 160)] == [0, GROUP, 8, 16, 160]
    assert [group_size(rows) for rows in (169, 191, 192, 193)] == [192, 192, 192, 200]
    assert group_size(704) == LARGER_BLOCKS[-1]


@pytest.mark.parametrize("rows", [1, 8, 1536, 1537, 5000, 32760])
@pytest.mark.parametrize("wanted", [1, 2000, 10**6])
def test_long_sequences_run_in_whole_groups_of_rows_of_nearly_equal_number(rows, wanted):
    out = torch.empty(2, 3, 40_000, 8, device="meta")
    parts = row_parts(out, rows, wanted * out[:, :, :1].nbytes)
    covered = [row for part in parts for row in range(part.start, part.stop)]
    assert covered == list(range(rows))
    lengths = [part.stop - part.start for part in parts]
    most = max(wanted, FEWEST_ROWS)
    assert all(length <= most and length % GROUP == 0 for length in lengths[:-1])
    assert len(parts) == -(-rows // most)
    assert max(lengths) - min(lengths) <= GROUP * len(parts)
