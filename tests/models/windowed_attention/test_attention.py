import importlib.util
import logging
import math
import sys
from pathlib import Path

import pytest
import torch

from humansplat.errors import UserError
from humansplat.models.layers import Attention, WindowedAttention
from humansplat.models.windowed_attention import attend, plan_windows, windowed_attention
from humansplat.models.windowed_attention import attention as interface

sys.path.insert(0, str(Path(__file__).parent))
from windowed_cases import VARIETY, WINDOWS, by_loops, random_case, relative_error, with_gradients


@pytest.mark.parametrize("window", WINDOWS)
def test_dense_and_cpu_equal_the_definition(rng, window):
    case = random_case(rng, grid=5, num_tokens=14)
    expected = by_loops(case, window)
    for backend in ("dense", "cpu"):
        out = with_gradients(case, window, torch.float64, backend)[0]
        torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("variety", VARIETY)
def test_cpu_equals_dense_in_float64(rng, window, variety):
    case = random_case(rng, **VARIETY[variety])
    expected = with_gradients(case, window, torch.float64, "dense")
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        rounded = case._replace(**{name: getattr(case, name).to(dtype) for name in ("query", "key", "value")})
        truth = expected if dtype == torch.float32 else with_gradients(rounded, window, torch.float64, "dense")
        for got, known in zip(with_gradients(rounded, window, dtype, "cpu"), truth, strict=True):
            assert relative_error(got, known) < tolerance


def test_gradients_equal_finite_differences(rng):
    case = random_case(rng, batch=1, views=1, grid=3, num_tokens=4, heads=1, dim=3)
    leaves = [x.double().requires_grad_() for x in case[:3]]
    assert torch.autograd.gradcheck(lambda q, k, v: windowed_attention(q, k, v, *case[3:], 2.0, backend="cpu"), leaves)


@pytest.mark.parametrize("grid", [1, 3, 200])
def test_the_sorting_grid_changes_nothing(rng, grid):
    case = random_case(rng)
    expected = windowed_attention(*case, 2.0, backend="dense")
    torch.testing.assert_close(windowed_attention(*case, 2.0, backend="cpu", grid=grid), expected)


def test_threads_change_nothing(rng):
    case = random_case(rng, grid=20, num_tokens=200)
    threads = torch.get_num_threads()
    try:
        results = []
        for number in (1, 3):
            torch.set_num_threads(number)
            results.append(with_gradients(case, 2.0, torch.float32, "cpu"))
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_one_plan_serves_many_layers_and_keys_that_are_slices(rng):
    case = random_case(rng)
    plan = plan_windows(*case[3:], 2.0)
    assert plan.backend == "cpu"
    key, value = torch.cat([case.key, case.value], dim=-1).chunk(2, dim=-1)
    expected = windowed_attention(*case, 2.0, backend="dense")
    for _ in range(2):
        torch.testing.assert_close(attend(case.query, key, value, plan), expected)


def test_the_operators_keep_their_contracts(rng):
    case = random_case(rng, grid=3, num_tokens=9)
    ordered = plan_windows(*case[3:], 2.0, backend="cpu").sorted
    ops = torch.ops.humansplat
    names = ("cells", "tokens", "inside", "query_order", "query_start", "token_order", "token_positions", "bin_start")
    rest = (*(getattr(ordered, name) for name in names), ordered.tiles, 2.0, ordered.grid)
    out, lse = ops.windowed_attention(*case[:3], *rest)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(ops.sort_windows.default, (*case[3:], 2.0, ordered.grid), test_utils=checks)
    torch.library.opcheck(ops.windowed_attention.default, (*case[:3], *rest), test_utils=checks)
    gradient = (torch.ones_like(out), *case[:3], out, lse, *rest)
    torch.library.opcheck(ops.windowed_attention_backward.default, gradient, test_utils=checks)


def test_auto_takes_what_suits_the_device_and_the_window(rng):
    case = random_case(rng)
    assert plan_windows(*case[3:], 2.0).backend == "cpu"
    assert plan_windows(*case[3:], math.inf).backend == "dense"


def test_without_triton_cuda_falls_back_with_one_notice(monkeypatch, caplog):
    monkeypatch.setattr(interface, "_HAS_TRITON", False)
    interface._notice.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert {interface._choose(torch.device("cuda"), 2.0) for _ in range(3)} == {"dense"}
    assert len(caplog.records) == 1
    assert "Triton is not installed" in caplog.text


def test_what_cannot_run_is_refused(rng):
    case = random_case(rng)
    with pytest.raises(UserError, match=r"window is 0\.0"):
        windowed_attention(*case, 0.0)
    with pytest.raises(UserError, match="window is nan"):
        windowed_attention(*case, math.nan)
    with pytest.raises(UserError, match="give one type to all"):
        windowed_attention(case.query.double(), *case[1:], 2.0)
    with pytest.raises(UserError, match="cells, tokens and inside are on cpu, meta and cpu"):
        plan_windows(case.cells, case.tokens.to("meta"), case.inside, 2.0)
    with pytest.raises(UserError, match="query, key, value and windows are on cpu, meta, cpu and cpu"):
        attend(case.query, case.key.to("meta"), case.value, plan_windows(*case[3:], 2.0))


def test_triton_on_the_cpu_is_refused(rng, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UserError, match="needs tensors on a CUDA device, not on cpu"):
        windowed_attention(*random_case(rng), 2.0, backend="triton")


@pytest.mark.skipif(importlib.util.find_spec("xformers") is not None, reason="xformers is installed")
def test_xformers_is_refused_where_it_is_missing(rng):
    with pytest.raises(UserError, match=r"backend='xformers' cannot be used: xformers does not load \(No module"):
        windowed_attention(*random_case(rng), 2.0, backend="xformers")


def test_the_module_attends_over_the_seen_tokens_only(rng):
    """Each cell's result equals plain attention over the tokens in its window; a lonely cell's is the bias."""
    torch.manual_seed(0)
    module = WindowedAttention(width=8, num_heads=2).double()
    plain = Attention(width=8, num_heads=2).double()
    plain.load_state_dict(module.state_dict())
    case = random_case(rng, batch=1, views=2, grid=3, num_tokens=6)
    queries = torch.randn(1, 18, 8, generator=rng).double().requires_grad_()
    context = torch.randn(1, 6, 8, generator=rng).double()
    mask = plan_windows(*case[3:], 2.0, backend="dense").mask.flatten(1, 2)[0]
    out = module(queries, context, plan_windows(*case[3:], 2.0))
    for i in range(18):
        alone = plain(queries[:, i : i + 1], context[:, mask[i]])[:, 0] if mask[i].any() else module.to_out.bias[None]
        torch.testing.assert_close(out[:, i], alone)
    out.square().sum().backward()
    lonely = ~mask.any(dim=-1)
    assert 0 < lonely.sum() < 18
    assert (queries.grad[0, lonely] == 0).all()
    assert queries.grad.isfinite().all()


def test_the_module_is_the_same_either_way_in_float64(rng):
    """What the ways differ by in float32 is the order of sums: shipped weights, whose colours move by 3e-5, too."""
    torch.manual_seed(0)
    module = WindowedAttention(width=64, num_heads=4).double()
    case = random_case(rng, batch=1, views=2, grid=12, num_tokens=400)
    queries, context = torch.randn(1, 288, 64, generator=rng).double(), torch.randn(1, 400, 64, generator=rng).double()
    dense, sorted_ = (module(queries, context, plan_windows(*case[3:], 2.0, backend=way)) for way in ("dense", "cpu"))
    torch.testing.assert_close(sorted_, dense, rtol=0, atol=1e-12)
