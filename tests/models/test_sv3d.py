import logging
from dataclasses import replace

import pytest
import torch
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from humansplat.errors import UserError
from humansplat.models import sv3d_blocks
from humansplat.models.edm import LatentDenoiser, add_noise
from humansplat.models.sv3d import SV3D, build_image_encoder, load_sv3d
from humansplat.models.sv3d_blocks import idle_layers
from humansplat.models.sv3d_unet import ViewConditions


@pytest.fixture(scope="module")
def model(make_tiny_sv3d) -> SV3D:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = build_image_encoder(width=16, num_layers=1, num_heads=2, projection=16, image_size=32)
    return SV3D(make_tiny_sv3d(), encoder).eval().requires_grad_(False)


def inputs(rng: torch.Generator, batch: int = 2) -> dict[str, torch.Tensor]:
    clean, noise = torch.randn(2, batch, 4, 4, 4, 4, generator=rng)
    sigma = 3 * torch.rand(batch, generator=rng) + 0.5
    return {
        "noised": add_noise(clean, noise, sigma),
        "sigma": sigma,
        "photo_latent": clean[:, 0],
        "photo": torch.rand(batch, 3, 48, 48, generator=rng),
        "azimuths": torch.tensor([0.0, 1.57, 3.14, 4.71]).expand(batch, 4),
        "elevations": torch.rand(batch, 4, generator=rng) - 0.5,
    }


def two_views(rng: torch.Generator) -> ViewConditions:
    return ViewConditions(
        image_embedding=torch.randn(1, 1, 16, generator=rng),
        photo_latent=torch.randn(1, 4, 4, 4, generator=rng),
        cond_aug=torch.zeros(1, 2),
        polar=torch.ones(1, 2),
        azimuth=torch.ones(1, 2),
    )


def test_every_condition_reaches_the_view_it_is_of(model, rng):
    denoiser: LatentDenoiser = model
    given = inputs(rng, batch=1)
    base = denoiser.denoise(**given)
    assert base.shape == given["noised"].shape
    for name in ("photo_latent", "photo", "azimuths", "elevations"):
        changed = denoiser.denoise(**{**given, name: given[name] + 0.3})
        assert (changed - base).abs().amax(dim=(0, 2, 3, 4)).min() > 1e-5, name
    # Each view has its own angles ...
    swapped = denoiser.denoise(**{**given, "azimuths": given["azimuths"][:, [0, 2, 1, 3]]})
    assert (swapped - base).abs().amax(dim=(0, 2, 3, 4))[1:3].min() > 1e-5
    # ... and a whole turn is none.
    torch.testing.assert_close(denoiser.denoise(**{**given, "azimuths": given["azimuths"] + 2 * torch.pi}), base)


def test_the_network_gets_the_photos_view_last(model, rng):
    given = inputs(rng, batch=1)
    conditions = model.to_conditions(**{name: given[name] for name in list(given)[2:]})
    scaled = given["noised"] / (given["sigma"] ** 2 + 1) ** 0.5
    order = [1, 2, 3, 0]
    seen = ViewConditions(
        image_embedding=conditions.image_embedding,
        photo_latent=given["photo_latent"] / 0.18215,
        cond_aug=conditions.cond_aug,
        polar=torch.pi / 2 - given["elevations"][:, order],
        azimuth=given["azimuths"][:, order],
    )
    raw = model.unet(scaled[:, order], given["sigma"].log() / 4, seen)
    variance = given["sigma"] ** 2 + 1
    expected = given["noised"][:, order] / variance - given["sigma"] / variance**0.5 * raw
    torch.testing.assert_close(model.denoise(**given)[:, order], expected)


def test_without_angles_in_the_widths_there_are_none(make_tiny_sv3d, rng):
    """SV3D-u: its embedding has room for the conditioning noise only."""
    unet = make_tiny_sv3d(projection_class_embeddings_input_dim=32)
    conditions = ViewConditions(
        image_embedding=torch.randn(1, 1, 16, generator=rng),
        photo_latent=torch.randn(1, 4, 4, 4, generator=rng),
        cond_aug=torch.zeros(1, 3),
        polar=torch.rand(1, 3, generator=rng),
        azimuth=torch.rand(1, 3, generator=rng),
    )
    assert unet.view_vector(conditions).shape == (1, 3, 32)
    assert unet(torch.randn(1, 3, 4, 4, 4, generator=rng), torch.zeros(1), conditions).shape == (1, 3, 4, 4, 4)
    with pytest.raises(ValueError, match="30 leaves -2"):
        make_tiny_sv3d(projection_class_embeddings_input_dim=30)
    with pytest.raises(ValueError, match="multiples of 2"):
        unet(torch.randn(1, 3, 4, 5, 4, generator=rng), torch.zeros(1), conditions)


