import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from torch import nn
from transformers import CLIPVisionConfig

from humansplat.errors import UserError
from humansplat.models.autoencoder import build_autoencoder, stable_diffusion_autoencoder
from humansplat.models.sv3d_parts import (
    VISUAL,
    autoencoder_from,
    image_encoder_from,
)


class OpenClipVisual(nn.Module):
    """OpenCLIP's image half as it is published: one product for queries, keys and values, a bare projection."""

    def __init__(self, width: int, heads: int, projection: int, side: int, patch: int) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn((side // patch) ** 2 + 1, width))
        self.proj = nn.Parameter(torch.randn(width, projection))
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        block = nn.Module()
        block.ln_1, block.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        block.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        block.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList([block])})

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        tokens = self.conv1(pixels).flatten(2).mT
        tokens = torch.cat([self.class_embedding.expand(len(pixels), 1, -1), tokens], dim=1)
        tokens = self.ln_pre(tokens + self.positional_embedding)
        for block in self.transformer["resblocks"]:
            seen = block.ln_1(tokens)
            tokens = tokens + block.attn(seen, seen, seen, need_weights=False)[0]
            hidden = nn.functional.gelu(block.mlp["c_fc"](block.ln_2(tokens)))
            tokens = tokens + block.mlp["c_proj"](hidden)
        return self.ln_post(tokens[:, 0]) @ self.proj


def test_the_image_encoder_computes_what_openclips_does(rng):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = OpenClipVisual(width=16, heads=2, projection=8, side=28, patch=14).requires_grad_(False)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=8,
        image_size=28,
        patch_size=14,
        hidden_act="gelu",
    )
    state = {f"{VISUAL}{name}": tensor for name, tensor in theirs.state_dict().items()}
    text = {"conditioner.embedders.0.open_clip.model.logit_scale": torch.ones(())}
    ours = image_encoder_from({**state, **text}, "file", config)
    pixels = torch.randn(2, 3, 28, 28, generator=rng)
    torch.testing.assert_close(ours(pixels).image_embeds, theirs(pixels), atol=1e-4, rtol=1e-4)

    with pytest.raises(UserError, match=r"missing: visual_projection\.weight$"):
        image_encoder_from({name: tensor for name, tensor in state.items() if name != f"{VISUAL}proj"}, "file", config)
    with pytest.raises(UserError, match="unexpected: attnpool$"):
        image_encoder_from({**state, f"{VISUAL}attnpool": torch.ones(1)}, "file", config)
    with pytest.raises(UserError, match="holds no image encoder"):
        image_encoder_from(text, "file", config)


def published_names(config: dict[str, object]) -> dict[str, torch.Tensor]:
    """The autoencoder's tensors as Stable Diffusion publishes them; values tell the tensors apart."""
    widths, layers = config["block_out_channels"], config["layers_per_block"]
    names: dict[str, tuple[int, ...]] = {}

    def conv(name: str, out: int, of: int, side: int = 3) -> None:
        names.update({f"{name}.weight": (out, of, side, side), f"{name}.bias": (out,)})

    def norm(name: str, width: int) -> None:
        names.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    def block(name: str, out: int, of: int) -> None:
        norm(f"{name}.norm1", of), conv(f"{name}.conv1", out, of), norm(f"{name}.norm2", out)
        conv(f"{name}.conv2", out, out)
        if of != out:
            conv(f"{name}.nin_shortcut", out, of, 1)

    def middle(half: str, width: int) -> None:
        block(f"{half}.mid.block_1", width, width), block(f"{half}.mid.block_2", width, width)
        norm(f"{half}.mid.attn_1.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            conv(f"{half}.mid.attn_1.{part}", width, width, 1)

    top = widths[-1]
    conv("encoder.conv_in", widths[0], 3), middle("encoder", top), norm("encoder.norm_out", top)
    conv("encoder.conv_out", 8, top), conv("quant_conv", 8, 8, 1), conv("post_quant_conv", 4, 4, 1)
    conv("decoder.conv_in", top, 4), middle("decoder", top), norm("decoder.norm_out", widths[0])
    conv("decoder.conv_out", 3, widths[0])
    for level, width in enumerate(widths):
        for layer in range(layers):
            block(f"encoder.down.{level}.block.{layer}", width, width if layer else widths[max(level - 1, 0)])
        for layer in range(layers + 1):
            block(f"decoder.up.{level}.block.{layer}", width, width if layer else widths[min(level + 1, 3)])
        if level < 3:
            conv(f"encoder.down.{level}.downsample.conv", width, width)
        if level > 0:
            conv(f"decoder.up.{level}.upsample.conv", width, width)
    return {name: torch.full(shape, float(place)) for place, (name, shape) in enumerate(names.items())}


def test_the_autoencoder_is_converted_as_diffusers_converts_it():
    ours = build_autoencoder(channels=(16, 32, 48, 64))
    published = published_names(dict(ours.config))
    prefix = "conditioner.embedders.1.encoder."
    state = {f"{prefix}{name}": tensor for name, tensor in published.items()}
    state["conditioner.embedders.0.encoder.other"] = torch.ones(1)
    converted = autoencoder_from(state, "file", ours).state_dict()
    expected = convert_ldm_vae_checkpoint(published, dict(ours.config))
    assert converted.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in converted.items())

    with pytest.raises(UserError, match=r"unexpected: encoder\.extra"):
        autoencoder_from({**state, f"{prefix}encoder.extra": torch.ones(1)}, "file", ours)
    with pytest.raises(UserError, match="holds no autoencoder"):
        autoencoder_from({}, "file", ours)


def test_stable_diffusions_autoencoder_has_its_published_size():
    with torch.device("meta"):
        assert sum(tensor.numel() for tensor in stable_diffusion_autoencoder().parameters()) == 83_653_863
