"""Rays a second against a bare Embree loop: pictures of a scan, or of synthetic people stage by stage.

    python benchmarks/mesh_render.py --scan FILE.glb
    python benchmarks/mesh_render.py --assets ../shared/makehuman --people 8

Without either, the scan is the default body with every face cut in sixteen. Prints Markdown tables. A scan is drawn in
turns with the bare loop, on the same rays in the same batches; medians of the turns. All by the CPU time of one
thread, but for the row of two threads, which is by the wall clock.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import trimesh

from humansplat.body.anny import AnnyBody
from humansplat.data.people_source import PersonGenerator, library_generator
from humansplat.data.rig import draw_rig, hull_corners
from humansplat.data.scans.reading import read_scan
from humansplat.data.scans.rings import RING_FILL, RING_FOV, ring
from humansplat.data.synthesize import Task, person_seed, write_pictures
from humansplat.render.lighting import Lighting, random_lighting, unlit
from humansplat.render.mesh_rays import PrimaryRays, visible_pixels
from humansplat.render.mesh_scene import MeshScene
from humansplat.render.meshes import RAYS_A_BATCH, ShadedMesh, render_scene
from humansplat.structures import Cameras

VIEWS = 4
Rays = tuple[np.ndarray, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path, help="OBJ, PLY or GLB in metres, +Y up")
    parser.add_argument("--turns", type=int, default=15, help="of the scan and the bare loop")
    parser.add_argument("--assets", type=Path, help="draw synthetic people from these instead of a scan")
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--size", type=int, help="512 for scans, 256 for people")
    parser.add_argument("--samples", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, {options.samples} x {options.samples} rays a pixel\n")
    if options.assets is None:
        scans(options.scan, options.size or 512, options.samples, options.turns)
    else:
        people(options.assets, options.people, options.size or 256, options.samples)


def scans(path: Path | None, size: int, samples: int, turns: int) -> None:
    """Print a table of one scan in several lights."""
    textured = list(read_scan(path).meshes) if path else cut_body()
    textured = [replace(mesh, two_sided=True, alpha="opaque") for mesh in textured]
    colored = [
        replace(mesh, texture=None, vertex_colors=(127 + 127 * np.sin(40 * mesh.vertices)).astype(np.uint8))
        for mesh in textured
    ]
    even = replace(unlit(), shaded=True)
    matt = [replace(mesh, specular=0.0) for mesh in textured]
    cameras = ring(
        hull_corners(np.concatenate([mesh.vertices for mesh in textured])), VIEWS, RING_FOV, RING_FILL["whole"], size
    )
    print(f"{sum(len(mesh.faces) for mesh in textured):,} faces, {VIEWS} views of {size} x {size} px\n")
    print(
        "| scan | rays | bare loop, M/s | distances only, M/s | pictures, M/s | of the bare loop | of distances only |"
    )
    print("|---|---|---|---|---|---|---|")
    one, two = time.process_time, time.perf_counter
    rows: list[tuple[str, list[ShadedMesh], Lighting, int, Callable[[], float]]] = [
        ("textured, unlit", textured, unlit(), 1, one),
        ("vertex colours, unlit", colored, unlit(), 1, one),
        ("textured, even light", matt, even, 1, one),
        ("textured, even light, gloss", textured, even, 1, one),
        ("textured, unlit, two threads", textured, unlit(), 2, two),
    ]
    for name, meshes, lighting, threads, clock in rows:
        rays, bare, least, whole = take_turns(MeshScene(meshes, lighting), cameras, samples, threads, clock, turns)
        speeds = " | ".join(f"{rays / statistics.median(spent) / 1e6:.2f}" for spent in (bare, least, whole))
        shares = " | ".join(
            f"{statistics.median(b / w for b, w in zip(spent, whole, strict=True)):.0%}" for spent in (bare, least)
        )
        print(f"| {name} | {rays:,} | {speeds} | {shares} |", flush=True)


def cut_body() -> list[ShadedMesh]:
    """The default body, 437 k faces, with a texture of noise wrapped around it."""
    body = AnnyBody.load()
    posed = body.pose(body.neutral())
    vertices, faces = posed.vertices.numpy(), posed.faces.numpy()
    for _ in range(2):
        vertices, faces = trimesh.remesh.subdivide(vertices, faces)
    noise = (
        np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    )
    return [ShadedMesh(vertices=vertices, faces=faces, uvs=vertices[:, :2] - vertices[:, 2:], texture=noise)]


def take_turns(
    scene: MeshScene, cameras: Cameras, samples: int, threads: int, clock: Callable[[], float], turns: int
) -> tuple[int, list[float], list[float], list[float]]:
    """Number of rays, and seconds of the bare loop, of one that asks for distances only, and of the pictures."""
    views = [
        PrimaryRays(camera, samples).through(
            visible_pixels(scene.arrays.vertices, scene.arrays.faces, scene.spheres, camera)
        )
        for camera in (cameras[view] for view in range(len(cameras.viewmats)))
    ]
    calls: tuple[Callable[[], object], ...] = (
        lambda: bare_loop(scene, views, threads, output=True),
        lambda: bare_loop(scene, views, threads, query="DISTANCE"),
        lambda: render_scene(scene, cameras, samples=samples, threads=threads),
    )
    spent: tuple[list[float], ...] = ([], [], [])
    for turn in range(turns + 1):
        for call, seconds in zip(calls, spent, strict=True):
            begin = clock()
            call()
            if turn:  # the first compiles
                seconds.append(clock() - begin)
    return sum(len(origins) for origins, _ in views), *spent


def bare_loop(scene: MeshScene, views: Sequence[Rays], threads: int, **query: object) -> None:
    """First hits of all rays, in the batches that pictures are drawn in."""
    batches = [
        (origins[start : start + RAYS_A_BATCH], directions[start : start + RAYS_A_BATCH])
        for origins, directions in views
        for start in range(0, len(origins), RAYS_A_BATCH)
    ]
    with ThreadPoolExecutor(threads) as pool:
        for _ in (pool.map if threads > 1 else map)(lambda rays: scene.embree.run(*rays, **query), batches):
            pass


def people(assets: Path, count: int, size: int, samples: int) -> None:
    """Print what each stage of a synthetic person costs."""
    generate = library_generator(assets)
    task = Task(seed=0, split="train", num_novel=12, num_closeups=3, size=size, samples=samples, scans=False)
    spent: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for index in range(-2, count):  # the first two compile and read files
        if index == 0:
            spent.clear()
            counts.clear()
        one_person(generate, task, index + 2, spent, counts)
    stages = ("person", "cameras", "scene and baked light", "pictures", "files")
    print(f"{count} people, {4 + task.num_novel} views of {size} x {size} px\n")
    print("| stage | s a person |\n|---|---|")
    for stage in stages:
        print(f"| {stage} | {spent[stage] / count:.2f} |")
    print(f"| all | {sum(spent[stage] for stage in stages) / count:.2f} |\n")
    bare, whole = counts["rays"] / spent["bare"], counts["rays"] / spent["pictures"]
    print("| tracing | primary rays a person | M primary rays/s |\n|---|---|---|")
    print(f"| bare Embree loop, first hits | {counts['rays'] // count:,} | {bare / 1e6:.2f} |")
    print(f"| pictures: all layers, shaded, resolved | {counts['rays'] // count:,} | {whole / 1e6:.2f} |")
    print(f"\nPictures cost {spent['pictures'] / spent['bare']:.1f} times the bare loop.")
    print(f"A person takes {counts['bytes'] / count / 1e3:.0f} kB on disk.")


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
        rays = PrimaryRays(cameras[view], task.samples).through(pixel_ids)
        begin = clock()
        bare_loop(scene, [rays], 1, output=True)
        spent["bare"] += clock() - begin
        counts["rays"] += len(rays[0])


if __name__ == "__main__":
    main()
