"""The hierarchical loss against a plain, slow statement of HumanSplat's Eq. 5."""

import dataclasses

import numpy as np
import pytest
import torch

from humansplat.body.parts import PART_NAMES
from humansplat.config import HierarchicalConfig
from humansplat.metrics.lpips import Lpips
from humansplat.models.autoencoder import on_white
from humansplat.render import render_gaussians
from humansplat.render.body_maps import rasterize_parts, sample_surface
from humansplat.structures import Cameras, Gaussians
from humansplat.training.part_boxes import resample
from humansplat.training.part_loss import NUM_POINTS, PartLoss

ALL = HierarchicalConfig(
    weight=0.7, levels=(16, 32), level_weights=(1.0, 0.5), perceptual_weight=0.3, camera_crops=99, part_crops=99,
    perceptual_crops=99, margin=0.1, map_size=64, min_pixels=4, match_sharpness=False,
)  # fmt: skip
DOUBLED = ("head", "Hand", "HandIndex1", "Arm", "ForeArm")
HANDS = ("Hand", "HandIndex1")


@pytest.fixture(scope="module")
def batch(pool):
    return pool.batch(torch.tensor([0, 1]), torch.tensor([[0, 4], [1, 5]]))


@pytest.fixture
def splats(batch, rng) -> Gaussians:
    """Small ones on the skin, some of them clear, all to be learned."""
    surface = sample_surface(batch.body.canonical, batch.body.faces, 1500)
    shape = (2, 1500)
    splats = Gaussians(
        means=surface.interpolate(batch.body.vertices),
        quats=torch.randn(*shape, 4, generator=rng),
        scales=0.01 + 0.01 * torch.rand(*shape, 3, generator=rng),
        opacities=torch.rand(shape, generator=rng),
        colors=torch.rand(*shape, 3, generator=rng),
    )
    return splats.map(lambda tensor: tensor.requires_grad_())


@pytest.fixture(scope="module")
def distance() -> Lpips:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Lpips((4, 4, 4, 4, 4))


def pictures_of(splats, batch) -> torch.Tensor:
    return render_gaussians(splats, batch.target_cameras).colors.movedim(-1, 2)


def plain_crop(picture: torch.Tensor, left: float, top: float, side: float, resolution: int) -> torch.Tensor:
    """Means over windows of a picture whose pixels are areas of one colour, by the integral along each axis."""
    values = picture.detach().double().numpy()
    width = max(1.0, side / resolution)
    for axis, start in ((1, top), (2, left)):
        values = np.moveaxis(values, axis, -1)
        integral = np.concatenate([np.zeros((*values.shape[:-1], 1)), values.cumsum(-1)], axis=-1)
        last, columns = integral.shape[-1] - 1, []
        for pixel in range(resolution):
            middle = start + (pixel + 0.5) * side / resolution
            ends = [min(max(middle + sign * width / 2, 0), last) for sign in (-1, 1)]
            below = [min(int(end), last - 1) for end in ends]
            sums = [
                integral[..., i] + (end - i) * (integral[..., i + 1] - integral[..., i])
                for i, end in zip(below, ends, strict=True)
            ]
            columns.append((sums[1] - sums[0]) / (ends[1] - ends[0]))
        values = np.moveaxis(np.stack(columns, axis=-1), -1, axis)
    return torch.from_numpy(values).float()


