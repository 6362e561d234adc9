"""``humansplat``: the command line. Parsing only; the work is done by the library.

Everything heavy is imported when a command runs, so that ``--help`` answers at once.
"""

import logging
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from tyro.conf import Positional

from humansplat.errors import UserError

if TYPE_CHECKING:
    from humansplat.io.body_files.record import BodyRecord
    from humansplat.pipelines.reconstructor import Reconstructor

OK, SOME_FAILED, FAILED, INTERRUPTED = 0, 1, 2, 130

app = tyro.extras.SubcommandApp()


@app.command
def reconstruct(
    photos: Positional[tuple[Path, ...]],
    out: Path,
    model: str = "small",
    body: Path | None = None,
    person: int | None = None,
    body_model: Literal["smpl", "smplh", "smplx"] | None = None,
    mask: Path | None = None,
    back: Path | None = None,
    views: Literal["diffusion", "none"] = "none",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    seed: int = 0,
    video: bool = True,
) -> int:
    """Make a 3D Gaussian person of each photo.

    Writes OUT/<photo's stem>/: splats.ply, turntable.mp4, preview.png, body.npz and report.json.
    The exit code is 1 if some photos failed, 2 if all did.

    Args:
        photos: Pictures of one whole person each: JPEG, PNG, WebP, HEIC.
        out: Folder for the results, one folder a photo.
        model: Weights: a name that ships, a folder, or OWNER/NAME on the Hugging Face hub.
        body: A body of the photo, instead of fitting one: body.npz, another program's parameters, or a mesh.
        person: Which of the people of the body file, counted from 0.
        body_model: Which body model the body file means, where it does not say.
        mask: The person's mask, white on black, instead of finding it.
        back: A second photo, of the person in the same pose from behind, for --views diffusion; it gives its colours.
        views: Where the unseen sides come from: a view model, or the reconstruction alone.
        device: auto takes an NVIDIA GPU where there is one.
        seed: Of every sampler: the same seed gives the same person.
        video: Write the turntable.
    """
    _check_photos(photos, body, mask, back)
    from humansplat.io.body_files.load import load_body_file
    from humansplat.pipelines.reconstructor import Reconstructor

    reconstructor = Reconstructor.from_pretrained(model, device)
    given = None
    if body is not None:
        given = load_body_file(body, person=person, model=body_model, template=reconstructor.body_model.pose({}))
    failures: list[str] = []
    for number, photo in enumerate(photos, start=1):
        try:
            _reconstruct_one(reconstructor, photo, number, len(photos), out, given, mask, back, views, seed, video)
        except UserError as error:
            failures.append(str(error))
            print(f"humansplat: {error}", file=sys.stderr)
    if failures and len(photos) > 1:
        print(f"humansplat: {len(failures)} of {len(photos)} photos failed:", *failures, sep="\n  ", file=sys.stderr)
    if not failures:
        return OK
    return SOME_FAILED if len(failures) < len(photos) else FAILED


def _check_photos(photos: tuple[Path, ...], body: Path | None, mask: Path | None, back: Path | None) -> None:
    if not photos:
        raise UserError("no photo is given; name at least one")
    if len(photos) > 1 and (body or mask or back):
        raise UserError(
            f"--body, --mask and --back belong to one photo, {len(photos)} are given; reconstruct that one alone"
        )
    by_stem: dict[str, Path] = {}
    for photo in photos:
        other = by_stem.setdefault(photo.stem, photo)
        if other is not photo:
            raise UserError(f"{other} and {photo} would both be written to {photo.stem}; rename one")


def _reconstruct_one(
    reconstructor: "Reconstructor",
    photo: Path,
    number: int,
    total: int,
    out: Path,
    body: "BodyRecord | None",
    mask: Path | None,
    back: Path | None,
    views: Literal["diffusion", "none"],
    seed: int,
    video: bool,
) -> None:
    from tqdm import tqdm

    stages = ("capture", "body", *(("views",) if views == "diffusion" else ()), "reconstruct", "save")
    label = f"{photo.name} ({number}/{total})" if total > 1 else photo.name
    with tqdm(total=len(stages), desc=label, bar_format="{desc}: {bar} {n}/{total} {postfix}", leave=False) as bar:

        def show(stage: str) -> None:
            bar.n = stages.index(stage)
            bar.set_postfix_str(stage)

        made = reconstructor(photo, mask, body, views, seed, progress=show, back=back)
        show("save")
        made.save(out / photo.stem, video=video, progress=True)
    for warning in made.report.warnings:
        print(f"{photo.name}: {warning}", file=sys.stderr)
    seconds = sum(cost.seconds for cost in made.report.stages.values())
    print(f"{out / photo.stem}: {made.gaussians.num_splats} splats in {seconds:.1f} s")


