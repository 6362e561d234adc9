"""What holds of every picture of Gaussians, on the CPU rasterizer."""

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from humansplat.errors import UserError
from humansplat.render import render_gaussians
from humansplat.structures import Cameras, Gaussians, concatenate


def single_splat(mean: tuple[float, float, float] = (0.0, 0.0, 2.0), opacity: float = 0.8) -> Gaussians:
    return Gaussians(
        means=torch.tensor([mean]),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        scales=torch.tensor([[0.1, 0.2, 0.3]]),
        opacities=torch.tensor([opacity]),
        colors=torch.tensor([[0.9, 0.5, 0.1]]),
    )


def camera_at_origin(width: int = 41, height: int = 31, focal: float = 50.0) -> Cameras:
    K = torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    return Cameras(viewmats=torch.eye(4)[None], Ks=K[None], width=width, height=height)


def assert_same(images, expected, **tolerance: float) -> None:
    for name in ("colors", "alphas", "depths"):
        torch.testing.assert_close(getattr(images, name), getattr(expected, name), msg=name, **tolerance)


def test_a_single_splat_is_the_projected_gaussian() -> None:
    image = render_gaussians(single_splat(), camera_at_origin(), background=(0.0, 0.0, 1.0))
    # On the axis the Jacobian is focal / depth = 25 px / m; 0.3 px^2 are added to the variances.
    x = torch.arange(41) + 0.5 - 41 / 2
    y = torch.arange(31) + 0.5 - 31 / 2
    exponent = x**2 / (2 * (2.5**2 + 0.3)) + y[:, None] ** 2 / (2 * (5.0**2 + 0.3))
    alpha = 0.8 * torch.exp(-exponent)
    alpha = torch.where(alpha < 1 / 255, 0.0, alpha)
    torch.testing.assert_close(image.alphas[0], alpha, atol=2e-6, rtol=1e-5)
    expected = alpha[..., None] * torch.tensor([0.9, 0.5, 0.1]) + (1 - alpha)[..., None] * torch.tensor(
        [0.0, 0.0, 1.0]
    )
    torch.testing.assert_close(image.colors[0], expected, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(image.depths[0], torch.where(alpha > 0, 2.0, 0.0), atol=1e-4, rtol=0.0)


def test_the_nearer_splat_covers_the_farther() -> None:
    both = concatenate([single_splat((0.0, 0.0, 4.0), 1.0), single_splat((0.0, 0.0, 2.0), 0.5)])
    alphas = render_gaussians(both, camera_at_origin()).alphas[0, 15, 20].item()
    depth = render_gaussians(both, camera_at_origin()).depths[0, 15, 20].item()
    assert alphas == pytest.approx(1 - 0.5 * (1 - 0.999), abs=1e-4)
    assert depth == pytest.approx((0.5 * 2 + 0.5 * 0.999 * 4) / alphas, abs=1e-4)


def test_background_is_white_unless_told(make_scene) -> None:
    splats, cameras = make_scene(0)
    premultiplied = render_gaussians(splats, cameras, background=torch.zeros(3))
    for given, color in ((None, 1.0), ([0.25, 0.25, 0.25], 0.25)):
        image = render_gaussians(splats, cameras, background=given)
        torch.testing.assert_close(image.colors, premultiplied.colors + color * (1 - premultiplied.alphas)[..., None])


def test_background_gets_its_gradient(make_scene) -> None:
    splats, cameras = make_scene(1)
    background = torch.tensor([0.1, 0.2, 0.3], requires_grad=True)
    image = render_gaussians(splats, cameras, background=background)
    image.colors.sum().backward()
    torch.testing.assert_close(background.grad, (1 - image.alphas).sum().expand(3))


def test_the_order_of_the_splats_does_not_matter(make_scene, rng: torch.Generator) -> None:
    splats, cameras = make_scene(2, num_cameras=2)
    shuffled = splats[torch.randperm(splats.num_splats, generator=rng)]
    assert_same(render_gaussians(shuffled, cameras), render_gaussians(splats, cameras), atol=0.0, rtol=0.0)


def test_a_rigid_motion_of_world_and_cameras_changes_nothing(make_scene) -> None:
    splats, cameras = make_scene(4)
    # A quarter turn about +Y: exact in floating point, for quaternions (1, 0, 1, 0) * q.
    turn = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    w, x, y, z = splats.quats.unbind(-1)
    viewmats = cameras.viewmats.clone()
    viewmats[:, :3, :3] = viewmats[:, :3, :3] @ turn.T
    moved = Gaussians(
        means=splats.means @ turn.T,
        quats=torch.stack([w - y, x + z, y + w, z - x], dim=-1),
        scales=splats.scales,
        opacities=splats.opacities,
        colors=splats.colors,
    )
    moved_cameras = Cameras(viewmats=viewmats, Ks=cameras.Ks, width=cameras.width, height=cameras.height)
    assert_same(render_gaussians(moved, moved_cameras), render_gaussians(splats, cameras), atol=1e-4, rtol=1e-4)


def test_no_splats_make_an_empty_picture() -> None:
    nothing = single_splat()[:0]
    image = render_gaussians(nothing, camera_at_origin())
    assert (image.colors == 1).all()
    assert (image.alphas == 0).all()
    assert (image.depths == 0).all()


@pytest.mark.parametrize(
    "unseen",
    [
        single_splat((0.0, 0.0, -2.0)),
        single_splat((0.0, 0.0, 0.005)),
        single_splat((0.0, 0.0, 30.0)),
        single_splat((50.0, 0.0, 2.0)),
        single_splat(opacity=0.0039),
        single_splat(opacity=0.0),
    ],
    ids=["behind", "too near", "too far", "beside", "too faint", "transparent"],
)
def test_unseen_splats_leave_no_trace_and_get_no_gradient(unseen: Gaussians) -> None:
    leaves = concatenate([single_splat(), unseen]).map(lambda tensor: tensor.requires_grad_())
    image = render_gaussians(leaves, camera_at_origin(), far=20.0)
    assert_same(image.detach(), render_gaussians(single_splat(), camera_at_origin()), atol=0.0, rtol=0.0)
    (image.colors.sum() + image.depths.sum()).backward()
    for tensor in (leaves.means, leaves.quats, leaves.scales, leaves.opacities, leaves.colors):
        assert tensor.grad is not None
        assert (tensor.grad[1] == 0).all()
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_batch_equals_a_loop(make_scene, backend: str) -> None:
    scenes = [make_scene(seed, num_splats=30, num_cameras=2, width=17, height=16) for seed in (5, 6)]
    splats = Gaussians(
        **{
            name: torch.stack([getattr(scene, name) for scene, _ in scenes])
            for name in ("means", "quats", "scales", "opacities", "colors")
        }
    )
    cameras = Cameras(
        viewmats=torch.stack([cameras.viewmats for _, cameras in scenes]),
        Ks=torch.stack([cameras.Ks for _, cameras in scenes]),
        width=17,
        height=16,
    )
    together = render_gaussians(splats, cameras, backend=backend)
    assert together.colors.shape == (2, 2, 16, 17, 3)
    for i, (scene, views) in enumerate(scenes):
        assert_same(together[i], render_gaussians(scene, views, backend=backend), atol=0.0, rtol=0.0)


def test_gradients_add_up_over_the_cameras(make_scene) -> None:
    splats, cameras = make_scene(7, num_cameras=3)
    leaves = splats.map(lambda tensor: tensor.requires_grad_())
    render_gaussians(leaves, cameras).colors.square().sum().backward()
    total = leaves.means.grad.clone()
    leaves.means.grad = None
    for i in range(3):
        render_gaussians(leaves, cameras[i : i + 1]).colors.square().sum().backward()
    torch.testing.assert_close(leaves.means.grad, total, rtol=1e-4, atol=1e-3)


def test_the_number_of_threads_changes_no_bit(make_scene) -> None:
    splats, cameras = make_scene(8, num_splats=9000, width=100, height=90)
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            leaves = splats.map(lambda tensor: tensor.clone().requires_grad_())
            image = render_gaussians(leaves, cameras)
            image.colors.square().sum().backward()
            results.append((image.detach(), leaves.means.grad, leaves.quats.grad))
    finally:
        torch.set_num_threads(threads)
    assert_same(results[0][0], results[1][0], atol=0.0, rtol=0.0)
    assert torch.equal(results[0][1], results[1][1])
    assert torch.equal(results[0][2], results[1][2])


def test_several_threads_may_render_at_once(make_scene) -> None:
    scenes = [make_scene(seed, num_splats=2000, width=64, height=64) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda scene: render_gaussians(*scene), scenes))
    for scene, image in zip(scenes, together, strict=True):
        assert_same(image, render_gaussians(*scene), atol=0.0, rtol=0.0)