def plain_loss(splats, batch, distance) -> tuple[float, float]:
    """Eq. 5: the squared and the perceptual term, one person, picture, part and level after the other."""
    pictures, truths = pictures_of(splats, batch).detach(), on_white(batch.targets)
    size, finest = pictures.shape[-1], ALL.levels[-1]
    samples = sample_surface(batch.body.canonical, batch.body.faces, NUM_POINTS)
    maps = rasterize_parts(batch.body, batch.target_cameras, samples, size=ALL.map_size)
    squared = perceptual = 0.0
    for person in range(len(pictures)):
        for view in range(pictures.shape[1]):
            found = [(maps[person, view] == part + 1).nonzero() for part in range(len(PART_NAMES))]
            for part, name in enumerate(PART_NAMES):
                kind = name.removeprefix("left").removeprefix("right")
                if len(found[part]) < ALL.min_pixels:
                    continue
                together = [found[part]]
                if kind in HANDS:  # a hand and its fingers are seen in one crop
                    side = name.removesuffix(kind)
                    members = [found[PART_NAMES.index(side + other)] for other in HANDS]
                    together = [pixels for pixels in members if len(pixels) >= ALL.min_pixels]
                pixels = torch.cat(together).double() * size / ALL.map_size
                low, high = pixels.amin(dim=0), pixels.amax(dim=0) + size / ALL.map_size
                length = min(max((high - low).max().item() * (1 + 2 * ALL.margin), 8.0), float(size))
                top, left = (min(max(x - length / 2, 0.0), size - length) for x in ((low + high) / 2).tolist())
                truth = plain_crop(truths[person, view], left, top, length, finest)
                if kind in HANDS or kind == "head":
                    K = batch.target_cameras.Ks[person, view].clone()
                    K[0, 2] -= left
                    K[1, 2] -= top
                    K[:2] *= finest / length
                    viewmat = batch.target_cameras.viewmats[person, view]
                    camera = Cameras(viewmats=viewmat[None], Ks=K[None], width=finest, height=finest)
                    render = render_gaussians(splats[person].detach(), camera).colors[0].movedim(-1, 0)
                else:
                    render = plain_crop(pictures[person, view], left, top, length, finest)
                for weight, resolution in zip(ALL.level_weights, ALL.levels, strict=True):
                    a, b = (
                        crop.view(3, resolution, finest // resolution, resolution, -1).mean(dim=(2, 4))
                        for crop in (render, truth)
                    )
                    weight = weight * (2 if kind in DOUBLED else 1)
                    squared += weight * (a - b).square().mean().item()
                    perceptual += weight * distance(a[None], b[None]).item()
    scale = ALL.weight / (len(ALL.levels) * len(PART_NAMES) * pictures.shape[0] * pictures.shape[1])
    return scale * squared, scale * ALL.perceptual_weight * perceptual


def test_is_the_papers_formula(batch, splats, distance, rng):
    terms = PartLoss(ALL, distance)(splats, pictures_of(splats, batch), batch, rng)
    squared, perceptual = plain_loss(splats, batch, distance)
    assert terms["parts"].item() == pytest.approx(squared, rel=1e-4)
    assert terms["parts_perceptual"].item() == pytest.approx(perceptual, rel=1e-3)


def test_a_few_crops_expect_all(batch, splats, distance):
    few = dataclasses.replace(ALL, levels=(16,), level_weights=(), camera_crops=2, part_crops=6, perceptual_crops=3)
    pictures, generator = pictures_of(splats, batch).detach(), torch.Generator().manual_seed(1)
    loss = PartLoss(few, distance)
    whole = PartLoss(dataclasses.replace(few, camera_crops=99, part_crops=99, perceptual_crops=99), distance)
    with torch.no_grad():
        everything = whole(splats, pictures, batch, generator)
        some = [loss(splats, pictures, batch, generator) for _ in range(12)]
    for name, value in everything.items():
        drawn = torch.stack([terms[name] for terms in some])
        error = drawn.std() / len(drawn) ** 0.5
        assert (drawn.mean() - value).abs() < 3.5 * error < 0.4 * value, name


def test_gradients_reach_the_splats_by_both_kinds_of_crops(batch, splats, rng):
    pictures = pictures_of(splats, batch)
    pictures.retain_grad()
    PartLoss(ALL, None)(splats, pictures, batch, rng)["parts"].backward()
    assert (pictures.grad.flatten(2).abs().sum(dim=2) > 0).all()
    for name in ("means", "quats", "scales", "opacities", "colors"):
        assert getattr(splats, name).grad.isfinite().all()
        assert getattr(splats, name).grad.abs().sum() > 0
    splats = splats.map(lambda tensor: tensor.detach().clone().requires_grad_())
    PartLoss(ALL, None)(splats, pictures.detach(), batch, rng)["parts"].backward()
    assert splats.means.grad.abs().sum() > 0  # by the cameras of head and hands alone


def test_what_is_not_seen_weighs_nothing(batch, splats, distance, rng):
    away = torch.diag(torch.tensor([-1.0, 1, -1, 1]))  # turned about the vertical
    cameras = dataclasses.replace(batch.target_cameras, viewmats=away @ batch.target_cameras.viewmats)
    blind = dataclasses.replace(batch, target_cameras=cameras)
    terms = PartLoss(ALL, distance)(splats, torch.rand(2, 2, 3, 64, 64, generator=rng), blind, rng)
    sum(terms.values()).backward()
    assert all(value == 0 for value in terms.values())
    assert all(tensor.grad is None or tensor.grad.isfinite().all() for tensor in (splats.means, splats.scales))
    loss = PartLoss(ALL, None)
    head = loss.regions(batch.body, batch.target_cameras).weights[..., 0]
    assert (head == 2).all()


def test_an_own_camera_sees_more_than_an_enlarged_crop(batch, splats, rng):
    loss, pictures = PartLoss(ALL, None), pictures_of(splats, batch)
    boxes = loss.regions(batch.body, batch.target_cameras)
    heads = loss.crops(splats, pictures, batch, rng).renders[:, :6:3]  # all crops: views by regions
    enlarged = resample(pictures, boxes.corners[:, :, 0], boxes.sides[:, :, 0], ALL.levels[-1])
    assert heads.shape == enlarged.shape

    def detail(crops: torch.Tensor) -> torch.Tensor:
        return crops.diff(dim=-1).square().mean(dim=(2, 3, 4)) + crops.diff(dim=-2).square().mean(dim=(2, 3, 4))

    assert (detail(heads) > 2 * detail(enlarged)).all()


def test_true_splats_are_better_than_any_other_size_of_them(batch, splats, rng):
    """Pictures whose pixels are means over their areas, as scans' are: nothing is gained by blur or by sharpness."""
    config = dataclasses.replace(ALL, match_sharpness=True, part_crops=1)
    fine = render_gaussians(splats, batch.target_cameras.resized(256, 256)).colors.movedim(-1, 2).detach()
    truth = fine.unflatten(-1, (64, 4)).unflatten(-3, (64, 4)).mean(dim=(-3, -1))
    taken = dataclasses.replace(batch, targets=torch.cat([truth, torch.ones_like(truth[:, :, :1])], dim=2))
    errors = {}
    for size in (0.8, 1.0, 1.25):
        sized = dataclasses.replace(splats, scales=splats.scales * size)
        crops = PartLoss(config, None).crops(sized, truth, taken, rng)
        errors[size] = (crops.renders - crops.truths)[:, :6].square().mean().item()
    assert 5 * errors[1.0] < min(errors[0.8], errors[1.25])
