"""Time a photo's way to files, stage by stage, with the unseen sides made up and without.

    python benchmarks/photo.py [PHOTO] [--model small] [--views none diffusion] [--device cpu|cuda] [--repeats 6]

Each way loads the weights anew, then reconstructs the photo, saves splats, body and pictures, and renders the 90
frames of a turntable at 512 px, which are not encoded. The first call loads models and kernels on the way and stands
by itself; the others' medians are below it. ``GiB`` is what PyTorch allocated on the GPU at most, ``RSS`` the
process's memory. For the seconds of a whole command, loading Python included, time ``humansplat reconstruct`` itself.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import psutil
import torch

from humansplat.pipelines.reconstructor import Reconstructor
from humansplat.pipelines.turntable import azimuth_of, render_frames, turntable_cameras

PHOTO = Path(__file__).parents[1] / "examples" / "person.png"
FRAMES, SIZE = 90, 512


def main() -> None:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", nargs="?", type=Path, default=PHOTO)
    parser.add_argument("--model", default="small")
    parser.add_argument("--views", nargs="+", default=["none", "diffusion"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=6)
    arguments = parser.parse_args()
    if arguments.repeats < 2:
        parser.error("--repeats must be at least 2: the first call stands by itself")
    columns = ("capture", "body", "views", "reconstruct", "save", "frames", "all", "GiB", "RSS")
    print(f"| views | call | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 2)}")
    for views in arguments.views:
        reconstructor = Reconstructor.from_pretrained(arguments.model, arguments.device)
        calls = [measured(reconstructor, arguments.photo, views, seed) for seed in range(arguments.repeats)]
        medians = {name: statistics.median(call[name] for call in calls[1:]) for name in calls[0]}
        for label, row in (("first", calls[0]), ("others", medians)):
            shown = [f"{row[name]:.3f}" if name in row else "" for name in columns]
            print(f"| {views} | {label} | {' | '.join(shown)} |", flush=True)


def measured(reconstructor: Reconstructor, photo: Path, views: str, seed: int) -> dict[str, float]:
    """Seconds of the stages of one photo, and memory in GiB."""
    on_gpu = reconstructor.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        person = reconstructor(photo, views=views, seed=seed)
        person.save(Path(folder), video=False)
    saved = time.perf_counter()
    splats = person.gaussians.to(reconstructor.device)
    cameras = turntable_cameras(splats, frames=FRAMES, size=SIZE, start=azimuth_of(person.camera))
    for frame in render_frames(splats, cameras):
        frame.mean().item()  # fetches nothing else, and waits for the frame
    ended = time.perf_counter()
    row = {name: stage.seconds for name, stage in person.report.stages.items()}
    row |= {"frames": ended - saved, "all": ended - began, "RSS": psutil.Process().memory_info().rss / 2**30}
    return row | ({"GiB": torch.cuda.max_memory_allocated() / 2**30} if on_gpu else {})


if __name__ == "__main__":
    main()
