"""The interpreter of the Triton kernels: switched on by its context alone, and restored after."""

import subprocess
import sys

import pytest
import torch

from freemask.kernels import backends
from freemask.kernels.dev.interpreter import interpreted
from freemask.kernels.dev.testing import Shape, blend_case

interpreter_of_triton = pytest.importorskip("triton.runtime.interpreter")


def test_the_context_restores_all_that_it_replaces():
    from triton.runtime.jit import JITFunction

    builder = interpreter_of_triton.interpreter_builder

    def state():
        functions = builder.create_dot, builder.cast_impl, JITFunction.__call__, JITFunction.run
        return *functions, backends.TRITON_DEVICES

    before = state()
    with interpreted():
        assert all(inside != outside for inside, outside in zip(state(), before, strict=True))
    assert state() == before


def test_an_error_inside_the_context_restores_it_too():
    with pytest.raises(ValueError, match="stop"), interpreted():
        raise ValueError("stop")
    assert "cpu" not in backends.TRITON_DEVICES


@pytest.mark.parametrize("variable", ["0", "1"])
def test_the_kernels_run_whether_or_not_triton_was_imported_to_interpret(variable):
    """bfloat16 is the type that Triton's own interpreter computes wrongly."""
    code = """
import torch, triton
from freemask.kernels.dev.interpreter import interpreted
from freemask.kernels.dev.interpreter import interpreted
from freemask.kernels.dev.testing import Shape, assert_within_budget, blend_case
case = blend_case(Shape(batch=1, queries=20, keys=20, source_keys=20), torch.bfloat16)
with interpreted():
    assert_within_budget(case, "triton")
try:
    case.run("triton")
except RuntimeError as error:
    print(error)
"""
    environment = {"TRITON_INTERPRET": variable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "freemask.kernels.dev.interpreter.interpreted()" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="auto is Triton on a GPU")
def test_auto_stays_the_torch_backend_inside_the_context():
    case = blend_case(Shape(queries=20))
    with interpreted():
        assert torch.equal(case.run("auto"), case.run("torch"))