def test_half_precision_splats_are_rendered_in_single_precision(make_scene) -> None:
    splats, cameras = make_scene(9)
    halves = splats.map(lambda tensor: tensor.bfloat16().requires_grad_())
    image = render_gaussians(halves, cameras)
    assert image.colors.dtype == torch.float32
    image.colors.sum().backward()
    assert halves.means.grad.dtype == torch.bfloat16


def test_optimizing_through_the_renderer_finds_the_splat() -> None:
    target = render_gaussians(single_splat((0.1, -0.05, 2.0)), camera_at_origin()).colors
    leaves = single_splat((0.0, 0.0, 2.0)).map(lambda tensor: tensor.requires_grad_())
    optimizer = torch.optim.Adam([leaves.means], lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        (render_gaussians(leaves, camera_at_origin()).colors - target).square().sum().backward()
        optimizer.step()
    assert (leaves.means[0, :2] - torch.tensor([0.1, -0.05])).abs().max() < 0.005


def spoiled(**fields: torch.Tensor) -> Gaussians:
    """A splat with other fields, past the checks of shapes that only the tests have."""
    splats = single_splat()
    for name, value in fields.items():
        object.__setattr__(splats, name, value)
    return splats


@pytest.mark.parametrize(
    ("splats", "message"),
    [
        (spoiled(colors=torch.zeros(1, 4)), "colors have shape"),
        (spoiled(means=torch.zeros(2, 3)), "means have shape"),
        (spoiled(opacities=torch.zeros(1, 1)), "opacities ask for"),
        (spoiled(means=torch.tensor([[0.0, math.nan, 1.0]])), "means hold values that are not finite"),
        (spoiled(scales=torch.tensor([[0.1, math.inf, 1.0]])), "scales hold values"),
        (spoiled(quats=torch.zeros(1, 4)), "quaternion"),
    ],
)
def test_bad_splats_are_refused(splats: Gaussians, message: str) -> None:
    with pytest.raises(UserError, match=message):
        render_gaussians(splats, camera_at_origin())


def test_bad_cameras_are_refused() -> None:
    good = camera_at_origin()
    with pytest.raises(UserError, match="axis of views"):
        render_gaussians(single_splat(), good[0])
    with pytest.raises(UserError, match="at least one"):
        render_gaussians(single_splat(), good[:0])
    with pytest.raises(UserError, match="batch axes"):
        render_gaussians(single_splat(), good.map(lambda tensor: tensor[None]))
    with pytest.raises(UserError, match="empty"):
        render_gaussians(single_splat(), Cameras(viewmats=good.viewmats, Ks=good.Ks, width=0, height=4))
    with pytest.raises(UserError, match="gives cameras no gradients"):
        render_gaussians(single_splat(), good.map(lambda tensor: tensor.clone().requires_grad_()))
    with pytest.raises(UserError, match="cameras hold values"):
        render_gaussians(single_splat(), good.map(lambda tensor: tensor / 0))
    object.__setattr__(good, "Ks", torch.eye(4)[None])
    with pytest.raises(UserError, match="shapes"):
        render_gaussians(single_splat(), good)


def test_bad_options_are_refused() -> None:
    with pytest.raises(UserError, match="interval"):
        render_gaussians(single_splat(), camera_at_origin(), near=0.0)
    with pytest.raises(UserError, match="interval"):
        render_gaussians(single_splat(), camera_at_origin(), near=2.0, far=1.0)
    with pytest.raises(UserError, match="three numbers"):
        render_gaussians(single_splat(), camera_at_origin(), background=[1.0])
    with pytest.raises(UserError, match="needs CUDA tensors"):
        render_gaussians(single_splat(), camera_at_origin(), backend="gsplat")


def test_importing_the_package_loads_neither_torch_nor_numba() -> None:
    code = "import sys, humansplat.render; print([m for m in ('torch', 'numba', 'gsplat') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
