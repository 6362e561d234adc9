"""Time the reconstruction transformer at the paper's scale: latents, a body and cameras in, Gaussians out.

python benchmarks/reconstructor.py [--device cuda|cpu] [--tiny] [--only SECTION ...]

The network is that of ``configs/reconstruction_base_512.yaml`` with random weights, cast to bfloat16 (not autocast,
which would cast float32 weights anew in every forward); the algebra of cameras and splats stays in float32. One person
a forward, latents of all views given, no gradients. Times are medians by CUDA events. ``eager`` is the plain module,
``graph`` its replay from a CUDA graph, ``compiled`` with the blocks of the transformer compiled one by one, ``whole``
the module as one compiled graph; memory is what a forward adds to its inputs and the weights at its peak.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from call_times import added_bytes, call_times, captured
from torch import Tensor

from humansplat.body.anny import AnnyBody
from humansplat.config import ReconstructorConfig, TrainConfig, load_config
from humansplat.data.rig import draw_rig
from humansplat.geometry.projection import orbit
from humansplat.models.anchors import rig_axis
from humansplat.models.conditioning import BodyConditioner, BodyConditions
from humansplat.models.latent_reconstructor import LatentReconstructor
from humansplat.models.scene import Scene, make_scene
from humansplat.structures import Cameras, Gaussians, PosedBody
from humansplat.training.compilation import compile_network

CONFIG = Path(__file__).parents[1] / "configs" / "reconstruction_base_512.yaml"
TINY: dict[str, Any] = {
    "width": 64, "num_heads": 2, "num_intra_layers": 2, "num_inter_layers": 2, "num_body_tokens": 300,
    "kept_cells": 10,
}  # fmt: skip
PARTS = ("forward", "whole", "tokens", "conditioning", "accuracy", "profile")
SECTIONS = PARTS[:-1]


class Setting(NamedTuple):
    """Where and how long to measure."""

    device: str
    grid: int
    """Latent cells on a side of a view."""
    repeats: int
    threads: int


class Inputs(NamedTuple):
    """Arguments of a forward pass."""

    latents: Tensor
    image: Tensor
    cameras: Cameras
    body: PosedBody
    conditions: BodyConditions


def make_inputs(config: ReconstructorConfig, setting: Setting) -> Inputs:
    """A grown-up in no particular pose before cameras all around; latents and picture are random."""
    generator = torch.Generator().manual_seed(0)
    model = AnnyBody.load()
    person = model.neutral(1)
    bend = 0.15 * torch.randn(person["rotations"].shape, generator=generator)
    bend[:, 0] = 0.0
    with torch.no_grad():
        body = model.pose({**person, "rotations": person["rotations"] + bend})
    size = 8 * setting.grid
    rig = draw_rig(body.vertices[0].double().numpy(), _rng(), size, 0, 0)[0].map(lambda x: x[None])
    turns = torch.arange(config.num_views) * (2 * torch.pi / config.num_views)
    cameras = orbit(rig[:, 0], rig_axis(rig), turns).to(setting.device)
    body = body.to(setting.device)
    conditioner = BodyConditioner(num_tokens=config.num_body_tokens, map_size=size // 2, body=config.body)
    conditions = conditioner(body, cameras)
    assert conditions.maps is not None
    alpha = conditions.maps.hit[:, :1].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3).float()
    colors = torch.rand(1, 3, size, size, generator=generator).to(setting.device)
    latents = torch.randn(1, config.num_views, config.latent_channels, setting.grid, setting.grid, generator=generator)
    return Inputs(latents.to(setting.device), torch.cat([colors, alpha], dim=1), cameras, body, conditions)


def _rng() -> Any:
    import numpy as np

    return np.random.default_rng(0)


def make_network(config: ReconstructorConfig, setting: Setting, dtype: torch.dtype) -> LatentReconstructor:
    """Random weights, the residual branches as large as trained ones instead of nearly nothing."""
    torch.manual_seed(0)
    with torch.device(setting.device):
        network = LatentReconstructor(**asdict(config))
        for name, weight in network.named_parameters():
            if name.endswith(("to_out.weight", "feed.2.weight")):
                torch.nn.init.normal_(weight, std=0.02)
    return (network.bfloat16() if dtype == torch.bfloat16 else network).eval().requires_grad_(False)


def call(network: Callable[..., Gaussians], inputs: Inputs) -> Callable[[], Gaussians]:
    """A forward pass without gradients."""

    def run() -> Gaussians:
        with torch.no_grad():
            return network(inputs.latents, inputs.image, inputs.cameras, inputs.body, *inputs.conditions)

    return run


def milliseconds(run: Callable[[], object], setting: Setting) -> float:
    """Median time of a call."""
    return statistics.median(call_times(run, setting.repeats, setting.device, warmups=3))


def mebibytes(run: Callable[[], object], setting: Setting) -> float:
    """What a call adds to the allocated memory at its peak."""
    return added_bytes(run, setting.device) / 2**20


def time_forward(config: ReconstructorConfig, setting: Setting) -> None:
    """The forward pass of 4 and 5 views, all tokens kept and as many as configured."""
    print("| views | tokens a view | splats | eager ms | graph | compiled | compiled, graph | MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for views in (4, 5):
        for kept in (None, config.kept_cells):
            this = replace(config, num_views=views, kept_cells=kept)
            inputs, network = make_inputs(this, setting), make_network(this, setting, torch.bfloat16)
            run = call(network, inputs)
            peak = mebibytes(run, setting)
            times = [milliseconds(run, setting), milliseconds(captured(run, setting.device), setting)]
            splats = run().num_splats
            compile_network(network, "blocks", fullgraph=True)
            times += [milliseconds(run, setting), milliseconds(captured(run, setting.device), setting)]
            tokens = kept or (setting.grid // config.patch) ** 2
            told = " | ".join(f"{value:.2f}" for value in times)
            print(f"| {views} | {tokens} | {splats} | {told} | {peak:.0f} |", flush=True)
            del run, network
            release(setting)
    print()


def time_whole(config: ReconstructorConfig, setting: Setting) -> None:
    """The module compiled in one graph; with all layers written out that takes minutes."""
    this = replace(config, num_views=5, kept_cells=None)
    inputs, network = make_inputs(this, setting), make_network(this, setting, torch.bfloat16)
    start = time.perf_counter()
    run = call(torch.compile(network, fullgraph=True, dynamic=False), inputs)
    run()
    seconds = time.perf_counter() - start
    times = [milliseconds(run, setting), milliseconds(captured(run, setting.device), setting)]
    print(
        f"\n5 views, all tokens, whole: {times[0]:.2f} ms, as a graph {times[1]:.2f} ms ({seconds:.0f} s to compile)\n"
    )


def time_tokens(config: ReconstructorConfig, setting: Setting) -> None:
    """What body tokens cost, with 5 views and all of their tokens; blocks compiled, CUDA graphs."""
    print(
        "| body tokens | tokenizer ms | tokenizer MiB | forward ms | forward MiB | splats |\n|---|---|---|---|---|---|"
    )
    for count in (config.num_body_tokens and min(config.num_body_tokens, 1536), config.num_body_tokens, None):
        this = replace(config, num_views=5, kept_cells=None, num_body_tokens=count)
        inputs, network = make_inputs(this, setting), make_network(this, setting, torch.bfloat16)
        compile_network(network, "blocks", fullgraph=True)
        conditions = inputs.conditions
        assert conditions.token_ids is not None
        scene = make_scene(inputs.image, inputs.cameras, inputs.body, conditions.maps)

        def tokenize(network: Any = network, inputs: Inputs = inputs, scene: Scene = scene) -> Tensor:
            with torch.no_grad():
                return network.tokenize_body(inputs.latents[:, 0], scene, inputs.body, *inputs.conditions[1:])

        cells = []
        for run in (tokenize, call(network, inputs)):
            run()
            cells += [milliseconds(captured(run, setting.device), setting), mebibytes(run, setting)]
        told = " | ".join(f"{ms:.2f} | {peak:.0f}" for ms, peak in (cells[:2], cells[2:]))
        splats = call(network, inputs)().num_splats
        print(f"| {len(conditions.token_ids)} | {told} | {splats} |", flush=True)
        del run, tokenize, network
        release(setting)
    print()


def time_conditioning(config: ReconstructorConfig, setting: Setting) -> None:
    """Rasterising the body, which a forward is given."""
    inputs = make_inputs(replace(config, num_views=5), setting)
    conditioner = BodyConditioner(num_tokens=config.num_body_tokens, map_size=4 * setting.grid)
    cost = milliseconds(lambda: conditioner(inputs.body, inputs.cameras), setting)
    print(f"Body maps of 5 views, {4 * setting.grid} px, eager: {cost:.2f} ms\n", flush=True)


def accuracy(config: ReconstructorConfig, setting: Setting) -> None:
    """How far bfloat16 weights, and autocast of float32 ones, move splats."""
    this = replace(config, num_views=5)
    inputs = make_inputs(this, setting)
    exact = call(make_network(this, setting, torch.float32), inputs)()
    lowered = call(make_network(this, setting, torch.bfloat16), inputs)()
    network = make_network(this, setting, torch.float32)
    with torch.autocast(setting.device, torch.bfloat16):
        mixed = call(network, inputs)()
        autocast_ms = milliseconds(call(network, inputs), setting)
    for name, splats in (("bfloat16 weights", lowered), ("autocast", mixed)):
        finite = all(bool(x.isfinite().all()) for x in vars(splats).values())
        moved = 1000 * (splats.means - exact.means).norm(dim=-1)
        colors = (splats.colors - exact.colors).abs()
        print(
            f"{name} against float32: finite {finite}, centres {moved.median():.3f} mm (median), {moved.max():.2f} mm "
            f"(largest), colours {colors.median():.4f}"
        )
    print(f"Forward by autocast of float32 weights, eager, configured tokens: {autocast_ms:.2f} ms\n", flush=True)


def profile(config: ReconstructorConfig, setting: Setting) -> None:
    """The kernels that take longest, blocks compiled, all tokens."""
    this = replace(config, num_views=5, kept_cells=None)
    inputs, network = make_inputs(this, setting), make_network(this, setting, torch.bfloat16)
    compile_network(network, "blocks", fullgraph=True)
    run = call(network, inputs)
    for _ in range(3):
        run()
    with torch.profiler.profile() as profiler:
        for _ in range(3):
            run()
        if setting.device == "cuda":
            torch.cuda.synchronize()
    by = "self_device_time_total" if setting.device == "cuda" else "self_cpu_time_total"
    print(profiler.key_averages().table(sort_by=by, row_limit=35, max_name_column_width=70))


def release(setting: Setting) -> None:
    """Forget compiled code and free memory."""
    torch._dynamo.reset()
    if setting.device == "cuda":
        torch.cuda.empty_cache()


def main(setting: Setting, tiny: bool, sections: list[str]) -> None:
    """Print the tables."""
    torch.set_num_threads(setting.threads)
    config = load_config(TrainConfig, CONFIG).reconstruction.model
    if tiny:
        config = replace(config, **TINY)
    name = torch.cuda.get_device_name() if setting.device == "cuda" else f"CPU, {setting.threads} threads"
    weights = sum(p.numel() for p in make_network(config, setting, torch.bfloat16).parameters())
    print(
        f"{name}, torch {torch.__version__}; {weights / 1e6:.1f} M parameters in bfloat16, latents of {setting.grid} "
    )
    print(
        f"x {setting.grid} cells, patch {config.patch}, {config.num_body_tokens} body tokens, K = {config.window:g}\n"
    )
    parts = dict(
        zip(PARTS, (time_forward, time_whole, time_tokens, time_conditioning, accuracy, profile), strict=True)
    )
    for section in sections:
        parts[section](config, setting)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--tiny", action="store_true", help="a small network and small pictures, for trying the script"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=SECTIONS)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    main(Setting(given.device, 8 if given.tiny else 64, given.repeats, given.threads), given.tiny, list(given.only))
