"""Time SV3D at its full size, and find what fits on small cards.

python benchmarks/view_synthesis.py [--device cuda|cpu] [--tiny] [--only step profile call memory compile]

Random weights of SV3D-p, OpenCLIP's ViT-H/14 and Stable Diffusion's autoencoder, in float16 on CUDA. ``step`` is one
evaluation of the network, four views of 64 x 64 cells, with guidance (a batch of two) and without, by the host one
operation after the other and from a CUDA graph, in several layouts; ``profile`` says which kernels take its time.
``call`` is a photo to latents, ``memory`` a photo to pictures under a limit on PyTorch's allocator, of a card less
half a gigabyte for the driver. ``compile`` (only if asked for) is the step with torch.compile of its blocks, one by
one. Times are medians, on CUDA by its events.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from accelerate import cpu_offload
from call_times import call_times
from diffusers.hooks import HookRegistry
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPVisionModelWithProjection

from humansplat.models import sv3d_blocks
from humansplat.models.autoencoder import build_autoencoder, stable_diffusion_autoencoder
from humansplat.models.sv3d import build_image_encoder
from humansplat.models.sv3d_parts import vit_h
from humansplat.models.sv3d_unet import SV3DUNet, ViewConditions
from humansplat.pipelines.cuda_graphs import CudaGraphs
from humansplat.pipelines.view_synthesis import ViewSynthesizer

try:
    from triton import TritonError
except ImportError:

    class TritonError(Exception):  # type: ignore[no-redef]
        """Stands for Triton's where there is none."""


PARTS = ("step", "profile", "call", "memory", "compile")
LIMITS_GIB = (6, 8, 12, 24)
DRIVER_GIB = 0.5
TINY = {
    "block_out_channels": (32, 32),
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "num_attention_heads": 2,
    "latent_scaling": 1.0,
}
GUIDED, PLAIN = (1.0, 2.5), (1.0, 1.0)
BEGAN = time.perf_counter()


