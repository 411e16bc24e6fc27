"""The private operator of PyTorch that returns the log-sum-exp of attention on a CPU."""

from types import SimpleNamespace

import pytest
import torch

from freemask.kernels import flash

OPERATOR = getattr(torch.ops.aten, flash.FLASH)


@pytest.fixture
def check_again():
    """Repeats the check of the private operator, before and after a test."""
    flash.cpu_flash_attention.cache_clear()
    yield
    flash.cpu_flash_attention.cache_clear()


def test_this_version_of_pytorch_has_the_operator_as_expected(check_again):
    assert flash.cpu_flash_attention() is not None


def wrong_result(*arguments, **keywords):
    out, normaliser = OPERATOR.default(*arguments, **keywords)
    return out, normaliser.exp()


def failure(*arguments, **keywords):
    raise NotImplementedError("no kernel")


@pytest.mark.parametrize("call", [wrong_result, failure])
def test_an_operator_that_does_not_work_is_not_used(call, check_again, monkeypatch):
    changed = SimpleNamespace(default=call)
    call._schema = OPERATOR.default._schema
    monkeypatch.setattr(torch.ops.aten, flash.FLASH, changed)
    assert flash.cpu_flash_attention() is None


@pytest.mark.parametrize(
    "missing", [None, SimpleNamespace(default=torch.ops.aten.scaled_dot_product_attention.default)]
)
def test_an_operator_of_another_schema_is_not_used(missing, check_again, monkeypatch):
    monkeypatch.setattr(torch.ops.aten, flash.FLASH, missing)
    assert flash.cpu_flash_attention() is None
