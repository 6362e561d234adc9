import dataclasses

import pytest
import torch

from humansplat.geometry.projection import intrinsics
from humansplat.structures import Cameras, Gaussians, Mesh, PosedBody, TensorStruct, concatenate


def some_gaussians(rng, *batch, n=6):
    return Gaussians(
        means=torch.randn(*batch, n, 3, generator=rng),
        quats=torch.nn.functional.normalize(torch.randn(*batch, n, 4, generator=rng), dim=-1),
        scales=torch.rand(*batch, n, 3, generator=rng) * 0.05 + 0.001,
        opacities=torch.rand(*batch, n, generator=rng),
        colors=torch.rand(*batch, n, 3, generator=rng),
    )


def test_records_are_frozen(rng):
    with pytest.raises(dataclasses.FrozenInstanceError):
        some_gaussians(rng).means = torch.zeros(6, 3)  # type: ignore[misc]


def test_fields_are_named_when_made():
    with pytest.raises(TypeError):
        Mesh(torch.zeros(3, 3), torch.zeros(1, 3, dtype=torch.int64))  # type: ignore[misc]


def test_map_reaches_nested_records_and_keeps_plain_fields(rng):
    class Pair(TensorStruct):
        splats: Gaussians
        cameras: Cameras
        name: str

    cameras = Cameras(viewmats=torch.eye(4), Ks=intrinsics(0.5, 8, 4), width=8, height=4)
    pair = Pair(splats=some_gaussians(rng), cameras=cameras, name="x").map(torch.Tensor.double)
    assert pair.splats.means.dtype == pair.cameras.Ks.dtype == torch.float64
    assert (pair.name, pair.cameras.width) == ("x", 8)


def test_detaching_cuts_the_graph(rng):
    splats = some_gaussians(rng)
    splats.means.requires_grad_()
    assert not splats.detach().means.requires_grad


def test_indexing_takes_one_of_a_batch(rng):
    splats = some_gaussians(rng, 3)
    assert splats[1].means.shape == (6, 3)
    torch.testing.assert_close(splats[1].colors, splats.colors[1])
    assert splats[1:].opacities.shape == (2, 6)


def test_where_keeps_the_chosen_splats(rng):
    splats = some_gaussians(rng)
    keep = torch.tensor([True, False, True, False, False, True])
    assert splats.where(keep).num_splats == 3
    torch.testing.assert_close(splats.where(keep).scales, splats.scales[keep])


def test_where_refuses_a_batch(rng):
    with pytest.raises(ValueError, match="unbatched Gaussians"):
        some_gaussians(rng, 2).where(torch.ones(6, dtype=torch.bool))


def test_concatenation_joins_along_the_splats(rng):
    a, b = some_gaussians(rng, 2), some_gaussians(rng, 2, n=4)
    joined = concatenate([a, b])
    assert joined.num_splats == 10
    torch.testing.assert_close(joined.means[:, 6:], b.means)


def test_shapes_are_checked_in_tests():
    with pytest.raises(TypeError):
        Gaussians(
            means=torch.zeros(5, 3),
            quats=torch.zeros(5, 4),
            scales=torch.zeros(5, 3),
            opacities=torch.zeros(4),
            colors=torch.zeros(5, 3),
        )


def test_resized_cameras_see_the_same_directions():
    camera = Cameras(viewmats=torch.eye(4), Ks=intrinsics(0.8, 64, 32), width=64, height=32)
    small = camera.resized(16, 8)
    corner = torch.linalg.inv(camera.Ks) @ torch.tensor([64.0, 32.0, 1.0])
    torch.testing.assert_close(torch.linalg.inv(small.Ks) @ torch.tensor([16.0, 8.0, 1.0]), corner)
    assert (small.width, small.height) == (16, 8)


def test_a_posed_body_may_lack_parameters():
    body = PosedBody(
        vertices=torch.zeros(2, 4, 3),
        joints=torch.zeros(2, 3, 3),
        canonical=torch.zeros(4, 3),
        faces=torch.tensor([[0, 1, 2]]),
        parts=torch.zeros(4, dtype=torch.int64),
    )
    assert body.parameters is None
    assert body.detach().model == "anny"
