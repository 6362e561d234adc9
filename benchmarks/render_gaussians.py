"""Time the CPU rasterizer against the number of splats and pixels, and against plain PyTorch.

python benchmarks/render_gaussians.py [--repeats 10] [--clock wall|cpu] [--only reference|table] [--plot FILE.png]

Two scenes of a person's size. The shell's splats lie on an ellipsoid and just overlap, like a reconstruction: the
more there are, the smaller they are. The cloud's fill a box and stay 3 cm big whatever their number: most of
what is drawn there is hidden. Times are the least of the repeats after a warm-up (plain PyTorch: of two). The
clock ``cpu`` sums the seconds of all threads, for machines that others use at the same time. The plot needs
matplotlib.
"""

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from humansplat.geometry.projection import intrinsics, look_at
from humansplat.render import RenderedImages, render_gaussians
from humansplat.structures import Cameras, Gaussians

SPLATS = (4096, 16384, 65536, 262144)
SIZES = (128, 256, 512, 1024)
STANDARD = (65536, 512)  # where the reference is timed as well
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def shell(num: int) -> Gaussians:
    """Flat splats on an ellipsoid, 1.8 m high, whose density hardly lets light through."""
    generator = torch.Generator().manual_seed(0)
    index = torch.arange(num) + 0.5
    height, angle = 1 - 2 * index / num, index * math.pi * (3 - math.sqrt(5))  # Fibonacci's lattice
    ring = (1 - height**2).sqrt()
    sphere = torch.stack([ring * angle.cos(), height, ring * angle.sin()], dim=-1)
    area = 1.9  # square metres, about that of the ellipsoid
    return Gaussians(
        means=sphere * torch.tensor([0.3, 0.9, 0.2]),
        quats=torch.randn(num, 4, generator=generator),
        scales=torch.full((num, 3), 0.6 * math.sqrt(area / num)),
        opacities=0.5 + 0.5 * torch.rand(num, generator=generator),
        colors=torch.rand(num, 3, generator=generator),
    )


def cloud(num: int) -> Gaussians:
    """Splats of all shapes, 3 cm big, that fill a box."""
    generator = torch.Generator().manual_seed(0)
    return Gaussians(
        means=(torch.rand(num, 3, generator=generator) - 0.5) * torch.tensor([0.8, 1.8, 0.8]),
        quats=torch.randn(num, 4, generator=generator),
        scales=0.03 * (0.5 * torch.randn(num, 3, generator=generator)).exp(),
        opacities=torch.rand(num, generator=generator),
        colors=torch.rand(num, 3, generator=generator),
    )


def camera(size: int) -> Cameras:
    """One camera, 4 m in front, 30 degrees."""
    viewmat = look_at(torch.tensor([0.0, 0.3, 4.0]), torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]))
    return Cameras(viewmats=viewmat[None], Ks=intrinsics(math.pi / 6, size, size)[None], width=size, height=size)


def seconds(call: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    """Least time of a call."""
    times = []
    for _ in range(repeats):
        start = clock()
        call()
        times.append(clock() - start)
    return min(times)


def forward(splats: Gaussians, size: int, backend: str = "cpu") -> RenderedImages:
    """Render without gradients."""
    with torch.no_grad():
        return render_gaussians(splats, camera(size), backend=backend)


def forward_backward(splats: Gaussians, size: int, backend: str = "cpu") -> None:
    """Render, and pull a gradient back to the splats."""
    leaves = splats.map(lambda tensor: tensor.detach().requires_grad_())
    render_gaussians(leaves, camera(size), backend=backend).colors.square().sum().backward()


def against_reference(repeats: int, clock: Callable[[], float]) -> None:
    """Time the two side by side, and compare their pictures."""
    num, size = STANDARD
    print(f"{num} splats at {size} x {size}\n\n| scene | pass | CPU rasterizer | plain PyTorch | ratio |")
    print("|---|---|---|---|---|")
    verdicts = []
    for name, make in (("shell", shell), ("cloud", cloud)):
        splats = make(num)
        error = (forward(splats, size).colors - forward(splats, size, "reference").colors).abs()
        within = (error <= 2 / 255).double().mean().item()
        verdicts.append(f"{name}: {within:.4%} of the values within 2/255 of plain PyTorch, at most {error.max():.5f}")
        passes = {"forward": forward, "forward + backward": forward_backward}
        if name == "cloud":
            passes.pop("forward + backward")  # plain PyTorch would keep tens of gigabytes for it
        for label, call in passes.items():
            ours = seconds(partial(call, splats, size), repeats, clock)
            theirs = seconds(partial(call, splats, size, "reference"), 2, clock)
            row = f"| {name} | {label} | {ours * 1000:.0f} ms | {theirs:.2f} s | {theirs / ours:.0f} x |"
            print(row, flush=True)
    print("\n" + "\n".join(verdicts) + "\n")


def cost_table(repeats: int, clock: Callable[[], float]) -> dict[tuple[str, int, int], tuple[float, float]]:
    """Time every number of splats at every size; print as it goes."""
    costs = {}
    print("| scene | splats | image | forward | forward + backward |\n|---|---|---|---|---|")
    for name, make in (("shell", shell), ("cloud", cloud)):
        for num in SPLATS:
            splats = make(num)
            for size in SIZES:
                calls = [partial(call, splats, size) for call in (forward, forward_backward)]
                cost = [seconds(call, 1 + repeats, clock) for call in calls]
                costs[name, num, size] = (cost[0], cost[1])
                row = f"| {name} | {num} | {size} x {size} | {cost[0] * 1000:.1f} ms | {cost[1] * 1000:.1f} ms |"
                print(row, flush=True)
    return costs


def plot(costs: dict[tuple[str, int, int], tuple[float, float]], path: Path) -> None:
    """Draw the costs: one line a size, splats along x."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for panel, name in zip(panels, ("shell", "cloud"), strict=True):
        for i, size in enumerate(SIZES):
            for which, style in ((0, "o-"), (1, "x--")):
                times = [1000 * costs[name, num, size][which] for num in SPLATS]
                label = f"{size} x {size}" if which == 0 else None
                panel.loglog(SPLATS, times, style, color=f"C{i}", label=label, markersize=4, linewidth=1)
        panel.set(title=name, xlabel="splats", xticks=SPLATS)
        panel.set_xticklabels([f"{num // 1024} Ki" for num in SPLATS])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("milliseconds (dashed: with gradients)")
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    print(f"wrote {path}")


def main(threads: int, repeats: int, clock: Callable[[], float], only: str | None, plot_path: Path | None) -> None:
    """Print the tables."""
    torch.set_num_threads(threads)
    start = time.perf_counter()
    forward_backward(shell(256), 32)
    print(f"{threads} threads; first call, kernels compiled or loaded: {time.perf_counter() - start:.1f} s\n")
    if only != "table":
        against_reference(repeats, clock)
    if only != "reference":
        costs = cost_table(repeats, clock)
        if plot_path:
            plot(costs, plot_path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument(
        "--only", choices=["reference", "table"], help="the comparison, which takes minutes, or the rest"
    )
    parser.add_argument("--plot", type=Path, help="write a picture of the costs")
    given = parser.parse_args()
    main(given.threads, given.repeats, CLOCKS[given.clock], given.only, given.plot)
