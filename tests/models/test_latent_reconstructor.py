import math
from dataclasses import replace

import pytest
import torch
import trimesh

from humansplat.errors import UserError
from humansplat.geometry.projection import intrinsics, look_at, orbit, project
from humansplat.geometry.rays import pixel_centers
from humansplat.models.cells import patchify, take_cells
from humansplat.models.conditioning import BodyConditioner
from humansplat.models.latent_reconstructor import LatentReconstructor
from humansplat.structures import Cameras, PosedBody
from humansplat.training.graphs import replay_training

TINY = {
    "width": 16,
    "num_heads": 2,
    "num_intra_layers": 1,
    "num_body_layers": 1,
    "num_inter_layers": 1,
    "num_body_tokens": 20,
    "kept_cells": 12,
    "body_splats": 2,
}
SIZE = 64
UP = torch.tensor([0.0, 1.0, 0.0])


def ellipsoid_body(batch: int = 1) -> PosedBody:
    """A body as simple as can be: an ellipsoid as tall as an adult."""
    sphere = trimesh.creation.icosphere(subdivisions=3)
    canonical = torch.tensor(sphere.vertices, dtype=torch.float32) * torch.tensor([0.3, 0.85, 0.2])
    vertices = canonical + torch.tensor([0.0, 0.9, 0.0])
    return PosedBody(
        vertices=vertices.expand(batch, -1, -1),
        joints=torch.zeros(batch, 1, 3),
        canonical=canonical,
        faces=torch.tensor(sphere.faces),
        parts=torch.zeros(len(canonical), dtype=torch.long),
        model="ellipsoid",
    )


def rig(batch: int = 1, azimuth: float = 0.0, num_views: int = 4) -> Cameras:
    eye = torch.tensor([3.8 * math.sin(azimuth), 0.9, 3.8 * math.cos(azimuth)]).expand(batch, 3)
    center = torch.tensor([0.0, 0.9, 0.0]).expand(batch, 3)
    K = intrinsics(math.radians(30), SIZE, SIZE).expand(batch, 3, 3)
    photo = Cameras(viewmats=look_at(eye, center, UP), Ks=K, width=SIZE, height=SIZE)
    return orbit(photo, center, torch.arange(num_views) * (2 * math.pi / num_views))


