import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import remove_hook_from_module

from humansplat.errors import UserError
from humansplat.models.autoencoder import build_autoencoder, encode_images
from humansplat.models.sv3d import build_image_encoder
from humansplat.pipelines.cuda_graphs import CudaGraphs
from humansplat.pipelines.view_synthesis import ViewSynthesizer


@pytest.fixture(scope="module")
def synthesizer(make_tiny_sv3d) -> ViewSynthesizer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = build_image_encoder(width=16, num_layers=1, num_heads=2, projection=16, image_size=32)
        vae = build_autoencoder(channels=(16, 16, 16, 16))
    return ViewSynthesizer(make_tiny_sv3d(latent_scaling=1.0), encoder.eval(), vae.eval(), image_mean=[0.5, 0.4, 0.3])


def test_the_photos_view_is_the_photo(synthesizer, rng):
    photo = torch.rand(1, 3, 32, 32, generator=rng)
    views = synthesizer(photo, num_steps=2)
    assert views.images is not None
    assert views.images.shape == (1, 4, 3, 32, 32)
    torch.testing.assert_close(views.images[:, 0], photo, rtol=0, atol=0)
    torch.testing.assert_close(views.latents[:, 0], encode_images(synthesizer.vae, photo), rtol=0, atol=0)
    assert views.latents.isfinite().all()


def test_a_photos_views_are_its_seeds_whatever_else_is_in_the_batch(synthesizer, rng):
    photos = torch.rand(2, 3, 32, 32, generator=rng)
    together = synthesizer(photos, seeds=[1, 2], num_steps=2, decode=False)
    alone = synthesizer(photos[1:2], seeds=[2], num_steps=2, decode=False, one_pass=False)
    torch.testing.assert_close(together.latents[1:2], alone.latents, atol=1e-4, rtol=1e-4)
    other = synthesizer(photos[1:2], seeds=[3], num_steps=2, decode=False)
    assert (other.latents[:, 1:] - alone.latents[:, 1:]).abs().max() > 0.1


def test_other_views_than_four_and_no_guidance(synthesizer, rng):
    photo = torch.rand(1, 3, 32, 32, generator=rng)
    angles, up = [0.0, 0.3, 0.6, 0.9, 1.2], [0.1] * 5
    plain = synthesizer(photo, angles, up, num_steps=2, guidance=(1.0, 1.0), sampler="euler", decode=False)
    same = synthesizer(photo, angles, up, num_steps=2, guidance=(1.0, 1.0 + 1e-6), sampler="euler", decode=False)
    assert plain.images is None
    torch.testing.assert_close(plain.latents, same.latents, atol=1e-4, rtol=1e-4)


def test_it_is_saved_and_loaded_as_diffusers_pipelines_are(synthesizer, rng, tmp_path):
    photo = torch.rand(1, 3, 32, 32, generator=rng)
    synthesizer.save_pretrained(tmp_path)
    expected = synthesizer(photo, num_steps=1, decode=False).latents
    for again in (ViewSynthesizer.from_pretrained(tmp_path), ViewSynthesizer.from_folder(tmp_path)):
        assert list(again.config["image_mean"]) == [0.5, 0.4, 0.3]
        torch.testing.assert_close(again(photo, num_steps=1, decode=False).latents, expected, atol=1e-5, rtol=1e-5)


def test_a_second_photo_takes_the_place_of_its_view_and_the_others_go_with_it(synthesizer, rng):
    photo, back = torch.rand(2, 1, 3, 32, 32, generator=rng)
    alone = synthesizer(photo, num_steps=2, decode=False)
    both = synthesizer(photo, given={2: back}, num_steps=2)
    assert torch.equal(both.images[:, [0, 2]], torch.stack([photo, back], dim=1))
    torch.testing.assert_close(both.latents[:, 2], encode_images(synthesizer.vae, back), rtol=0, atol=0)
    assert (both.latents - alone.latents)[:, [1, 3]].abs().amax(dim=(0, 2, 3, 4)).min() > 1e-4
    with pytest.raises(UserError, match=r"views \[4\], but there are views 1 to 3"):
        synthesizer(photo, given={4: back})


def test_layers_can_be_brought_one_by_one(synthesizer, rng):
    """As sequential offload does: no layer reads another's tensors, which are not there."""
    photo = torch.rand(1, 3, 32, 32, generator=rng)
    expected = synthesizer(photo, num_steps=1).images
    parts = (synthesizer.unet, synthesizer.image_encoder, synthesizer.vae)
    for part in parts:
        cpu_offload(part, torch.device("cpu"), offload_buffers=bool(part._parameters))
    try:
        assert synthesizer.unet.conv_in.weight.is_meta
        images = synthesizer(photo, num_steps=1).images
    finally:
        for part in parts:
            remove_hook_from_module(part, recurse=True)
    torch.testing.assert_close(images, expected)
    torch.testing.assert_close(synthesizer(photo, num_steps=1).images, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_graphs_give_the_same_views(synthesizer, rng):
    photos = torch.rand(2, 3, 64, 64, generator=rng)
    settings = ({}, {"one_pass": False}, {"guidance": (1.0, 1.0)}, {"sampler": "heun", "azimuths": (0.0, 1.0)})
    synthesizer.to("cuda").unet.channels_last()
    try:
        expected = [[synthesizer(photo[None], num_steps=3, **given) for given in settings] for photo in photos]
        synthesizer.use_cuda_graphs()
        for _ in range(2):  # recorded, then replayed
            views = [[synthesizer(photo[None], num_steps=3, **given) for given in settings] for photo in photos]
            for ours, theirs in zip(sum(views, []), sum(expected, []), strict=True):
                torch.testing.assert_close(ours.latents, theirs.latents, rtol=0, atol=1e-5)
        synthesizer.vae.to("cpu")
        with pytest.raises(UserError, match="not all networks stay on cuda:0"):
            synthesizer(photos[:1], num_steps=1)
        assert synthesizer.to("cpu")(photos[:1], num_steps=1).images.device.type == "cpu"
    finally:
        synthesizer.release_cuda_graphs()
        synthesizer.to("cpu")


def test_what_does_not_go_together_is_refused(synthesizer, make_tiny_sv3d):
    photo = torch.zeros(2, 3, 32, 32)
    with pytest.raises(UserError, match="first azimuth"):
        synthesizer(photo, [0.5, 1.0])
    with pytest.raises(UserError, match="first azimuth"):
        synthesizer(photo, [0.0, 1.0], [0.0])
    with pytest.raises(UserError, match="3 seeds for 2 photos"):
        synthesizer(photo, seeds=[1, 2, 3])
    with pytest.raises(UserError, match="CUDA graphs need a CUDA device, the networks are on cpu"):
        synthesizer.use_cuda_graphs()
    with pytest.raises(UserError, match="no sampler 'magic'; use one of euler, heun, dpm"):
        synthesizer._sampling(sampler="magic")
    with pytest.raises(UserError, match="1 CUDA graphs are to be kept; keep two or more"):
        CudaGraphs(torch.device("cuda"), most=1)
    with pytest.raises(ValueError, match=r"scales latents by 1\.0, the UNet expects 0\.18215"):
        ViewSynthesizer(make_tiny_sv3d(), synthesizer.image_encoder, synthesizer.vae)