@app.command
def render(
    splats: Positional[Path],
    out: Path,
    frames: int | None = None,
    size: int = 512,
    elevation: float = 0.0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> int:
    """Render a splat file from all around: a video, or a set of pictures.

    Args:
        splats: .ply, .compressed.ply, .spz or .sog; +Y is up.
        out: FILE.mp4 for a turntable, or a folder for pictures 000.png, 001.png, ...
        frames: Number of views, evenly spread from +Z towards +X; 90 for a video, 8 for pictures.
        size: Side of the pictures, pixels.
        elevation: How far above the horizon the cameras are, degrees.
        device: auto takes an NVIDIA GPU where there is one.
    """
    if not splats.is_file():
        raise UserError(f"{splats}: no such file; give a splat file")
    if out.suffix and out.suffix.lower() != ".mp4":
        raise UserError(f"{out}: give FILE.mp4 or a folder")
    from tqdm import tqdm

    from humansplat.io.images import to_bytes, write_png
    from humansplat.io.splats import read_splats
    from humansplat.io.video import write_video
    from humansplat.pipelines.reconstructor import pick_device
    from humansplat.pipelines.turntable import FPS, FRAMES, render_frames, turntable_cameras

    is_video = out.suffix != ""
    count = frames if frames is not None else FRAMES if is_video else 8
    scene = read_splats(splats).to(pick_device(device))
    cameras = turntable_cameras(scene, frames=count, size=size, elevation=math.radians(elevation))
    with tqdm(render_frames(scene, cameras), "render", total=count, unit="frame") as pictures:
        if is_video:
            write_video(iter(pictures), out, fps=FPS)
        else:
            for index, picture in enumerate(pictures):
                write_png(to_bytes(picture.movedim(-1, 0)), out / f"{index:03d}.png")
    print(out)
    return OK


@app.command
def synthesize(
    assets: Path,
    out: Path,
    num: int,
    seed: int = 0,
    split: Literal["train", "validation"] = "train",
    scans: bool = False,
    size: int = 256,
    workers: int | None = None,
) -> int:
    """Make clothed, posed, textured synthetic people, ready to train on.

    A run that was interrupted goes on where it stopped; the same seed gives the same bytes.

    Args:
        assets: makehuman_system_assets_cc0.zip, a folder of it (clothes, hair, skins, poses), or a folder of rigged
            characters (.glb, .gltf, .vrm).
        out: Folder of the data set.
        num: People in the data set, those that are there already included.
        seed: Of the data set.
        split: Validation people wear, and pose in, what no training person does.
        scans: Also write each person's textured mesh, scan.glb.
        size: Side of the pictures, pixels.
        workers: Processes; one a core by default.
    """
    from humansplat.data.synthesize import synthesize as make

    made = make(assets, out, num, seed=seed, split=split, scans=scans, size=size, workers=workers)
    print(f"{out}: {len(made.names)} people, {made.num_new} of them new, in {made.seconds:.0f} s")
    for name, reason in made.failed.items():
        print(f"humansplat: left out {name}: {reason}", file=sys.stderr)
    return SOME_FAILED if made.failed else OK


@app.command
def prepare(
    scans: Positional[Path],
    out: Path,
    layout: Literal["auto", "thuman2", "2k2k", "customhumans", "generic"] = "auto",
    fits: Path | None = None,
    shard: str | None = None,
    body_model: Literal["anny", "smpl", "smplh", "smplx"] = "anny",
    gender: Literal["neutral", "male", "female"] | None = None,
    models: Path | None = None,
    split: Literal["train", "validation"] = "train",
    size: int = 512,
    normals: bool = False,
    depth: bool = False,
    unit: str = "auto",
    up: Literal["auto", "y", "y-down", "z", "z-down"] = "auto",
    workers: int | None = None,
) -> int:
    """Render scans from the paper's 112 cameras and fit a body to each: a data set, ready to train on.

    A run that was interrupted goes on where it stopped; scans that failed are tried again. The exit code
    is 1 if some scans failed, 2 if nobody could be prepared.

    Args:
        scans: Folder of scans (OBJ, PLY, GLB, glTF), or one scan.
        out: Folder of the data set.
        layout: Whose scans they are; auto looks at the names.
        fits: Folder of the bodies published with the scans; by default looked for in and beside SCANS.
        shard: i/n: every n-th scan from the i-th (from 1), for n machines.
        body_model: Fitted to the scans; smplx takes the published bodies where they fit.
        gender: Which file of SMPL's family; by default that of the published bodies, or else neutral.
        models: Folder of the model files of SMPL's family; by default HUMANSPLAT_BODY_MODELS.
        split: What the people are for.
        size: Side of the pictures, pixels.
        normals: Also write normal maps.
        depth: Also write depth maps.
        unit: What the scans' numbers count: m, cm, mm, or metres as a number; by default told by the height.
        up: The axis that points up in the scans; by default seen.
        workers: Processes; one a core by default.
    """
    from humansplat.data.prepare import prepare as make

    made = make(
        scans,
        out,
        layout=layout,
        fits=fits,
        shard=shard,
        body_model=body_model,
        gender=gender,
        models=models,
        split=split,
        size=size,
        normals=normals,
        depth=depth,
        unit=unit,
        up=up,
        workers=workers,
    )
    print(f"{out}: {len(made.names)} people, {made.num_new} of them new, in {made.seconds:.0f} s")
    flagged = {name: "; ".join(reasons) for name, reasons in made.flagged.items()}
    for title, people in (("flagged, left out of training and evaluation", flagged), ("failed", made.failed)):
        if people:
            print(f"humansplat: {len(people)} {title}:", file=sys.stderr)
            for name, reason in people.items():
                print(f"  {name}: {reason}", file=sys.stderr)
    if not made.failed:
        return OK
    return SOME_FAILED if made.names else FAILED


@app.command
def evaluate(
    model: str,
    data: Path,
    out: Path,
    bodies: Literal["fitted", "true", "perturbed"] = "fitted",
    views: Literal["auto", "none", "diffusion", "true"] = "auto",
    limit: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> int:
    """Score a model on people whose every side is known.

    Writes OUT/metrics.json (PSNR, SSIM and silhouette IoU of the novel views; whole picture, person's
    box and head's box; front, side and back) and OUT/contact_sheet.png (the best and the worst).

    Args:
        model: Weights: a name that ships, a folder, or OWNER/NAME on the Hugging Face hub.
        data: Folder that synthesize or prepare wrote.
        out: Folder for the two files.
        bodies: Fitted from the input view, as for a photo, or the true ones, or those with noise of 0.05 on
            every parameter.
        views: What the model is given of the unseen sides: nothing, what its view model makes, or the true ones; auto
            is nothing where the weights can do without, then the view model's, and the true ones for lack of one.
        limit: Only the first so many people.
        device: auto takes an NVIDIA GPU where there is one.
    """
    from humansplat.evaluation.evaluate import evaluate as score
    from humansplat.metrics.scores import METRICS
    from humansplat.metrics.views import SIDES
    from humansplat.pipelines.reconstructor import Reconstructor

    metrics = score(Reconstructor.from_pretrained(model, device), data, out, bodies=bodies, views=views, limit=limit)
    print(f"{'':8}" + "".join(f"{name:>15}" for name in METRICS))
    for group in ("mean", *SIDES):
        means = metrics[group]
        assert isinstance(means, dict)
        print(f"{group:8}" + "".join(f"{means.get(name, math.nan):15.4f}" for name in METRICS))
    print(out / "metrics.json")
    return OK


@app.command
def body(
    file: Positional[Path],
    show: Path,
    out: Path,
    person: int | None = None,
    format: str | None = None,
    body_model: Literal["smpl", "smplh", "smplx"] | None = None,
    models: Path | None = None,
) -> int:
    """Draw the body of a file over its photo.

    Args:
        file: body.npz, another program's parameters, or a mesh.
        show: The photo.
        out: FILE.png.
        person: Which of the people of the file, counted from 0.
        format: Whose file it is, where its names do not tell it.
        body_model: Which body model it means, where it does not say.
        models: Folder of the model files of SMPL, SMPL-H and SMPL-X; by default HUMANSPLAT_BODY_MODELS.
    """
    if out.suffix.lower() != ".png":
        raise UserError(f"{out}: give FILE.png")
    from humansplat.io.images import write_png
    from humansplat.pipelines.body_overlay import draw_body_file

    drawn = draw_body_file(file, show, person=person, format=format, model=body_model, folder=models)
    write_png(drawn.picture, out)
    for warning in drawn.warnings:
        print(warning, file=sys.stderr)
    print(f"{out}: {drawn.told}")
    return OK


@app.command
def doctor() -> int:
    """Tell what is installed, what is missing, and what each missing thing would give.

    The exit code is 1 if something is missing that reconstruct needs.
    """
    from humansplat.doctor import examine, told

    findings = examine()
    print(told(findings))
    return SOME_FAILED if any(finding.needed and not finding.found for finding in findings) else OK


def main() -> None:
    """Run the command line; the user's mistakes become one sentence and exit code 2."""
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("humansplat").setLevel(logging.INFO)
    try:
        code = app.cli(prog="humansplat", description="One photograph of a person in, a 3D Gaussian person out.")
    except UserError as error:
        print(f"humansplat: {error}", file=sys.stderr)
        code = FAILED
    except BrokenPipeError:  # whoever read the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at exit complains
        code = SOME_FAILED
    except OSError as error:  # no such folder, no right to write, disk full
        print(f"humansplat: {error}", file=sys.stderr)
        code = FAILED
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


if __name__ == "__main__":
    main()
