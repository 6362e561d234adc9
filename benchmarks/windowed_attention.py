"""Time windowed attention against dense attention with a mask: the four views of a person and their body's tokens.

python benchmarks/windowed_attention.py [--device cuda|cpu] [--only main|cost|shapes] [--plot FILE.png]

A posed default body stands before the four cameras of the data's rig; some of its vertices are the tokens, and every
cell of every view asks. What is timed begins with projected tokens and ends with the attended values, the sorting of
the tokens included; the dense mask is made beforehand and costs no time. Memory is what a call adds to its inputs at
its peak; scratch memory is that without what any implementation must hold (the output, and in the backward pass the
gradients), and with the dense mask, a byte a pair. On a GPU the times are medians by CUDA events, the cache cleared
before each call; those of a captured graph leave out the launches, and are what the cost tables show; those by the
clock are of calls launched one after the other, which wait for Python where that is slower. On the CPU they are
medians of the seconds of all threads. ``shapes`` tries ways to cut the work for the GPU. The plot needs matplotlib.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from call_times import added_bytes, captured
from torch import Tensor

from humansplat.body.anny import AnnyBody
from humansplat.data.rig import draw_rig
from humansplat.models.windowed_attention import attend, plan_windows, windowed_attention
from humansplat.models.windows import project_to_cells, window_mask

CELL = 8  # pixels
TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
COSTS = {
    "cuda": {
        "window": (1.0, 2.0, 3.0, 4.0, 6.0, 8.0),
        "num_tokens": (1722, 3445, 6890, 13718),
        "grid": (16, 32, 64, 96, 128),
    },
    "cpu": {"window": (1.0, 2.0, 4.0, 8.0, 16.0), "num_tokens": (384, 1536, 6890), "grid": (16, 32, 48)},
}
SHAPES = {  # block, warps, stages, pair
    "forward": (
        (32, 1, 2, False),
        (32, 2, 2, False),
        (64, 2, 2, False),
        (64, 2, 3, False),
        (64, 4, 2, False),
        (128, 4, 2, False),
        (32, 2, 2, True),
        (64, 2, 2, True),
        (64, 4, 2, True),
        (128, 4, 2, True),
    ),
    "gradients of queries": (
        (16, 2, 2, False),
        (32, 2, 2, False),
        (32, 4, 2, False),
        (64, 2, 2, False),
        (64, 4, 2, False),
        (64, 4, 1, False),
        (128, 4, 2, False),
    ),
    "gradients of tokens": (  # and tokens a program
        (16, 2, 1, False, 0, 16),
        (16, 4, 1, False, 0, 32),
        (32, 2, 1, False, 0, 16),
        (32, 4, 1, False, 0, 16),
        (32, 4, 1, False, 0, 32),
        (64, 4, 1, False, 0, 16),
        (64, 4, 1, False, 0, 32),
    ),
}
NAMES = {"window": "K", "num_tokens": "tokens", "grid": "cells a side"}


class Sizes(NamedTuple):
    """What a problem's cost depends on."""

    grid: int
    """Cells along a side of a view."""
    num_tokens: int
    heads: int
    dim: int
    window: float


MAIN = {"cuda": Sizes(64, 6890, 16, 64, 2.0), "cpu": Sizes(32, 1536, 4, 64, 2.0)}


class Scene(NamedTuple):
    """One problem; queries, keys and values are random."""

    query: Tensor
    key: Tensor
    value: Tensor
    cells: Tensor
    tokens: Tensor
    inside: Tensor
    window: float


def posed_vertices() -> np.ndarray:
    """A grown-up in no particular pose, metres."""
    body = AnnyBody.load()
    person = body.neutral(1)
    bend = 0.15 * torch.randn(person["rotations"].shape, generator=torch.Generator().manual_seed(0))
    bend[:, 0] = 0.0
    with torch.no_grad():
        return body.pose({**person, "rotations": person["rotations"] + bend}).vertices[0].numpy()