def test_it_is_diffusers_network_but_for_the_conditions_and_the_norms(make_tiny_sv3d, rng):
    """With the same embedding for all views, and the same epsilons, both are one function."""
    unet = make_tiny_sv3d(projection_class_embeddings_input_dim=32)
    ours = ("latent_scaling", "norm_groups", "sampling")
    arguments = {k: v for k, v in unet.config.items() if not k.startswith("_") and k not in ours}
    plain = UNetSpatioTemporalConditionModel(**arguments).eval().requires_grad_(False)
    plain.load_state_dict(unet.state_dict())
    for module in plain.modules():
        if isinstance(module, torch.nn.GroupNorm) and module.eps == 1e-6:
            module.eps = 1e-5
    for block in (*plain.down_blocks, plain.mid_block, *plain.up_blocks):
        for attention in getattr(block, "attentions", []):
            attention.norm.eps = 1e-6
    sample, photo = torch.randn(2, 1, 3, 4, 4, 4, generator=rng)
    embedding = torch.randn(1, 1, 16, generator=rng)
    conditions = ViewConditions(
        image_embedding=embedding,
        photo_latent=photo[:, 0],
        cond_aug=torch.full((1, 3), 0.02),
        polar=torch.zeros(1, 3),
        azimuth=torch.zeros(1, 3),
    )
    level = torch.tensor([0.3])
    beside = photo[:, :1].expand(-1, 3, -1, -1, -1)
    expected = plain(torch.cat([sample, beside], dim=2), level, embedding, torch.tensor([[0.02]])).sample
    torch.testing.assert_close(unet(sample, level, conditions), expected)


def test_checkpointing_does_not_change_gradients(make_tiny_sv3d, rng):
    unet = make_tiny_sv3d().train().requires_grad_(True)
    sample, level = torch.randn(1, 2, 4, 4, 4, generator=rng), torch.zeros(1)
    conditions = two_views(rng)
    gradients = []
    for enable in (False, True):
        unet.zero_grad()
        if enable:
            unet.enable_gradient_checkpointing()
        unet(sample, level, conditions).square().sum().backward()
        gradients.append(unet.conv_in.weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_layers_that_attention_to_one_token_does_without_have_gradients_of_zero(make_tiny_sv3d, rng):
    unet = make_tiny_sv3d().requires_grad_(True)
    photo, tokens = torch.randn(2, 1, 16, generator=rng), torch.randn(2, 4, 32, generator=rng)
    layer = unet.down_blocks[0].attentions[0].transformer_blocks[0]
    sv3d_blocks._within_pictures(layer, tokens, photo).square().sum().backward()
    found = {name: parameter.grad for name, parameter in layer.named_parameters()}
    assert all(gradient is not None for gradient in found.values())
    idle = {name for name, gradient in found.items() if not gradient.any()}
    assert idle == {"norm2.weight", "norm2.bias", "attn2.to_q.weight", "attn2.to_k.weight"}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_offload_waits_for_no_layer_that_never_runs(make_tiny_sv3d, rng, caplog, monkeypatch, device):
    """diffusers' fetches layers ahead in the order of a first run, and warns of those that it missed there."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    # Offload to compare, not TF32's 10 bits, which a GPU's convolutions have by default: rounded so, what differs by
    # 1e-7 (the photo's token given twice is attended to like one) comes out 1e-4 apart.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    unet = make_tiny_sv3d().to(device)
    sample, level = torch.randn(1, 2, 4, 4, 4, generator=rng).to(device), torch.zeros(1, device=device)
    conditions = two_views(rng).to(device)
    ran: list[torch.nn.Module] = []
    leaves = {module for module in unet.modules() if next(module.parameters(recurse=False), None) is not None}
    hooks = [module.register_forward_hook(lambda module, *_: ran.append(module)) for module in leaves]
    with torch.no_grad():
        expected = unet(sample, level, conditions)
        idle = {getattr(parent, name) for parent, name in idle_layers(unet)}
        assert leaves - set(ran) == idle
        for hook in hooks:
            hook.remove()
        unet.enable_group_offload(device, offload_type="leaf_level", use_stream=device == "cuda")
        for _ in range(2):
            torch.testing.assert_close(unet(sample, level, conditions), expected)
    assert all(hasattr(layer, "_diffusers_hook") for layer in idle)
    conditions = replace(conditions, image_embedding=conditions.image_embedding.repeat(1, 2, 1))
    torch.testing.assert_close(unet(sample, level, conditions), expected, atol=1e-4, rtol=1e-4)  # all layers run
    assert "not executed" not in caplog.text


def test_a_folder_gives_the_same_model_and_refuses_another(model, rng, tmp_path, capfd):
    given = inputs(rng, batch=1)
    model.save(tmp_path)
    capfd.readouterr()
    load_sv3d(tmp_path)
    assert capfd.readouterr().err == "", "nothing is written across the caller's progress bar"
    assert transformers_logging.is_progress_bar_enabled()
    # The same numbers, but a file's tensors may lie otherwise in memory, and be summed in another order.
    torch.testing.assert_close(load_sv3d(tmp_path).denoise(**given), model.denoise(**given), rtol=1e-5, atol=1e-5)

    file = tmp_path / "image_encoder" / "model.safetensors"
    state = load_file(file)
    name = "visual_projection.weight"
    save_file({key: tensor for key, tensor in state.items() if key != name}, file, {"format": "pt"})
    with pytest.raises(UserError, match=f"missing: {name}"):
        load_sv3d(tmp_path)
    save_file({**state, name: state[name][:, :8].contiguous()}, file, {"format": "pt"})
    with pytest.raises(UserError, match=f"of another shape: {name}"):
        load_sv3d(tmp_path)
    file.write_bytes(b"no tensors")
    with pytest.raises(UserError, match="image_encoder"):
        load_sv3d(tmp_path)
    (tmp_path / "unet" / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config\.json"):
        load_sv3d(tmp_path)
