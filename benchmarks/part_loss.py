"""Time the hierarchical loss, forward and backward, against the rendering of the target pictures.

python benchmarks/part_loss.py [--batch 32] [--targets 4] [--size 256] [--splats 40000] [--step-ms 120]
python benchmarks/part_loss.py --sharpness [--batch 2] [...]

The people are made up and their splats lie on their skin; LPIPS has random weights of the true shapes, and the
encoder is that of the small autoencoder untrained: neither changes the time. A row is one setting of
`reconstruction.hierarchical` and `reconstruction.perceptual`; `share` is its time of a step of `--step-ms`
milliseconds, measured elsewhere. Times are medians after a warm-up, with networks in bfloat16 on a GPU.

With `--sharpness` the truth are pictures of the same splats, rendered at four times the resolution and averaged over
the pixels' areas as pictures are. The table says what squared error splats have that are larger or smaller: a loss
that is least beside 1 teaches blur, or splats that are too small.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from call_times import added_bytes, call_times
from torch import Tensor, nn
from training_inputs import made_up_pool

from humansplat import losses
from humansplat.config import HierarchicalConfig
from humansplat.data.people import PeopleBatch
from humansplat.metrics.lpips import Lpips
from humansplat.models.autoencoder import build_autoencoder, on_white
from humansplat.models.feature_distance import FeatureDistance
from humansplat.render import render_gaussians
from humansplat.render.body_maps import sample_surface
from humansplat.structures import Gaussians
from humansplat.training.part_boxes import NUM_CAMERA_REGIONS
from humansplat.training.part_loss import PartLoss

POOL = 16
DEFAULT = HierarchicalConfig(weight=1.0)
EVERYTHING = replace(DEFAULT, camera_crops=1_000, part_crops=1_000)
SETTINGS = (
    ("as configured by default, no perceptual term", "none", DEFAULT),
    ("... 4 crops by own cameras, 4 of other parts", "none", replace(DEFAULT, camera_crops=4, part_crops=4)),
    ("... 12 crops by own cameras", "none", replace(DEFAULT, camera_crops=12)),
    ("... 16 crops of other parts", "none", replace(DEFAULT, part_crops=16)),
    ("... levels 32, 64", "none", replace(DEFAULT, levels=(32, 64))),
    ("... all crops of all views", "none", EVERYTHING),
    ("encoder, 2 crops", "encoder", DEFAULT),
    ("encoder, 6 crops", "encoder", replace(DEFAULT, perceptual_crops=6)),
    ("lpips, 1 crop", "lpips", replace(DEFAULT, perceptual_crops=1)),
    ("lpips, 2 crops", "lpips", DEFAULT),
    ("lpips, 2 crops, levels 32, 64", "lpips", replace(DEFAULT, levels=(32, 64))),
)


def skin_splats(batch: PeopleBatch, num_splats: int) -> Gaussians:
    """Leaves of the graph: flat splats all over the bodies."""
    surface = sample_surface(batch.body.canonical, batch.body.faces, num_splats)
    means = surface.interpolate(batch.body.vertices)
    generator = torch.Generator(means.device).manual_seed(0)
    like = {"generator": generator, "device": means.device}
    shape = means.shape[:2]
    splats = Gaussians(
        means=means + 0.01 * torch.randn(means.shape, **like),
        quats=torch.randn(*shape, 4, **like),
        scales=0.004 + 0.004 * torch.rand(*shape, 3, **like),
        opacities=0.2 + 0.8 * torch.rand(shape, **like),
        colors=0.5 + 0.5 * torch.sin(40 * surface.interpolate(batch.body.canonical)).expand(*shape, 3),  # 16 cm waves
    )
    return splats.map(lambda tensor: tensor.detach().requires_grad_())


def measured(loss: Callable[[], Tensor], device: torch.device, repeats: int) -> tuple[float, float]:
    """Median milliseconds of a loss with its backward pass, and the memory that it adds at most, MiB."""

    def step() -> None:
        loss().backward()

    times = call_times(step, repeats, device, warmups=2)
    return statistics.median(times), added_bytes(step, device) / 2**20 if device.type == "cuda" else 0.0


def sharpness(batch: PeopleBatch, splats: Gaussians) -> None:
    """Print the errors of splats of other sizes than the true ones."""
    size, generator = batch.target_cameras.width, torch.Generator(splats.means.device)
    fine = render_gaussians(splats, batch.target_cameras.resized(4 * size, 4 * size)).colors.movedim(-1, 2)
    truth = F.avg_pool2d(fine.flatten(0, 1), 4).unflatten(0, fine.shape[:2])
    taken = replace(batch, targets=torch.cat([truth, torch.ones_like(truth[:, :, :1])], dim=2))
    print("size   picture  crops of it   own cameras  ... without match_sharpness")
    for scale in (0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5):
        sized = replace(splats, scales=scale * splats.scales)
        pictures = render_gaussians(sized, batch.target_cameras).colors.movedim(-1, 2)
        errors = [(pictures - truth).square().mean().item()]
        own = NUM_CAMERA_REGIONS * batch.targets.shape[1]
        for matched in (True, False):
            config = replace(EVERYTHING, match_sharpness=matched)
            crops = PartLoss(config, None).to(truth.device).crops(sized, pictures, taken, generator)
            squared = (crops.renders - crops.truths).square().mean(dim=(2, 3, 4))
            for part in (slice(own, None), slice(0, own)) if matched else (slice(0, own),):
                weights = crops.weights[:, part]
                errors.append(((squared[:, part] * weights).sum() / weights.sum()).item())
        print(f"{scale:4}  {errors[0]:.2e}     {errors[1]:.2e}      {errors[2]:.2e}  {errors[3]:.2e}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--targets", type=int, default=4)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--splats", type=int, default=40_000)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--step-ms", type=float, default=120.0)
    parser.add_argument("--sharpness", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    generator = torch.Generator(device).manual_seed(0)
    pool = made_up_pool(min(POOL, options.batch), options.size, device)
    batch = pool.sample(options.batch, options.targets, generator)
    splats = skin_splats(batch, options.splats)
    if options.sharpness:
        with torch.no_grad():
            sharpness(batch, splats)
        return
    truth = on_white(batch.targets)
    distances: dict[str, nn.Module | None] = {
        "none": None,
        "encoder": FeatureDistance(build_autoencoder()),
        "lpips": Lpips(),
    }
    for distance in distances.values():
        if distance is not None:
            distance.to(device).requires_grad_(False)

    def pictures() -> Tensor:
        return render_gaussians(splats, batch.target_cameras).colors.movedim(-1, 2)

    def whole() -> Tensor:
        colors = pictures()
        return losses.squared_loss(colors, truth) + losses.ssim_loss(colors, truth)

    base, _ = measured(whole, device, options.repeats)
    print(
        f"{options.batch} people x {options.targets} pictures of {options.size} px, {options.splats} splats, {device}"
    )
    print(f"target pictures: render, squared error and SSIM, backward: {base:.1f} ms")
    rendered = pictures().detach().requires_grad_()
    with torch.no_grad():
        loss = PartLoss(DEFAULT, None).to(device)
        for _ in range(3):
            start = time.perf_counter()
            regions = loss.regions(batch.body, batch.target_cameras)
            seen = (regions.weights > 0).sum().item()  # waits
            found = 1e3 * (time.perf_counter() - start)
    print(f"finding the parts: {found:.1f} ms; {seen / options.batch:.0f} regions a person are seen")
    print(f"\n{'hierarchical loss beyond that':48} {'ms':>7} {'share':>6} {'MiB':>7}")
    for label, kind, config in SETTINGS:
        loss = PartLoss(config, distances[kind]).to(device)

        def step(loss: PartLoss = loss) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                terms = loss(splats, rendered, batch, generator)
            return torch.stack(list(terms.values())).sum()

        spent, memory = measured(step, device, options.repeats)
        print(f"{label:48} {spent:7.1f} {spent / options.step_ms:6.1%} {memory:7.0f}", flush=True)


if __name__ == "__main__":
    main()
