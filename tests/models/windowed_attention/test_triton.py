"""Triton's kernels against the oracle in float64: on a GPU, or slowly on the CPU by TRITON_INTERPRET=1."""

import importlib.util
import math
import os
import sys
from pathlib import Path

import pytest
import torch

from humansplat.models.windowed_attention import attend, plan_windows, windowed_attention

sys.path.insert(0, str(Path(__file__).parent))
from windowed_cases import VARIETY, WINDOWS, check_compiled, random_case, relative_error, with_gradients

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None or not (DEVICE == "cuda" or INTERPRETED),
        reason="needs Triton, and a CUDA device or TRITON_INTERPRET=1",
    ),
]
needs_gpu = pytest.mark.skipif(DEVICE != "cuda", reason="needs a CUDA device")
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}


def assert_equals_the_oracle(case, window, dtype):
    rounded = case._replace(**{name: getattr(case, name).to(dtype) for name in ("query", "key", "value")})
    expected = with_gradients(rounded, window, torch.float64, "dense")
    got = with_gradients(rounded, window, dtype, "triton", DEVICE)
    for name, one, other in zip(("out", "query", "key", "value"), got, expected, strict=True):
        assert relative_error(one, other) < TOLERANCES[dtype], name


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("variety", VARIETY)
def test_equals_dense_in_float64(rng, window, variety):
    assert_equals_the_oracle(random_case(rng, **VARIETY[variety]), window, torch.float32)


@needs_gpu  # the interpreter has no bfloat16
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("window", WINDOWS)
def test_half_precision_equals_dense_in_float64(rng, window, dtype):
    assert_equals_the_oracle(random_case(rng, batch=2, views=3, grid=16, num_tokens=600, heads=4), window, dtype)


@pytest.mark.parametrize("dim", [16, 20, 32, 48, 64, 96, 128])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_gpu)])
def test_any_number_of_channels(rng, dim, dtype):
    assert_equals_the_oracle(random_case(rng, batch=1, num_tokens=30, dim=dim), 2.0, dtype)


@needs_gpu
@pytest.mark.parametrize("seed", range(8))
def test_random_sizes(seed):
    rng = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=rng))

    grid = draw(1, 40)
    case = random_case(
        rng,
        batch=draw(1, 3),
        views=draw(1, 5),
        grid=grid,
        num_tokens=draw(1, 3000),
        heads=draw(1, 9),
        dim=draw(16, 80),
        kept=draw(1, grid * grid) if seed % 2 else None,
        corner=1.0 if seed % 3 else 0.2,
    )
    window = (1, 2, 3, 4, 2.5, 0.3, 7.9, math.inf)[seed % 8]
    for dtype in (torch.float32, torch.bfloat16):
        assert_equals_the_oracle(case, window, dtype)


@needs_gpu
def test_large_grids_and_crowded_cells(rng):
    """More cells and tokens than one block of the sort holds, and thousands of tokens in one cell."""
    case = random_case(rng, batch=1, views=1, grid=100, num_tokens=20000, heads=1)
    assert_equals_the_oracle(case, 2.0, torch.float32)
    crowded = random_case(rng, batch=1, views=1, grid=8, num_tokens=9000, heads=1, corner=0.1)
    assert_equals_the_oracle(crowded, 1.0, torch.float32)


@pytest.mark.parametrize("grid", [1, 3, 100])
def test_the_sorting_grid_changes_nothing(rng, grid):
    case = random_case(rng, batch=1, num_tokens=20)
    on_device = [x.to(DEVICE) for x in case]
    out = windowed_attention(*on_device, 2.0, backend="triton", grid=grid).cpu()
    torch.testing.assert_close(out, windowed_attention(*case, 2.0, backend="dense"), rtol=1e-5, atol=1e-5)


def test_keys_that_are_slices(rng):
    case = random_case(rng, batch=1, num_tokens=20)
    plan = plan_windows(*(x.to(DEVICE) for x in case[3:]), 2.0, backend="triton")
    both = torch.cat([case.key.flatten(2), case.value.flatten(2)], dim=-1).to(DEVICE)
    key, value = (x.unflatten(-1, (2, -1)) for x in both.chunk(2, dim=-1))
    out = attend(case.query.to(DEVICE), key, value, plan).cpu()
    torch.testing.assert_close(out, windowed_attention(*case, 2.0, backend="dense"), rtol=1e-5, atol=1e-5)


@needs_gpu
@pytest.mark.parametrize(
    "shape",
    [(32, 1, 2, True, 32), (64, 2, 3, False, 3), (16, 1, 1, False, 100), (128, 4, 2, True, 8)],
)
def test_the_cut_of_the_work_changes_nothing(rng, shape):
    from humansplat.models.windowed_attention import triton_launch

    case = [x.to(DEVICE) for x in random_case(rng, grid=16, num_tokens=600, heads=4)]
    features, windows = [x.bfloat16() for x in case[:3]], plan_windows(*case[3:], 2.0).sorted
    expected = triton_launch.forward(*features, windows)
    out, lse = triton_launch.forward(*features, windows, triton_launch.Shape(*shape))
    torch.testing.assert_close((out, lse), expected, rtol=2e-2, atol=2e-2)
    of_tokens = triton_launch.Shape(min(shape[0], 64), shape[1], 1, group=32 if shape[3] else 16)
    gradients = triton_launch.backward(out, *features, out, lse, windows, triton_launch.Shape(*shape), of_tokens)
    for got, known in zip(gradients, triton_launch.backward(out, *features, out, lse, windows), strict=True):
        assert relative_error(got.double(), known.double()) < 2e-2


@needs_gpu
def test_auto_takes_triton_on_cuda(rng):
    case = [x.to(DEVICE) for x in random_case(rng)]
    assert plan_windows(*case[3:], 2.0).backend == "triton"
    wide = [x.double() for x in case[:3]]
    assert windowed_attention(*wide, *case[3:], 2.0).dtype == torch.float64  # not by Triton


@needs_gpu
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_without_graph_breaks_it_is_the_same(mode):
    check_compiled("cuda", mode)


@needs_gpu
def test_it_never_builds_the_mask(rng):
    case = [x.to(DEVICE) for x in random_case(rng, batch=1, views=4, grid=64, num_tokens=6890, heads=1)]
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    windowed_attention(*case, 2.0, backend="triton")
    mask = 4 * 64 * 64 * 6890
    assert torch.cuda.max_memory_allocated() - before < mask / 20
