"""The choice of a backend, and the custom operators under autograd and `torch.compile`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from freemask import kernels
from freemask.kernels import backends, blended_attention, dispatch, word_attention
from freemask.kernels.dev.testing import Shape, blend_case
from freemask.kernels.mask_plan import MaskPlan


def blended(**changes):
    arguments = {**vars(blend_case(Shape(queries=70, keys=50, source_keys=50))), **changes}
    q, k, v = (arguments.pop(name) for name in ("q", "k", "v"))
    return blended_attention(q, k, v, **arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton runs here")
def test_triton_is_refused_on_a_cpu_with_the_way_to_interpret_it(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # alone it changes nothing
    says = "needs a CUDA or ROCm device and q is on cpu .*dev.interpreter.interpreted"
    with pytest.raises(RuntimeError, match=says):
        blended(backend="triton")


@pytest.mark.parametrize(
    ("dtype", "dim", "says"),
    [
        (torch.float64, 40, "q is torch.float64"),
        (torch.float32, 12, "head dimensions 8, 16, 24 ... 256 and q has 12"),
        (torch.float32, 264, "q has 264"),
    ],
)
def test_triton_is_refused_with_the_reason(monkeypatch, dtype, dim, says):
    monkeypatch.setattr(backends, "TRITON_DEVICES", ("cuda", "cpu"))
    with pytest.raises(RuntimeError, match=says):
        blend_case(Shape(dim=dim), dtype).run("triton")


def test_triton_is_refused_where_it_is_not_installed(monkeypatch):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="triton is not installed"):
        blended(backend="triton")


def test_an_unknown_backend_is_an_error_that_lists_them():
    with pytest.raises(ValueError, match="one of auto, reference, torch, triton; got 'cuda'"):
        blended(backend="cuda")


def test_auto_is_the_torch_backend_on_a_cpu():
    assert dispatch.choose("auto", torch.zeros(1)) == "torch"
    assert torch.equal(blended(), blended(backend="torch"))


def test_backends_are_listed():
    assert kernels.BACKENDS == ("auto", "reference", "torch", "triton")


def test_importing_the_kernels_imports_neither_triton_nor_the_rest_of_the_package():
    code = (
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        "from freemask import kernels\n"
        "new = set(sys.modules) - before\n"
        "print([m for m in new if m.split('.')[0] == 'triton'])\n"
        "print([m for m in new if m.startswith('freemask.') and 'kernels' not in m])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["[]", "[]"]


def test_no_kernel_module_names_the_rest_of_the_package():
    for path in Path(kernels.__file__).parent.rglob("*.py"):
        imports = re.findall(r"^\s*(?:from|import) (freemask\S*)", path.read_text(), re.MULTILINE)
        outside = [name for name in imports if not name.startswith("freemask.kernels")]
        assert outside in ([], ["freemask"]), f"{path.name} imports {outside}"


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_a_backward_request_is_a_clear_error(backend):
    case = blend_case(Shape())
    out = blended(q=torch.zeros(2, 2, 70, 40, requires_grad=True), backend=backend)
    with pytest.raises(NotImplementedError, match=r"forward only.*blended_attention"):
        out.sum().backward()
    q = case.q.requires_grad_()
    out, _ = word_attention(q, case.k, case.v, word_weights=torch.ones(64), backend=backend)
    with pytest.raises(NotImplementedError, match=r"forward only.*word_attention"):
        out.sum().backward()


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_inference_mode_gives_the_same_bits(backend):
    with torch.inference_mode():
        inside = blended(backend=backend)
    assert torch.equal(inside, blended(backend=backend))


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("queries", [8, 70])
def test_opcheck_of_the_custom_ops(backend, queries):
    case = blend_case(Shape(queries=queries))
    plan = MaskPlan.from_mask(case.mask)
    branches = (case.q, case.k, case.v, case.q_source, case.k_source, case.v_source, None)
    rows = (plan.mask, plan.order, plan.counts)
    ops = torch.ops.freemask
    torch.library.opcheck(ops.plan_rows.default, (case.mask,))
    torch.library.opcheck(
        ops.blended_attention.default, (*branches, *rows, None, 0.2, backend, None)
    )
    others = (case.k, case.v, case.k_source)
    torch.library.opcheck(
        ops.blended_attention.default, (*branches, *rows, None, 0.2, backend, None, *others)
    )
    arguments = (case.q, case.k, case.v, torch.ones(2, 64), 0.2, backend)
    torch.library.opcheck(ops.word_attention.default, arguments)


def test_a_compiled_call_traces_in_one_graph_and_gives_the_same_bits():
    case = blend_case(Shape(queries=70))
    table = [[1, 0], [0, 0]]

    def call(q, k, v, mask):
        sources = {"q_source": k[:, :, :70], "k_source": k}
        return blended_attention(q, k, v, **sources, mask=mask, frame_table=table)

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    tensors = (case.q, case.q_source, case.q, case.mask)
    assert torch.equal(compiled(*tensors), call(*tensors))
    with pytest.raises(ValueError, match=r"lies in \[0, 1\]"):
        compiled(*tensors[:3], case.mask + 2)
