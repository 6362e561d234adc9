"""Ways to run the frozen encoder, by the time a picture."""

import time
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor
from training_bench import Bench

from humansplat.models.autoencoder import encode_images


def encoder(bench: Bench) -> None:
    """Print a row a way, with the error that it makes."""
    bench.config("base_512")  # makes the autoencoder
    size, count = (64, 1) if bench.tiny else (512, 8)
    pictures = torch.rand(count, 3, size, size, device=bench.device)
    exact = None
    rows = bench.results["encoder"] = {}
    bench.say("| encoder | ms a picture | error against float32, relative |\n|---|---|---|")
    for label, dtype, change in (
        ("float32", torch.float32, unchanged),
        ("autocast of float32 weights", None, unchanged),
        ("autocast, channels last", None, channels_last),
        ("autocast, channels last, compiled", None, compiled_encoder),
        ("bfloat16, channels last", torch.bfloat16, channels_last),
        ("bfloat16, channels last, compiled", torch.bfloat16, compiled_encoder),
    ):
        if bench.tiny and change is compiled_encoder:  # minutes on a CPU
            continue
        kept = dtype or torch.float32
        autoencoder = AutoencoderKL.from_pretrained(bench.scratch / "vae", torch_dtype=kept).to(bench.device).eval()
        change(autoencoder.requires_grad_(False))
        taken, latents = encode(bench, autoencoder, pictures.to(kept), autocast=dtype is None)
        exact = latents.float() if exact is None else exact
        error = ((latents.float() - exact).square().mean() / exact.square().mean()).sqrt().item()
        rows[label] = 1000 * taken / count
        bench.say(f"| {label} | {1000 * taken / count:.2f} | {error:.1e} |")
    bench.say()


def encode(bench: Bench, autoencoder: Any, pictures: Tensor, *, autocast: bool) -> tuple[float, Tensor]:
    """Seconds of encoding, and the latents."""
    warm, repeats = (1, 1) if bench.tiny else (3, 10)
    with torch.no_grad(), torch.autocast(bench.device.type, torch.bfloat16, enabled=autocast):
        for _ in range(warm):
            encode_images(autoencoder, pictures)
        bench.wait()
        start = time.perf_counter()
        for _ in range(repeats):
            latents = encode_images(autoencoder, pictures)
        bench.wait()
    return (time.perf_counter() - start) / repeats, latents


def unchanged(autoencoder: Any) -> None:
    """As it was loaded."""


def channels_last(autoencoder: Any) -> None:
    """The layout that convolutions on tensor cores want."""
    autoencoder.to(memory_format=torch.channels_last)


def compiled_encoder(autoencoder: Any) -> None:
    """That layout, the norms and activations fused."""
    channels_last(autoencoder)
    autoencoder.encoder.compile(dynamic=False)