def dummy_inputs(rng: torch.Generator, batch: int = 2, azimuth: float = 0.0, num_views: int = 4) -> dict:
    body, cameras = ellipsoid_body(batch), rig(batch, azimuth, num_views)
    conditions = BodyConditioner(num_tokens=20, map_size=SIZE // 2)(body, cameras)
    return {
        "latents": torch.randn(batch, 1, 4, SIZE // 8, SIZE // 8, generator=rng),
        "image": torch.rand(batch, 4, SIZE, SIZE, generator=rng),
        "cameras": cameras,
        "body": body,
        **conditions._asdict(),
    }


def test_splats_start_on_the_body(rng):
    model = LatentReconstructor(**TINY)
    splats = model(**dummy_inputs(rng))
    assert splats.num_splats == 12 * 64 + 3 * 12 * 16 + 20 * 2
    level = (splats.means - torch.tensor([0.0, 0.9, 0.0])) / torch.tensor([0.3, 0.85, 0.2])
    on_photo_ray = splats.opacities[:, : 12 * 64] > 0.5
    assert on_photo_ray.any()
    radius = level.norm(dim=-1)
    assert radius.median().item() == pytest.approx(1.0, abs=0.1)
    assert splats.quats.norm(dim=-1).sub(1).abs().max() < 1e-5
    assert (splats.scales > 0).all()


def test_the_result_turns_with_the_person(rng):
    """Only what the cameras see of the body matters, not where the world's axes point."""
    model = LatentReconstructor(**TINY)
    inputs = dummy_inputs(rng, batch=1)
    here = model(**inputs)
    turn = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    body = inputs["body"]
    turned_body = PosedBody(
        vertices=body.vertices @ turn.T,
        joints=body.joints,
        canonical=body.canonical,
        faces=body.faces,
        parts=body.parts,
        model=body.model,
    )
    cameras = inputs["cameras"]
    back = torch.eye(4)
    back[:3, :3] = turn.T
    turned = Cameras(viewmats=cameras.viewmats @ back, Ks=cameras.Ks, width=SIZE, height=SIZE)
    conditions = BodyConditioner(num_tokens=20, map_size=SIZE // 2)(turned_body, turned)
    assert (
        conditions.maps.hit == inputs["maps"].hit
    ).float().mean() > 0.99  # a sample on a pixel's edge may change sides
    there = model(**{**inputs, "body": turned_body, "cameras": turned, **conditions._asdict()})
    error = (here.means @ turn.T - there.means).norm(dim=-1)
    assert error.median() < 1e-4


def test_gradients_reach_every_parameter(rng):
    model = LatentReconstructor(**TINY, photo_patches=True)
    splats = model(**dummy_inputs(rng))
    sum((t * torch.randn(t.shape, generator=rng)).sum() for t in vars(splats).values()).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A bias of the keys moves all logits of a query alike, and a softmax forgets it.
    assert [name for name in silent if "key_norm" not in name] == []


def test_batch_equals_one_by_one(rng):
    model = LatentReconstructor(**TINY).eval()
    inputs = dummy_inputs(rng, batch=2)
    together = model(**inputs)
    for i in range(2):
        one = {
            "latents": inputs["latents"][i : i + 1],
            "image": inputs["image"][i : i + 1],
            "cameras": inputs["cameras"][i : i + 1],
            "body": ellipsoid_body(1),
            "maps": inputs["maps"][i : i + 1],
            "token_ids": inputs["token_ids"],
            "token_normals": inputs["token_normals"][i : i + 1],
        }
        alone = model(**one)
        torch.testing.assert_close(alone.means[0], together.means[i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone.colors[0], together.colors[i], rtol=1e-4, atol=1e-5)


def test_save_and_load_gives_the_same_splats(rng, tmp_path):
    model = LatentReconstructor(**TINY | {"window": math.inf, "num_body_tokens": None}).eval()
    model.save_pretrained(tmp_path)
    again = LatentReconstructor.from_pretrained(tmp_path).eval()
    inputs = dummy_inputs(rng)
    torch.testing.assert_close(model(**inputs).means, again(**inputs).means, rtol=0, atol=0)


def test_checkpointing_does_not_change_gradients(rng):
    model, inputs = LatentReconstructor(**TINY).train(), dummy_inputs(rng)
    grads = []
    for enable in (False, True):
        model.zero_grad()
        if enable:
            model.enable_gradient_checkpointing()
        model(**inputs).colors.square().sum().backward()
        grads.append({name: weight.grad.clone() for name, weight in model.named_parameters()})
    torch.testing.assert_close(*grads)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_forward_never_waits_for_the_device(rng):
    model = LatentReconstructor(**TINY | {"patch": 2}).cuda()
    inputs = {name: value.to("cuda") for name, value in dummy_inputs(rng).items()}
    try:
        for mode in ("default", "error"):  # kernels are compiled in the first round
            torch.cuda.set_sync_debug_mode(mode)
            with torch.autocast("cuda", torch.bfloat16):
                splats = model(**inputs)
            splats.colors.square().sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_recorded_training_calls_are_the_calls_as_written(rng):
    batches = [{name: value.to("cuda") for name, value in dummy_inputs(rng).items()} for _ in range(3)]
    found: dict[bool, list[torch.Tensor]] = {}
    for recorded in (False, True):
        torch.manual_seed(0)
        model = LatentReconstructor(**TINY).cuda().train()
        if recorded:
            replay_training(model)
        found[recorded] = []
        for inputs in batches:
            splats = model(**inputs)
            (splats.colors.square().mean() + splats.means.square().mean() + splats.scales.log().mean()).backward()
            gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            found[recorded] += [splats.means.detach(), splats.colors.detach(), gradients]
            model.zero_grad(set_to_none=True)
    assert not torch.equal(found[True][0], found[True][3])
    for replayed, written in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(replayed, written, rtol=1e-3, atol=1e-4)


def test_weights_in_bfloat16_give_nearly_the_same_splats(rng):
    model, inputs = LatentReconstructor(**TINY).eval(), dummy_inputs(rng)
    exact, rough = model(**inputs), model.bfloat16()(**inputs)
    assert rough.means.dtype == torch.float32
    assert (exact.means - rough.means).norm(dim=-1).max() < 0.005


def test_patches_of_cells_keep_a_splat_for_each_pixel_on_its_ray(rng):
    model = LatentReconstructor(**TINY | {"patch": 2, "num_views": 5, "kept_cells": None})
    inputs = dummy_inputs(rng, num_views=5)
    inputs["latents"] = torch.randn(2, 5, 4, SIZE // 8, SIZE // 8, generator=rng)
    splats, cameras = model(**inputs), inputs["cameras"]
    counts = [SIZE**2, 4 * (SIZE // 2) ** 2, 20 * 2]
    assert splats.num_splats == sum(counts)
    photo, others, _ = splats.means.split(counts, dim=1)
    others = others.unflatten(1, (4, -1))
    for view, means, stride in [(0, photo, 1)] + [(view + 1, others[:, view], 2) for view in range(4)]:
        xy, _ = project(means, cameras.viewmats[:, view], cameras.Ks[:, view])
        centers = stride * pixel_centers(SIZE // stride, SIZE // stride)[None, None]
        expected = take_cells(patchify(centers, 16 // stride), None).flatten(1, 3)
        torch.testing.assert_close(xy, expected.expand_as(xy), atol=1e-2, rtol=0)
    hit = inputs["maps"].hit[:, :1, ..., None].float().repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    level = (photo - torch.tensor([0.0, 0.9, 0.0])) / torch.tensor([0.3, 0.85, 0.2])
    on_body = level.norm(dim=-1)[take_cells(patchify(hit, 16), None).flatten(1) > 0]
    assert on_body.median().item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("use", ["none", "tokens", "maps", "full"])
def test_what_is_not_used_of_the_body_changes_nothing(rng, use):
    model = LatentReconstructor(**TINY | {"body": use})
    inputs = dummy_inputs(rng, batch=1)
    body, on_rays = inputs["body"], 12 * 64 + 3 * 12 * 16
    other = replace(body, vertices=1.1 * body.vertices)
    normals = inputs["token_normals"].flip(-1)
    seen = model(**inputs)
    moved = model(**inputs | {"body": other})
    turned = model(**inputs | {"token_normals": normals}).means[:, :on_rays]
    assert torch.equal(seen.means, moved.means) == (use == "none")
    assert torch.equal(seen.means[:, :on_rays], turned) == (use in ("none", "maps"))
    assert seen.num_splats == on_rays + (0 if use in ("none", "tokens") else 40)
    if use in ("none", "tokens"):
        assert torch.equal(model(**inputs | {"maps": None}).means, seen.means)
    else:
        with pytest.raises(ValueError, match="needs body maps"):
            model(**inputs | {"maps": None})


def test_without_a_body_splats_start_at_the_rigs_axis(rng):
    model = LatentReconstructor(**TINY | {"body": "none", "kept_cells": None})
    inputs = dummy_inputs(rng, batch=1, azimuth=0.7)
    conditions = BodyConditioner(num_tokens=20, map_size=SIZE // 2, body="none")(inputs["body"], inputs["cameras"])
    means = model(**inputs | conditions._asdict()).means[0, : SIZE**2].detach()
    facing = torch.tensor([math.sin(0.7), 0.0, math.cos(0.7)])
    assert (means @ facing).abs().max() < 0.01
    assert (means[:, 1] - 0.9).abs().max() == pytest.approx(3.8 * math.tan(math.radians(15)), rel=0.03)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"patch": 0}, "patch is 0"),
        ({"num_views": 1}, "num_views is 1"),
        ({"unseen_splats": 3}, "divides the 8 pixels"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(wrong, told):
    with pytest.raises(UserError, match=told):
        LatentReconstructor(**TINY | wrong)


def test_nothing_stands_where_the_photo_shows_background(rng):
    inputs = dummy_inputs(rng)
    inputs["image"][:, 3] = 0.0
    splats = LatentReconstructor(**TINY)(**inputs)
    assert (splats.opacities[:, : 12 * 64] == 0).all()


def test_four_latents_are_taken_too(rng):
    inputs = dummy_inputs(rng)
    model = LatentReconstructor(**TINY)
    one = model(**inputs)
    inputs["latents"] = torch.cat([inputs["latents"], torch.randn(2, 3, 4, 8, 8, generator=rng)], dim=1)
    four = model(**inputs)
    assert (one.colors - four.colors).abs().max() > 0


def test_who_lacks_views_is_as_if_they_had_not_been_given(rng):
    model = LatentReconstructor(**TINY).eval()
    inputs = dummy_inputs(rng)
    inputs["latents"] = torch.randn(2, 4, 4, SIZE // 8, SIZE // 8, generator=rng)
    known = torch.tensor([[True, True, True, True], [True, False, False, False]])
    with torch.no_grad():
        mixed = model(**inputs, known=known)
        four = model(**inputs)
        alone = model(**inputs | {"latents": inputs["latents"][:, :1]})
    torch.testing.assert_close(mixed[0].means, four[0].means, atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed[1].means, alone[1].means, atol=1e-6, rtol=0)
    assert not torch.equal(four.colors[1], alone.colors[1])


def test_a_picture_that_does_not_fit_is_refused(rng):
    inputs = dummy_inputs(rng)
    inputs["latents"] = torch.randn(2, 1, 4, 16, 16, generator=rng)
    with pytest.raises(ValueError, match="64 px needs latents of 8 cells"):
        LatentReconstructor(**TINY)(**inputs)
    inputs = dummy_inputs(rng)
    with pytest.raises(ValueError, match="takes 5 cameras, got 4"):
        LatentReconstructor(**TINY, num_views=5)(**inputs)
    with pytest.raises(ValueError, match="8 cells cannot be cut into patches of 3"):
        LatentReconstructor(**TINY, patch=3)(**inputs)
