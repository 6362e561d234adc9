"""What the network is given."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from humansplat.config import (
    AugmentConfig,
    DataConfig,
    LatentsConfig,
    OptimConfig,
    ReconstructionConfig,
    ReconstructorConfig,
    TrainConfig,
)
from humansplat.draws import BatchGenerator
from humansplat.errors import UserError
from humansplat.geometry.projection import elevations, intrinsics, look_at
from humansplat.models.autoencoder import build_autoencoder, encode_images, on_white
from humansplat.models.edm import LatentDenoiser
from humansplat.models.sv3d import SV3D, build_image_encoder
from humansplat.pipelines.weights import ViewSampling
from humansplat.structures import Cameras
from humansplat.training.latents import LatentSource
from humansplat.training.reconstruction_task import ReconstructionTask

SIZE = 64
MODEL = ReconstructorConfig(
    width=16, num_heads=2, num_intra_layers=1, num_inter_layers=1, num_body_tokens=32, kept_cells=24
)


@pytest.fixture(scope="module")
def vae(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        build_autoencoder((16, 16, 16, 16)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def batch(pool):
    people = torch.tensor([0, 1, 0, 1])
    return pool.batch(people, torch.tensor([[4, 5]]).expand(4, 2), num_inputs=4)


class Halver:
    """A denoiser whose estimate is half of what it is given; it keeps what it was called with."""

    def denoise(self, noised, sigma, photo_latent, photo, azimuths, elevations):
        self.noised, self.sigma, self.photo_latent, self.azimuths = noised, sigma, photo_latent, azimuths
        return noised / 2

    def denoiser(self, *told):
        return lambda noised, sigma: self.denoise(noised, sigma, *told)


def source(vae: Path, **shares: float) -> LatentSource:
    latents = LatentsConfig(**{"clean": 0.0, "view_model": vae, **shares})
    options = ReconstructionConfig(autoencoder=vae, num_inputs=4, latents=latents)
    if shares.get("diffused", 0) == 0:
        return LatentSource(options)
    made = LatentSource(ReconstructionConfig(autoencoder=vae, num_inputs=4))
    made.options, made.view_model = options, Halver()
    return made


def test_each_kind_is_what_it_says_and_the_photo_stays_clean(vae, batch):
    truth = source(vae, clean=1.0).clean(batch).values
    assert truth.shape == (4, 4, 4, SIZE // 8, SIZE // 8)

    def drawn(**shares):
        made = source(vae, **shares)
        values, known = made.mixed(batch, torch.Generator().manual_seed(0))
        torch.testing.assert_close(values[:, 0], truth[:, 0], rtol=0, atol=0)
        return made, values[:, 1:], known

    _, clean, known = drawn(clean=1.0)
    torch.testing.assert_close(clean, truth[:, 1:], rtol=0, atol=0)
    assert known is None
    _, noised, known = drawn(noised=1.0, sigma_mean=-1.0, sigma_std=0.0)
    assert (noised - truth[:, 1:]).std().item() == pytest.approx(0.3679, rel=0.05)
    assert known.all()
    _, _, known = drawn(missing=1.0)
    assert known.tolist() == [[True, False, False, False]] * 4
    made, diffused, known = drawn(diffused=1.0)
    seen = made.view_model
    torch.testing.assert_close(diffused, seen.noised[:, 1:] / 2, rtol=0, atol=0)
    torch.testing.assert_close(seen.photo_latent, truth[:, 0], rtol=0, atol=0)
    assert seen.azimuths[0].tolist() == pytest.approx([0, torch.pi / 2, torch.pi, 1.5 * torch.pi])
    assert ((seen.noised - truth).flatten(1).std(dim=1) / seen.sigma - 1).abs().max() < 0.1
    assert known.all()
    made, diffused, _ = drawn(diffused=1.0, denoising_steps=2)
    noise, low = seen.noised, 0.5**7  # the second step begins at the level times that, half denoised
    torch.testing.assert_close(made.view_model.sigma, seen.sigma * low)
    torch.testing.assert_close(diffused, (noise / 2 + noise / 2 * low)[:, 1:] / 2)


def test_kept_latents_are_those_of_the_pictures_mirrored_or_not(vae, pool):
    data = DataConfig(image_size=SIZE, augment=AugmentConfig(mirror=0.5, gain=0.0))
    options = ReconstructionConfig(autoencoder=vae, num_inputs=4, num_targets=1, keep_latents=True, model=MODEL)
    task = ReconstructionTask(
        TrainConfig(task="reconstruction", data=data, reconstruction=options, mixed_precision="no")
    )
    batch = task.sample(pool, 6, torch.Generator().manual_seed(0))
    assert {True, False} == set(batch.mirrored.tolist())
    given, fresh = task.latents.clean(batch).values, task.latents.clean(replace(batch, latents=None)).values
    torch.testing.assert_close(given, fresh, rtol=1e-3, atol=1e-3)
    with pytest.raises(UserError, match=r"set data\.augment\.gain"):
        TrainConfig(task="reconstruction", reconstruction=options)
    with pytest.raises(UserError, match=r"reconstruction\.keep_latents needs a pool that stays"):
        TrainConfig(task="reconstruction", data=replace(data, watch=True), reconstruction=options)


def test_a_view_model_is_loaded_and_asked(vae, batch, make_tiny_sv3d, tmp_path):
    encoder = build_image_encoder(16, 1, 2, 16, image_size=32)
    SV3D(make_tiny_sv3d(latent_scaling=1.0), encoder).save(tmp_path)
    SV3D(make_tiny_sv3d(latent_scaling=0.18215), encoder).save(tmp_path / "other")
    latents = LatentsConfig(clean=0.0, diffused=1.0, view_model=tmp_path)
    made = LatentSource(ReconstructionConfig(autoencoder=vae, num_inputs=4, latents=latents))
    assert isinstance(made.view_model, LatentDenoiser)
    assert set(made.view_model.state_dict()) <= {name.removeprefix("view_model.") for name in made.state_dict()}
    with torch.no_grad():
        values, _ = made.mixed(batch, torch.Generator().manual_seed(0))
    truth = made.clean(batch).values
    assert values.shape == truth.shape
    assert values.isfinite().all()
    torch.testing.assert_close(values[:, 0], truth[:, 0], rtol=0, atol=0)
    assert ((values - truth)[:, 1:].flatten(2).abs().amax(dim=2) > 0.01).all()
    with torch.no_grad():
        validated = made.validated(batch).values
    torch.testing.assert_close(validated[:, 0], truth[:, 0], rtol=0, atol=0)
    torch.testing.assert_close(validated[:2], validated[2:], atol=1e-4, rtol=1e-4)  # the same people
    # One that was distilled begins with noise alone: the true unseen views make no difference.
    made.view_sampling = ViewSampling(num_steps=1, sampler="euler")
    other_views = torch.cat([batch.images[:, :1], batch.images[:, 1:].flip(-1)], dim=1)
    with torch.no_grad():
        of_noise = [
            made.mixed(some, torch.Generator().manual_seed(0)).values
            for some in (batch, replace(batch, images=other_views))
        ]
    assert torch.equal(*of_noise)
    assert not torch.equal(of_noise[0], values)
    for folder, complaint in (("no", "unet"), ("other", "scales latents by 1.0, the UNet expects 0.18215")):
        other = replace(latents, view_model=tmp_path / folder)
        with pytest.raises(UserError, match=complaint):
            LatentSource(ReconstructionConfig(autoencoder=vae, num_inputs=4, latents=other))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("distilled", [False, True])
def test_a_gpu_replays_what_the_view_model_makes_up(vae, batch, make_tiny_sv3d, tmp_path, distilled):
    SV3D(make_tiny_sv3d(latent_scaling=1.0), build_image_encoder(16, 1, 2, 16, image_size=32)).save(tmp_path)
    here = batch.to("cuda")
    made = []
    for graphs in (False, True):
        latents = LatentsConfig(clean=0.0, diffused=1.0, denoising_steps=2, view_model=tmp_path, graphs=graphs)
        source = LatentSource(ReconstructionConfig(autoencoder=vae, num_inputs=4, latents=latents)).cuda()
        if distilled:
            source.view_sampling = ViewSampling(num_steps=2, sampler="euler")
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            drawn = [source.mixed(here, torch.Generator("cuda").manual_seed(seed)).values for seed in (0, 1)]
        assert not torch.equal(*drawn)
        made.append(torch.stack(drawn))
    torch.testing.assert_close(*made, rtol=1e-3, atol=1e-3)


def test_shares_are_those_of_the_people(vae):
    made = source(vae, clean=1.0, noised=2.0, missing=1.0)
    kinds = made._kinds(4000, torch.Generator().manual_seed(0))
    shares = torch.bincount(kinds, minlength=4) / 4000
    torch.testing.assert_close(shares, torch.tensor([0.25, 0.5, 0.0, 0.25]), atol=0.03, rtol=0)


def test_what_is_drawn_depends_on_the_place_in_the_whole_batch(vae, pool):
    made = source(vae, clean=1.0, noised=1.0, missing=1.0)

    def drawn(people: list[int], part: int, num_parts: int):
        generator = BatchGenerator()
        generator.begin(7, 3, part=part, num_parts=num_parts, size=len(people))
        views = torch.tensor([[4, 5]]).expand(len(people), 2)
        return made.mixed(pool.batch(torch.tensor(people), views, num_inputs=4), generator)

    whole, parts = drawn([0, 1, 1, 0], 0, 1), [drawn([0, 1], 0, 2), drawn([1, 0], 1, 2)]
    torch.testing.assert_close(torch.cat([part.values for part in parts]), whole.values, rtol=0, atol=1e-5)
    assert torch.equal(torch.cat([part.known for part in parts]), whole.known)


def test_pixel_space_needs_no_autoencoder_and_keeps_every_pixel(batch, tmp_path):
    options = ReconstructionConfig(autoencoder=tmp_path / "none", space="pixel")
    made = LatentSource(options)
    given = made.clean(batch).values
    assert given.shape[1:] == (4, made.channels, SIZE // 8, SIZE // 8)
    restored = torch.nn.functional.pixel_shuffle(given.flatten(0, 1), 8).unflatten(0, (4, 4))
    torch.testing.assert_close(restored, 2 * on_white(batch.images) - 1)
    torch.testing.assert_close(encode_images(None, on_white(batch.images[:, 0])), given[:, 0])


def test_a_step_with_four_views_of_pixels_some_noised_or_missing(pool, tmp_path):
    options = ReconstructionConfig(
        autoencoder=tmp_path / "none",
        num_inputs=4,
        space="pixel",
        latents=LatentsConfig(noised=1.0, missing=1.0),
        num_targets=2,
        model=MODEL,
    )
    data = DataConfig(image_size=SIZE, augment=AugmentConfig())
    config = TrainConfig(
        task="reconstruction", num_steps=9, data=data, optim=OptimConfig(warmup_steps=1), reconstruction=options
    )
    task = ReconstructionTask(config)
    generator = torch.Generator().manual_seed(0)
    batch = task.sample(pool, 2, generator)
    assert batch.images.shape[1] == 4
    module = task.build_module()
    terms = task.training_loss(module, batch, generator, 0)
    torch.stack([value for name, value in terms.items() if not name.startswith("_")]).sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in module.parameters())
    assert module.config["latent_channels"] == 192


def test_elevations_are_the_cameras():
    eyes = torch.tensor([[0.0, 1.0, 3.0], [0.0, 4.0, 3.0]])
    view = look_at(eyes, torch.tensor([0.0, 1.0, 0.0]).expand(2, 3), torch.tensor([0.0, 1.0, 0.0]))
    cameras = Cameras(viewmats=view, Ks=intrinsics(0.5, SIZE, SIZE).expand(2, 3, 3), width=SIZE, height=SIZE)
    torch.testing.assert_close(elevations(cameras), torch.tensor([0.0, torch.pi / 4]), atol=1e-5, rtol=0)


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(UserError, match="needs a view model"):
        LatentsConfig(diffused=0.5)
    with pytest.raises(UserError, match="at least 0"):
        LatentsConfig(clean=0.0)
    with pytest.raises(UserError, match="num_inputs=4"):
        ReconstructionConfig(latents=LatentsConfig(noised=1.0))
    with pytest.raises(UserError, match="the views of the rig"):
        ReconstructionConfig(model=ReconstructorConfig(num_views=6))
    with pytest.raises(UserError, match="no pixel space"):
        ReconstructionConfig(
            num_inputs=4, space="pixel", latents=LatentsConfig(diffused=1.0, view_model=Path("views"))
        )
