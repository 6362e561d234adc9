"""Seconds a synthetic person costs, stage by stage, and rays a second against a bare Embree loop.

    python benchmarks/mesh_render.py --assets ../shared/makehuman --people 8

Runs on one thread, as each process of ``humansplat synthesize`` does. Prints a Markdown table.
"""

import argparse
import platform
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from humansplat.data.people_source import PersonGenerator, library_generator
from humansplat.data.rig import draw_rig
from humansplat.data.synthesize import Task, person_seed, write_pictures
from humansplat.render.lighting import random_lighting
from humansplat.render.mesh_rays import PrimaryRays, visible_pixels
from humansplat.render.mesh_scene import MeshScene
from humansplat.render.meshes import RAYS_A_BATCH, render_scene


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--samples", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)

    generate = library_generator(options.assets)
    task = Task(
        seed=0, split="train", num_novel=12, num_closeups=3, size=options.size, samples=options.samples, scans=False
    )
    spent: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for index in range(-2, options.people):  # the first two compile and read files
        if index == 0:
            spent.clear()
            counts.clear()
        one_person(generate, task, index + 2, spent, counts)

    people = options.people
    views = 4 + task.num_novel
    total = sum(spent[stage] for stage in ("person", "cameras", "scene and baked light", "pictures", "files"))
    print(f"{platform.processor() or platform.machine()}, one thread, {people} people, {views} views of")
    print(f"{options.size} x {options.size}, {options.samples} x {options.samples} rays a pixel; CPU seconds\n")
    print("| stage | s a person |\n|---|---|")
    for stage in ("person", "cameras", "scene and baked light", "pictures", "files"):
        print(f"| {stage} | {spent[stage] / people:.2f} |")
    print(f"| all | {total / people:.2f} |\n")
    bare = counts["rays"] / spent["bare"]
    whole = counts["rays"] / spent["pictures"]
    print("| tracing | primary rays a person | M primary rays/s |\n|---|---|---|")
    print(f"| bare Embree loop, first hits | {counts['rays'] // people:,} | {bare / 1e6:.2f} |")
    print(f"| pictures: all layers, shaded, resolved | {counts['rays'] // people:,} | {whole / 1e6:.2f} |")
    print(f"\nPictures cost {spent['pictures'] / spent['bare']:.1f} times the bare loop.")
    print(f"A person takes {counts['bytes'] / people / 1e3:.0f} kB on disk.")


def one_person(
    generate: PersonGenerator, task: Task, index: int, spent: dict[str, float], counts: dict[str, int]
) -> None:
    """Make one person as ``make_person`` does, with a clock between the stages."""
    clock = time.process_time
    rng = np.random.default_rng([index, 1])
    marks = [clock()]
    person = generate(person_seed(task.seed, task.split, index), task.split)
    marks.append(clock())
    points = np.concatenate([mesh.vertices[np.unique(mesh.faces)] for mesh in person.meshes]).astype(np.float64)
    cameras, roles = draw_rig(points, rng, task.size, task.num_novel, task.num_closeups)
    marks.append(clock())
    scene = MeshScene(person.meshes, random_lighting(rng))
    marks.append(clock())
    pictures = render_scene(scene, cameras, samples=task.samples)
    marks.append(clock())
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder) / "person", pictures, cameras, roles, person.body, dict(person.meta))
        marks.append(clock())
        counts["bytes"] += sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    stages = ("person", "cameras", "scene and baked light", "pictures", "files")
    for stage, begin, end in zip(stages, marks[:-1], marks[1:], strict=True):
        spent[stage] += end - begin
    for view in range(len(cameras.viewmats)):
        pixel_ids = visible_pixels(scene.arrays.vertices, scene.arrays.faces, scene.spheres, cameras[view])
        origins, directions = PrimaryRays(cameras[view], task.samples).through(pixel_ids)
        begin = clock()
        for start in range(0, len(directions), RAYS_A_BATCH):
            scene.embree.run(
                origins[start : start + RAYS_A_BATCH], directions[start : start + RAYS_A_BATCH], output=True
            )
        spent["bare"] += clock() - begin
        counts["rays"] += len(directions)


if __name__ == "__main__":
    main()