def main() -> None:
    """Build once, measure what was asked for, print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks and pictures, to try the script")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS[:-1])
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    synthesizer = build(arguments.tiny, arguments.device)
    size = 128 if arguments.tiny else 512
    with torch.no_grad():
        if "step" in arguments.only:
            time_steps(synthesizer.unet, size // 8, arguments.repeats)
        if "profile" in arguments.only:
            profile_step(synthesizer.unet, size // 8)
        if "call" in arguments.only:
            time_calls(synthesizer, size, arguments.repeats)
        if "compile" in arguments.only:
            time_compiled(synthesizer.unet, size // 8, arguments.repeats)
        if "memory" in arguments.only:
            measure_memory(synthesizer, size)
    tell("all")


def tell(what: str) -> None:
    """Seconds since the start."""
    print(f"({what}: {time.perf_counter() - BEGAN:.0f} s after the start)", flush=True)


def build(tiny: bool, device: str) -> ViewSynthesizer:
    """A pipeline with random weights, in float16 on CUDA."""
    torch.manual_seed(0)
    dtype = torch.float16 if device == "cuda" else torch.float32
    parts = []
    for make in (
        lambda: SV3DUNet(**(TINY if tiny else {})),
        lambda: build_image_encoder(16, 1, 2, 16, 32) if tiny else CLIPVisionModelWithProjection(vit_h()),
        lambda: build_autoencoder((16, 16, 16, 16)) if tiny else stable_diffusion_autoencoder(),
    ):
        with torch.device(device):
            part = make()
        parts.append(torch.nn.Module.to(part, device=device, dtype=dtype).eval().requires_grad_(False))
        tell(f"{type(part).__name__}, {sum(tensor.numel() for tensor in part.parameters()) / 1e6:.0f} M parameters")
    synthesizer = ViewSynthesizer(*parts)
    synthesizer.set_progress_bar_config(disable=True)
    return synthesizer


def a_step(unet: SV3DUNet, batch: int, side: int, views: int = 4) -> Callable[[], torch.Tensor]:
    """One evaluation of the network, of random inputs."""
    options = {"device": unet.device, "dtype": unet.dtype}
    angles = torch.rand(batch, views, device=unet.device)
    conditions = ViewConditions(
        image_embedding=torch.randn(batch, 1, unet.config["cross_attention_dim"], **options),
        photo_latent=torch.randn(batch, 4, side, side, **options),
        cond_aug=torch.full_like(angles, 1e-5),
        polar=angles,
        azimuth=angles,
    )
    sample = torch.randn(batch, views, 4, side, side, **options)
    level = torch.zeros(batch, device=unet.device)
    return lambda: unet(sample, level, conditions)


def time_steps(unet: SV3DUNet, cells: int, repeats: int) -> None:
    """One evaluation of the network in the ways there are."""
    print("\n| step | views | batch | host ms | graph ms | first s |\n|---|---|---|---|---|---|")
    for batch in (2, 1):
        with diffusers_blocks(unet):
            time_step("diffusers' blocks", unet, batch, cells, repeats)
    time_step("ours", unet, 1, cells, repeats)
    unet.channels_last()
    for batch in (2, 1):
        if not time_step("channels last", unet, batch, cells, repeats):
            sv3d_blocks.HAS_TRITON = False  # what follows does without
        installed, sv3d_blocks.HAS_TRITON = sv3d_blocks.HAS_TRITON, False
        time_step("channels last, PyTorch's kernels", unet, batch, cells, repeats)
        sv3d_blocks.HAS_TRITON = installed
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH], set_priority=True):
            time_step("channels last, flash attention", unet, batch, cells, repeats)
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            time_step("channels last, cuDNN's choice measured", unet, batch, cells, repeats)
    time_step("channels last", unet, 2, cells * 9 // 8, max(repeats // 3, 1), 21)
    tell("step")


def time_step(name: str, unet: SV3DUNet, batch: int, side: int, repeats: int, views: int = 4) -> bool:
    """Print a row; a way that does not run says so, and the others go on. Whether it ran."""
    step = a_step(unet, batch, side, views)
    try:
        began = time.perf_counter()
        step()
        synchronize(unet.device)
        first = time.perf_counter() - began
        host = median_ms(step, max(repeats // 2, 1), unet.device)
        replay = "-"
        if unet.device.type == "cuda":
            graphs = CudaGraphs(unet.device)
            replay = f"{median_ms(lambda: graphs.run('step', step), repeats, unet.device):.1f}"
    except (RuntimeError, TritonError) as error:
        print(f"| {name} | {views} | {batch} | fails: {' '.join(str(error).split())[:300]} |", flush=True)
        return False
    print(f"| {name} | {views} | {batch} | {host:.1f} | {replay} | {first:.1f} |", flush=True)
    return True


class diffusers_blocks:
    """Within the block the network's blocks compute with diffusers' own code."""

    def __init__(self, unet: SV3DUNet) -> None:
        self.unet = unet

    def __enter__(self) -> None:
        self._exchange({ours: theirs for theirs, ours in sv3d_blocks.OURS.items()})

    def __exit__(self, *error: object) -> None:
        self._exchange(sv3d_blocks.OURS)

    def _exchange(self, classes: dict[type, type]) -> None:
        for module in self.unet.modules():
            if module is self.unet.conv_norm_out:  # called by the network itself, not by a block
                continue
            module.__class__ = classes.get(type(module), type(module))


def profile_step(unet: SV3DUNet, cells: int) -> None:
    """The kernels that take most of a step with guidance, channels last."""
    unet.channels_last()
    cuda = unet.device.type == "cuda"
    activity = torch.profiler.ProfilerActivity.CUDA if cuda else torch.profiler.ProfilerActivity.CPU
    step = a_step(unet, 2, cells)
    step()
    synchronize(unet.device)
    with torch.profiler.profile(activities=[activity]) as profiler:
        step()
        synchronize(unet.device)
    events = [
        (event.self_device_time_total if cuda else event.self_cpu_time_total, event.count, event.key)
        for event in profiler.key_averages()
    ]
    events = sorted((event for event in events if event[0] > 0), reverse=True)
    total, count = sum(event[0] for event in events) / 1000, sum(event[1] for event in events)
    print(f"\n{total:.1f} ms in {count} kernels of a step with guidance\n\n| ms | times | kernel |\n|---|---|---|")
    for spent, times, name in events[:28]:
        print(f"| {spent / 1000:.2f} | {times} | `{name[:110]}` |")
    tell("profile")


def time_calls(synthesizer: ViewSynthesizer, size: int, repeats: int) -> None:
    """A photo to latents."""
    device = synthesizer.device
    photo = torch.rand(1, 3, size, size, device=device)
    few = max(repeats // 2, 1)
    print("\n| sampler | steps | guidance | graphs | s | first s |\n|---|---|---|---|---|---|")

    def row(sampler: str, steps: int, guidance: tuple[float, float], graphs: bool) -> None:
        def call() -> None:
            synthesizer(photo, sampler=sampler, num_steps=steps, guidance=guidance, decode=False)

        began = time.perf_counter()
        call()
        synchronize(device)
        first = time.perf_counter() - began
        seconds = median_ms(call, few, device, warmups=1) / 1000
        guided, kind = ("no", "yes")[guidance != PLAIN], ("no", "yes")[graphs]
        print(f"| {sampler} | {steps} | {guided} | {kind} | {seconds:.3f} | {first:.2f} |", flush=True)

    with diffusers_blocks(synthesizer.unet):
        row("euler", 25, GUIDED, False)
    synthesizer.unet.channels_last()
    row("dpm", 25, GUIDED, False)
    cuda = device.type == "cuda"
    if cuda:
        synthesizer.use_cuda_graphs()
    for guidance in (PLAIN, GUIDED):
        for steps in (25, 12, 8, 6, 4, 2, 1):
            row("dpm", steps, guidance, cuda)
    synthesizer.release_cuda_graphs()
    tell("call")


def time_compiled(unet: SV3DUNet, cells: int, repeats: int) -> None:
    """The step without guidance, its blocks compiled; the first run compiles them."""
    unet.channels_last()
    torch._dynamo.config.cache_size_limit = 64
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        for part in (*block.resnets, *getattr(block, "attentions", [])):
            part.compile(dynamic=False)
    print("\n| step | views | batch | host ms | graph ms | first s |\n|---|---|---|---|---|---|")
    time_step("compiled blocks", unet, 1, cells, repeats)
    tell("compile")


def measure_memory(synthesizer: ViewSynthesizer, size: int) -> None:
    """Peak memory of each way to save some, and which of them run under the limits."""
    device = synthesizer.device.type
    photo, orbit = torch.rand(1, 3, size, size), [place * 2 * torch.pi / 21 for place in range(21)]
    synthesizer.to("cpu", silence_dtype_warnings=True)
    tell("moved to the host")
    print("\n| views | kept | passes | peak GiB | smallest card GiB | s there, one step |\n|---|---|---|---|---|---|")
    for kept, (place, undo) in PLACES.items():
        place(synthesizer, device)
        for views in ([0.0, 1.57, 3.14, 4.71], orbit):
            for one_pass in (True, False):

                def call(views=views, one_pass=one_pass) -> None:
                    synthesizer(photo, views, num_steps=1, one_pass=one_pass)

                measure_row(f"{len(views)} | {kept} | {1 if one_pass else 2}", call, device)
                synthesizer.maybe_free_model_hooks()  # a call that ran out of memory has not
        undo(synthesizer)
        synthesizer.to("cpu", silence_dtype_warnings=True)
        tell(kept)


def measure_row(name: str, call: Callable[[], None], device: str) -> None:
    """Print a row: a run that is measured, and one under the limit of the smallest card that it fits."""
    began = time.perf_counter()
    if device == "cpu":
        call()
        print(f"| {name} | - | - | {time.perf_counter() - began:.2f} |", flush=True)
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    call()
    peak = torch.cuda.max_memory_allocated() / 2**30
    told = "none | -"
    for limit in LIMITS_GIB:
        seconds = seconds_within(call, limit - DRIVER_GIB) if peak < limit - DRIVER_GIB else None
        if seconds is not None:
            told = f"{limit} | {seconds:.2f}"
            break
    print(f"| {name} | {peak:.2f} | {told} |", flush=True)


def remove_group_offload(synthesizer: ViewSynthesizer) -> None:
    """Undo ``enable_group_offload``, for which diffusers has no method."""
    for part in (synthesizer.unet, synthesizer.image_encoder, synthesizer.vae):
        for module in part.modules():
            if hasattr(module, "_diffusers_hook"):
                registry = HookRegistry.check_if_exists_or_initialize(module)
                for name in ("group_offloading", "lazy_prefetch_group_offloading", "layer_execution_tracker"):
                    registry.remove_hook(name, recurse=False)


def offload_layers(synthesizer: ViewSynthesizer, device: str) -> None:
    """``enable_sequential_cpu_offload``, on the CPU too, which to accelerate must not have a number."""
    if device == "cuda":
        synthesizer.enable_sequential_cpu_offload(device=device)
        return
    for part in (synthesizer.unet, synthesizer.image_encoder, synthesizer.vae):
        cpu_offload(part, torch.device(device), offload_buffers=len(part._parameters) > 0)


Place = Callable[[ViewSynthesizer, str], object]
Undo = Callable[[ViewSynthesizer], object]
PLACES: dict[str, tuple[Place, Undo]] = {
    "all on the card": (lambda synthesizer, device: synthesizer.to(device), lambda synthesizer: None),
    "a network at a time": (
        lambda synthesizer, device: synthesizer.enable_model_cpu_offload(device=device),
        lambda synthesizer: synthesizer.remove_all_hooks(),
    ),
    "a layer at a time, the next ones fetched meanwhile": (
        lambda synthesizer, device: synthesizer.enable_group_offload(
            torch.device(device), offload_type="leaf_level", use_stream=device == "cuda"
        ),
        remove_group_offload,
    ),
    "a layer at a time": (
        lambda synthesizer, device: offload_layers(synthesizer, device),
        lambda synthesizer: synthesizer.remove_all_hooks(),
    ),
}


def seconds_within(call: Callable[[], None], gib: float) -> float | None:
    """What a call takes while the allocator may take that much of the card; None: it needs more."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(gib * 2**30 / total, 1.0))
    began = time.perf_counter()
    try:
        call()
        torch.cuda.synchronize()
        return time.perf_counter() - began
    except torch.OutOfMemoryError:
        return None
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def median_ms(call: Callable[[], object], repeats: int, device: torch.device, warmups: int = 2) -> float:
    """Median of several runs after some that warm up, milliseconds."""
    return statistics.median(call_times(call, repeats, device, warmups))


if __name__ == "__main__":
    main()
