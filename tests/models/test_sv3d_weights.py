import json
import os
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from humansplat.errors import UserError
from humansplat.models.edm import denoise_with, karras_sigmas, preconditioning
from humansplat.models.edm_sampling import guidance_by_place, guide, sample
from humansplat.models.sv3d_unet import SV3DUNet, ViewConditions
from humansplat.models.sv3d_weights import load_unet, stability_names, state_in, unet_from

ROOT = Path(__file__).parents[2]
PREFIX = "model.diffusion_model."


@pytest.fixture(scope="module")
def fixtures() -> Path:
    folder = Path(os.environ.get("HUMANSPLAT_ASSETS", ROOT.parent / "shared")) / "fixtures"
    if not (folder / "sv3d_reference.safetensors").is_file():
        pytest.skip("no tensors of the published implementation: name their folder in HUMANSPLAT_ASSETS")
    return folder


@pytest.fixture(scope="module")
def tiny(make_tiny_sv3d) -> SV3DUNet:
    return make_tiny_sv3d()


@pytest.fixture
def convert(monkeypatch):
    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["convert_weights.py", *map(str, arguments)])
        return runpy.run_path(str(ROOT / "tools" / "convert_weights.py"))["main"]()

    return call


def config_of(unet: torch.nn.Module) -> dict[str, object]:
    return {name: value for name, value in unet.config.items() if not name.startswith("_")}


def assert_same(one: SV3DUNet, other: SV3DUNet) -> None:
    assert one.state_dict().keys() == other.state_dict().keys()
    theirs = other.state_dict()
    assert [name for name, tensor in one.state_dict().items() if not torch.equal(tensor, theirs[name])] == []


def test_the_default_network_has_the_1428_published_tensors(fixtures):
    lines = (fixtures / "sv3d_p_unet_keys.txt").read_text(encoding="utf-8").splitlines()
    published = {}
    for line in lines:
        name, _, shape = line.partition(" ")
        published[name] = tuple(int(side) for side in re.findall(r"\d+", shape))
    with torch.device("meta"):
        unet = SV3DUNet()
    names = stability_names(unet)
    assert {names[name]: tuple(tensor.shape) for name, tensor in unet.state_dict().items()} == published
    assert len(published) == 1428


@pytest.fixture(scope="module")
def given(fixtures) -> dict[str, torch.Tensor]:
    """A narrow network of the published implementation, what it was given, and what it computed."""
    return load_file(fixtures / "sv3d_reference.safetensors")