def make_scene(vertices: np.ndarray, device: str, dtype: torch.dtype, sizes: Sizes) -> Scene:
    """Project some vertices into the rig's first four cameras."""
    grid, num_tokens, heads, dim, window = sizes
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(vertices), generator=generator)[:num_tokens]
    points = torch.from_numpy(vertices)[chosen]
    cameras = draw_rig(vertices, np.random.default_rng(0), grid * CELL, 0, 0)[0]
    tokens, inside = project_to_cells(points[None], cameras.map(lambda x: x[None]), CELL)
    index = torch.arange(grid * grid)
    cells = (torch.stack([index % grid, index // grid], dim=-1) + 0.5).expand(1, 4, -1, 2)
    query = torch.randn(1, 4, grid * grid, heads, dim, generator=generator)
    key, value = torch.randn(2, 1, num_tokens, heads, dim, generator=generator)
    features = [x.to(device, dtype) for x in (query, key, value)]
    return Scene(*features, *(x.contiguous().to(device) for x in (cells, tokens, inside)), window)


def dense_call(scene: Scene) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Scaled dot-product attention with the mask at hand; no care is taken of queries that see nothing."""
    mask = window_mask(scene.cells, scene.tokens, scene.inside, scene.window).flatten(1, 2)[:, None]

    def call(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows = query.flatten(1, 2).transpose(1, 2)
        return F.scaled_dot_product_attention(rows, key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask)

    return call


def windowed_call(scene: Scene) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The library's function, sorting included."""
    return lambda query, key, value: windowed_attention(query, key, value, *scene[3:])


def sorted_call(scene: Scene) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A further layer with the same windows: the tokens are sorted already."""
    plan = plan_windows(*scene[3:])
    return lambda query, key, value: attend(query, key, value, plan)


def forward(scene: Scene, call: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[], object]:
    """A call without gradients."""

    def run() -> object:
        with torch.no_grad():
            return call(*scene[:3])

    return run


def forward_backward(scene: Scene, call: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[], object]:
    """A call and the gradients of query, key and value, from a given gradient of the output."""
    leaves = [x.detach().requires_grad_() for x in scene[:3]]
    cotangent = torch.randn_like(call(*leaves).detach())

    def run() -> object:
        return torch.autograd.grad(call(*leaves), leaves, cotangent)

    return run


def milliseconds(run: Callable[[], object], device: str) -> float:
    """Median time of a call."""
    if device == "cuda":
        from triton.testing import do_bench

        return do_bench(run, warmup=50, rep=150, return_mode="median")
    run()
    times = []
    while len(times) < 3 or (sum(times) < 1000 and len(times) < 30):
        start = time.process_time()
        run()
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times)


def graph_milliseconds(run: Callable[[], object]) -> float:
    """Median time of a call replayed from a CUDA graph."""
    return milliseconds(captured(run, "cuda"), "cuda")


def launched_milliseconds(run: Callable[[], object], calls: int = 50) -> tuple[float, float]:
    """A call's time by the clock when many follow each other unwaited for, and what of it is Python's."""
    run()
    python, clock = [], []
    for _ in range(5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            run()
        python.append(time.perf_counter() - start)
        torch.cuda.synchronize()
        clock.append(time.perf_counter() - start)
    return 1000 * statistics.median(clock) / calls, 1000 * statistics.median(python) / calls


def megabytes(run: Callable[[], object]) -> float:
    """What a call adds to the allocated memory at its peak."""
    run()
    return added_bytes(run, "cuda") / 1e6


def describe(scene: Scene) -> str:
    """Sizes, and how much the windows hold."""
    counts = window_mask(scene.cells, scene.tokens, scene.inside, scene.window).sum(dim=-1).float()
    _, views, cells, heads, dim = scene.query.shape
    return (
        f"{views} views x {cells} cells, {scene.key.shape[1]} tokens, {heads} heads x {dim}, {scene.query.dtype}, "
        f"K = {scene.window:g}: {counts.mean():.1f} tokens a query, none for {(counts == 0).float().mean():.0%}"
    )


def compare(scene: Scene, device: str) -> None:
    """The main table: dense against windowed, forward and with gradients."""
    print(describe(scene) + "\n")
    graphs = device == "cuda"
    print(
        "| pass | implementation | ms |"
        + (" ms, graph replay | ms by the clock, Python's | MB | scratch MB |" if graphs else "")
        + " ratio |"
    )
    print("|---|---|---|" + ("---|---|---|---|" if graphs else "") + "---|")
    query, key, value = (x.nbytes / 1e6 for x in scene[:3])
    mask = scene.inside.numel() * scene.cells.shape[2] / 1e6
    for name, make, results in (
        ("forward", forward, query),
        ("forward + backward", forward_backward, 2 * query + key + value),
    ):
        base = None
        for label, call in (
            ("dense SDPA with a mask", dense_call(scene)),
            ("windowed, sorting included", windowed_call(scene)),
            ("windowed, sorted before", sorted_call(scene)),
        ):
            run = make(scene, call)
            cost = milliseconds(run, device)
            more = ""
            if graphs:
                peak = megabytes(run)
                scratch = peak - results + (mask if base is None else 0)
                clock, python = launched_milliseconds(run)
                more = f" {graph_milliseconds(run):.3f} | {clock:.3f}, {python:.3f} | {peak:.0f} | {scratch:.1f} |"
            base = base or cost
            print(f"| {name} | {label} | {cost:.3f} |{more} {base / cost:.1f} x |", flush=True)
    print()


def accuracy(scene: Scene) -> None:
    """Largest errors against dense attention in float64, over the largest values."""
    small = scene._replace(query=scene.query[:, :, :, :1], key=scene.key[:, :, :1], value=scene.value[:, :, :1])
    results = []
    for dtype, backend in ((small.query.dtype, "auto"), (torch.float64, "dense")):
        leaves = [x.detach().to(dtype).requires_grad_() for x in small[:3]]
        out = windowed_attention(*leaves, *small[3:], backend=backend)
        cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
        results.append([out.detach(), *torch.autograd.grad(out, leaves, cotangent)])
    errors = [((a - b).abs().max() / b.abs().max()).item() for a, b in zip(*results, strict=True)]
    names = ("output", "gradient of query", "of key", "of value")
    print("Errors against float64: " + ", ".join(f"{n} {e:.1e}" for n, e in zip(names, errors, strict=True)) + "\n")


def cost_tables(vertices: np.ndarray, device: str, dtype: torch.dtype) -> dict[tuple[str, float], list[float]]:
    """Vary the window, the tokens and the cells, one at a time; on a GPU by graph replay."""
    costs = {}
    for what, values in COSTS[device].items():
        print(f"| {NAMES[what]} | windowed fwd | fwd + bwd | dense fwd | fwd + bwd |\n|---|---|---|---|---|")
        for value in values:
            scene = make_scene(vertices, device, dtype, MAIN[device]._replace(**{what: value}))
            calls = windowed_call(scene), dense_call(scene)
            runs = [make(scene, call) for call in calls for make in (forward, forward_backward)]
            cost = [graph_milliseconds(run) if device == "cuda" else milliseconds(run, device) for run in runs]
            costs[what, value] = cost
            print(f"| {value:g} | " + " | ".join(f"{x:.3f} ms" for x in cost) + " |", flush=True)
            del calls, runs
            if device == "cuda":
                torch.cuda.empty_cache()
        print()
    return costs


def plot(costs: dict[tuple[str, float], list[float]], path: Path, device: str) -> None:
    """Draw the costs, one panel for each size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(10, 3.4), sharey=True)
    labels = ("windowed, forward", "windowed, + backward", "dense mask, forward", "dense mask, + backward")
    for panel, (what, values) in zip(panels, COSTS[device].items(), strict=True):
        for i, style in enumerate(("C0o-", "C0x--", "C3o-", "C3x--")):
            times = [costs[what, value][i] for value in values]
            panel.loglog(values, times, style, label=labels[i], markersize=4, linewidth=1)
        panel.set(xlabel=NAMES[what], xticks=values)
        panel.set_xticklabels([f"{v:g}" for v in values])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("milliseconds")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="upper center", ncol=4, fontsize=8)
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    print(f"wrote {path}")


def try_shapes(scene: Scene) -> None:
    """Time each way of cutting the work, by graph replay; a few seconds to compile each."""
    from humansplat.models.windowed_attention import triton_launch as launch

    plan = plan_windows(*scene[3:]).sorted
    assert plan is not None
    out, lse = launch.forward(*scene[:3], plan)
    cotangent = torch.randn_like(out)
    print("| pass | block | warps | stages | pair | ms |\n|---|---|---|---|---|---|")
    cost = graph_milliseconds(lambda: launch.sort(*scene[3:6], scene.window, plan.grid))
    print(f"| sort | | | | | {cost:.4f} |", flush=True)

    def both(shape: launch.Shape | None, of_tokens: launch.Shape | None) -> tuple[Tensor, ...]:
        return launch.backward(cotangent, *scene[:3], out, lse, plan, shape, of_tokens)

    for name, kernel in (
        ("forward", lambda shape: launch.forward(*scene[:3], plan, shape)),
        ("gradients of queries", lambda shape: both(shape, None)),
        ("gradients of tokens", lambda shape: both(None, shape)),
    ):
        for sizes in SHAPES[name]:
            shape = launch.Shape(*sizes)
            try:
                cost = graph_milliseconds(lambda shape=shape, kernel=kernel: kernel(shape))
            except RuntimeError as error:  # too much shared memory or registers asked for
                print(f"| {name} | {' | '.join(map(str, sizes))} | {type(error).__name__} |", flush=True)
                continue
            print(f"| {name} | {' | '.join(map(str, sizes))} | {cost:.4f} |", flush=True)
    print()


def main(device: str, dtype: torch.dtype, only: str | None, plot_path: Path | None) -> None:
    """Print the tables."""
    if device == "cuda":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    vertices = posed_vertices()
    scene = make_scene(vertices, device, dtype, MAIN[device])
    if only == "shapes":
        try_shapes(scene)
    if only in (None, "main"):
        accuracy(scene)
        compare(scene, device)
    if only in (None, "cost"):
        costs = cost_tables(vertices, device, dtype)
        if plot_path:
            plot(costs, plot_path, device)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=sorted(TYPES), help="bfloat16 on a GPU, float32 on the CPU")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["main", "cost", "shapes"])
    parser.add_argument("--plot", type=Path, help="write a picture of the costs")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    main(
        given.device,
        TYPES[given.dtype or ("bfloat16" if given.device == "cuda" else "float32")],
        given.only,
        given.plot,
    )
