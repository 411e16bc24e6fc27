"""The tuner of the tile table, with a timer that needs no GPU."""

import json
import math

import pytest
import torch

from freemask.kernels.dev import tune
from freemask.kernels.triton import tiles


def test_the_tuner_writes_the_fastest_rows_in_the_form_of_the_table(tmp_path):
    def seconds(row, dtype):  # fastest at the largest blocks that "fit"
        _, block_m, block_n, warps, stages = row
        fits = block_m * block_n <= 64 * 64 and (warps, stages) == (4, 2)
        return 1 / (block_m * block_n) + block_n * 1e-9 if fits else math.inf

    out = tmp_path / "tiles.json"
    assert tune.main(["--out", str(out)], seconds) == 0
    tuned = json.loads(out.read_text())
    assert tuned["HALF"] == [[dim, 128, 32, 4, 2] for dim in tune.DIMS]
    assert tuned["HALF"][-1][0] == tiles.HALF["sm_90"][-1][0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="would tune this GPU")
def test_tuning_without_a_gpu_is_an_error(capsys):
    with pytest.raises(SystemExit):
        tune.main([])
    assert "none is available" in capsys.readouterr().err