@pytest.fixture(scope="module")
def reference(fixtures, given) -> SV3DUNet:
    with safe_open(fixtures / "sv3d_reference.safetensors", "pt") as file:
        stated = {name: json.loads(value) for name, value in file.metadata().items()}
    widths = [stated["model_channels"] * factor for factor in stated["channel_mult"]]
    config = {
        "block_out_channels": widths,
        "num_attention_heads": [width // stated["num_head_channels"] for width in widths],
        "cross_attention_dim": stated["context_dim"],
    }
    state = {name: tensor.float() for name, tensor in given.items() if name.startswith(PREFIX)}
    return unet_from(state, config, "the reference").requires_grad_(False)


@pytest.fixture(scope="module")
def conditions(given) -> ViewConditions:
    return ViewConditions(
        image_embedding=given["input.image_embedding"],
        photo_latent=given["input.cond_latent"],
        cond_aug=given["input.cond_aug"][None],
        polar=given["input.polar_rad"][None],
        azimuth=given["input.azimuth_rad"][None],
    )


def assert_reproduces(computed: torch.Tensor, expected: torch.Tensor) -> None:
    # About 4e-6 apart after six steps with guidance.
    torch.testing.assert_close(computed, expected, atol=2e-5, rtol=0)


def test_the_reference_networks_conditions_and_one_step(given, reference, conditions):
    assert_reproduces(reference.view_vector(conditions)[0], given["expected.vector"])
    noise, sigma = given["input.noise"][None], torch.tensor([3.0])
    scale = preconditioning(sigma)
    assert_reproduces(reference(scale.input * noise, scale.noise, conditions)[0], given["expected.raw_network_output"])
    denoised = denoise_with(lambda x, level: reference(x, level, conditions), 4 * noise, sigma)
    assert_reproduces(denoised[0], given["expected.denoised"])


def test_the_reference_networks_six_guided_steps(given, reference, conditions):
    sigmas, scale = karras_sigmas(6), guidance_by_place(4)
    torch.testing.assert_close(sigmas, given["expected.sigmas"])
    assert_reproduces(scale, given["expected.guidance_scale"])
    both = conditions.joined(conditions.without_photo())

    def denoise(noised: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        estimates = denoise_with(
            lambda x, level: reference(x, level, both), torch.cat([noised, noised]), torch.cat([sigma, sigma])
        )
        full, bare = estimates.chunk(2)
        return guide(lambda x, s: full, lambda x, s: bare, scale[None])(noised, sigma)

    sampled = sample(denoise, given["input.noise"][None], sigmas, "euler")
    assert_reproduces(sampled[0], given["expected.sampled"])


def test_every_tensor_goes_there_and_back(tiny):
    published = state_in(tiny, "stability")
    assert len(published) == len(tiny.state_dict())
    assert all(name.startswith(PREFIX) for name in published)
    assert f"{PREFIX}output_blocks.1.1.conv.weight" in published  # the way up has no attention at this level
    beside = {"conditioner.embedders.0.x": torch.zeros(1), "first_stage_model.y": torch.zeros(1)}
    assert_same(unet_from({**published, **beside}, config_of(tiny), "file"), tiny)
    assert_same(unet_from(state_in(tiny, "diffusers"), config_of(tiny), "file"), tiny)


@pytest.mark.parametrize("layout", ["stability", "diffusers"])
def test_what_does_not_fit_is_named(tiny, layout):
    state, config = state_in(tiny, layout), config_of(tiny)
    first, last = list(state)[0], list(state)[-1]
    with pytest.raises(UserError, match=f"missing: {re.escape(last)}$"):
        unet_from({name: tensor for name, tensor in state.items() if name != last}, config, "file")
    extra = first.replace("weight", "wait")
    with pytest.raises(UserError, match=f"unexpected: {re.escape(extra)}$"):
        unet_from({**state, extra: state[first]}, config, "file")
    with pytest.raises(UserError, match=rf"of another shape: {re.escape(first)} \(1,\) instead of"):
        unet_from({**state, first: torch.zeros(1)}, config, "file")
    with pytest.raises(UserError, match="no layout of SV3D or SVD that is known; its tensors begin with a"):
        unet_from({"a": torch.zeros(1)}, config, "file")


def test_sv3d_u_is_recognised(make_tiny_sv3d, tiny):
    unet = make_tiny_sv3d(projection_class_embeddings_input_dim=32)
    assert_same(unet_from(state_in(unet, "stability"), config_of(tiny), "file"), unet)


def test_from_svd_it_begins_as_svd_is(tiny, rng, tmp_path):
    """Whatever the angles: SVD at its usual frame rate and motion, with the published epsilons."""
    arguments = config_of(tiny) | {"projection_class_embeddings_input_dim": 96}
    del arguments["latent_scaling"], arguments["norm_groups"], arguments["sampling"]
    svd = UNetSpatioTemporalConditionModel(**arguments).eval().requires_grad_(False)
    svd.save_pretrained(tmp_path)
    unet = load_unet(tmp_path).requires_grad_(False)
    for name, module in svd.named_modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.eps = unet.get_submodule(name).eps
    sample_, photo = torch.randn(2, 1, 3, 4, 4, 4, generator=rng)
    conditions = ViewConditions(
        image_embedding=torch.randn(1, 1, 16, generator=rng),
        photo_latent=photo[:, 0],
        cond_aug=torch.full((1, 3), 0.02),
        polar=torch.rand(1, 3, generator=rng),
        azimuth=torch.rand(1, 3, generator=rng),
    )
    level = torch.tensor([0.3])
    together = torch.cat([sample_, photo[:, :1].expand(-1, 3, -1, -1, -1)], dim=2)
    expected = svd(together, level, conditions.image_embedding, torch.tensor([[6.0, 127.0, 0.02]])).sample
    torch.testing.assert_close(unet(sample_, level, conditions), expected, atol=1e-5, rtol=1e-4)


def test_the_tool_converts_both_ways(convert, tiny, tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(config_of(tiny)))
    save_file(state_in(tiny, "stability"), tmp_path / "theirs.safetensors")
    assert convert(tmp_path / "theirs.safetensors", "--config", tmp_path / "config.json", "--out", tmp_path / "a") == 0
    assert_same(load_unet(tmp_path / "a" / "unet"), tiny)
    half = tmp_path / "half.safetensors"
    assert convert(tmp_path / "a" / "unet", "--to", "stability", "--dtype", "float16", "--out", half) == 0
    back = load_file(half)
    assert {tensor.dtype for tensor in back.values()} == {torch.float16}
    assert back.keys() == state_in(tiny, "stability").keys()
    capsys.readouterr()
    assert convert(tmp_path / "theirs.safetensors", "--out", tmp_path / "b") == 2  # 32 channels are no SV3D-p
    assert "of another shape" in capsys.readouterr().err
    beside = {"conditioner.embedders.0.open_clip.model.visual.proj": torch.zeros(1280, 1024)}
    save_file({**state_in(tiny, "stability"), **beside}, tmp_path / "theirs.safetensors")
    whole = [tmp_path / "theirs.safetensors", "--config", tmp_path / "config.json"]
    assert convert(*whole, "--out", tmp_path / "b") == 2  # the rest of the image encoder is not there
    assert "missing: vision_model.embeddings.class_embedding" in capsys.readouterr().err
    (tmp_path / "theirs.safetensors").write_bytes(b"broken")
    assert convert(tmp_path / "theirs.safetensors", "--out", tmp_path / "b") == 2
    assert not (tmp_path / "b").exists()
