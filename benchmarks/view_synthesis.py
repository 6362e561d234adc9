"""Time SV3D at its full size, and find what fits on small cards.

python benchmarks/view_synthesis.py [--device cuda|cpu] [--tiny] [--only step call memory]

Random weights of SV3D-p, OpenCLIP's ViT-H/14 and Stable Diffusion's autoencoder, in float16. ``step`` is one
evaluation of the network, four views of 64 x 64 cells or 21 of 72 x 72, with guidance in one batch of two and without;
``graph`` its replay from a CUDA graph. ``call`` is a photo to latents, ``memory`` a photo to pictures under a limit on
PyTorch's allocator, which leaves out the driver's own memory (about half a gigabyte). Times are medians, on CUDA by
its events.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from transformers import CLIPVisionModelWithProjection

from humansplat.models.autoencoder import build_autoencoder, stable_diffusion_autoencoder
from humansplat.models.sv3d import build_image_encoder
from humansplat.models.sv3d_parts import vit_h
from humansplat.models.sv3d_unet import SV3DUNet, ViewConditions
from humansplat.pipelines.view_synthesis import ViewSynthesizer

PARTS = ("step", "call", "memory")
LIMITS_GIB = (6, 8, 12, 24)
TINY = {
    "block_out_channels": (32, 32),
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "num_attention_heads": 2,
    "latent_scaling": 1.0,
}


def main() -> None:
    """Build once, measure what was asked for, print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks and pictures, to try the script")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    synthesizer = build(arguments.tiny, arguments.device)
    size = 128 if arguments.tiny else 512
    with torch.no_grad():
        if "step" in arguments.only:
            time_steps(synthesizer, size // 8, arguments.repeats)
        if "call" in arguments.only:
            time_calls(synthesizer, size, arguments.repeats)
        if "memory" in arguments.only and arguments.device == "cuda":
            measure_memory(synthesizer, size)


def build(tiny: bool, device: str) -> ViewSynthesizer:
    """A pipeline with random weights, in float16 on CUDA."""
    torch.manual_seed(0)
    with torch.device(device):
        unet = SV3DUNet(**(TINY if tiny else {}))
        encoder = build_image_encoder(16, 1, 2, 16, 32) if tiny else CLIPVisionModelWithProjection(vit_h())
        vae = build_autoencoder((16, 16, 16, 16)) if tiny else stable_diffusion_autoencoder()
    dtype = torch.float16 if device == "cuda" else torch.float32
    parts = [torch.nn.Module.to(part, dtype=dtype).eval().requires_grad_(False) for part in (unet, encoder, vae)]
    synthesizer = ViewSynthesizer(*parts)
    synthesizer.set_progress_bar_config(disable=True)
    return synthesizer


def time_steps(synthesizer: ViewSynthesizer, cells: int, repeats: int) -> None:
    """One evaluation of the network."""
    unet = synthesizer.unet
    width = unet.config["cross_attention_dim"]
    print("\n| views | batch | eager ms | graph ms |\n|---|---|---|---|")
    for views, side in ((4, cells), (21, cells * 9 // 8)):
        for batch in (2, 1):
            options = {"device": unet.device, "dtype": unet.dtype}
            angles = torch.rand(batch, views, device=unet.device)
            conditions = ViewConditions(
                image_embedding=torch.randn(batch, 1, width, **options),
                photo_latent=torch.randn(batch, 4, side, side, **options),
                cond_aug=torch.full_like(angles, 1e-5),
                polar=angles,
                azimuth=angles,
            )
            sample = torch.randn(batch, views, 4, side, side, **options)
            level = torch.zeros(batch, device=unet.device)

            def step(sample=sample, level=level, conditions=conditions) -> None:
                unet(sample, level, conditions)

            eager = median_ms(step, repeats, unet.device)
            replay = f"{median_ms(captured(step), repeats, unet.device):.1f}" if unet.device.type == "cuda" else "-"
            print(f"| {views} | {batch} | {eager:.1f} | {replay} |", flush=True)


def time_calls(synthesizer: ViewSynthesizer, size: int, repeats: int) -> None:
    """A photo to latents."""
    photo = torch.rand(1, 3, size, size, device=synthesizer.device)
    print("\n| sampler | steps | guidance | s |\n|---|---|---|---|")
    for sampler, steps, guidance in (
        ("euler", 25, (1.0, 2.5)), ("dpm", 25, (1.0, 2.5)), ("dpm", 12, (1.0, 2.5)), ("heun", 6, (1.0, 2.5)),
        ("dpm", 6, (1.0, 2.5)), ("dpm", 6, (1.0, 1.0)), ("euler", 1, (1.0, 1.0)),
    ):  # fmt: skip

        def call(sampler=sampler, steps=steps, guidance=guidance) -> None:
            synthesizer(photo, sampler=sampler, num_steps=steps, guidance=guidance, decode=False)

        seconds = median_ms(call, max(repeats // 2, 1), synthesizer.device) / 1000
        print(f"| {sampler} | {steps} | {'no' if guidance == (1.0, 1.0) else 'yes'} | {seconds:.2f} |", flush=True)


def measure_memory(synthesizer: ViewSynthesizer, size: int) -> None:
    """Peak memory of each way to save some, and which of them run under the limits."""
    photo, orbit = torch.rand(1, 3, size, size), [place * 2 * torch.pi / 21 for place in range(21)]
    total = torch.cuda.get_device_properties(0).total_memory
    print(
        f"\n| views | kept | passes | peak GiB | s for 2 steps | runs in {LIMITS_GIB} GiB |\n|---|---|---|---|---|---|"
    )
    for views in ([0.0, 1.57, 3.14, 4.71], orbit):
        for kept, place in PLACES.items():
            for one_pass in (True, False):

                def call(views=views, one_pass=one_pass) -> None:
                    synthesizer(photo, views, num_steps=2, one_pass=one_pass)

                place(synthesizer)
                call()
                torch.cuda.reset_peak_memory_stats()
                began = time.perf_counter()
                call()
                torch.cuda.synchronize()
                seconds, peak = time.perf_counter() - began, torch.cuda.max_memory_allocated() / 2**30
                fits = [str(limit) for limit in LIMITS_GIB if runs_within(call, limit * 2**30 / total)]
                passes = 1 if one_pass else 2
                told = ", ".join(fits) or "none"
                print(f"| {len(views)} | {kept} | {passes} | {peak:.2f} | {seconds:.2f} | {told} |", flush=True)
                synthesizer.remove_all_hooks()
                synthesizer.to("cpu", silence_dtype_warnings=True)
                torch.cuda.empty_cache()


PLACES: dict[str, Callable[[ViewSynthesizer], object]] = {
    "all on the card": lambda synthesizer: synthesizer.to("cuda"),
    "a network at a time": lambda synthesizer: synthesizer.enable_model_cpu_offload(),
    "a layer at a time": lambda synthesizer: synthesizer.enable_sequential_cpu_offload(),
}


def runs_within(call: Callable[[], None], fraction: float) -> bool:
    """Whether a call runs while the allocator may take that share of the card."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(fraction, 1.0))
    try:
        call()
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    return True


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """The same work, replayed from a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def median_ms(call: Callable[[], None], repeats: int, device: torch.device) -> float:
    """Median of several runs after two that warm up, milliseconds."""
    call(), call()
    times = []
    for _ in range(repeats):
        if device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
        else:
            began = time.perf_counter()
            call()
            times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


if __name__ == "__main__":
    main()
