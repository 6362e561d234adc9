"""Judge a view model on people whose every side is known: the ladder of samplers and steps, and who comes off how.

python benchmarks/view_quality.py MODEL DATA --out DIR [--student MODEL] [--vae DIR] [--people 64] [--quick] [...]

MODEL is a folder of weights with ``view_model/`` and ``vae/``, or what training view synthesis leaves (then give
``--vae``). A student is another view model of the same latents, distilled from the first, and is sampled as its
weights state. DIR gets ``ladder.md``, ``ladder.png`` (with matplotlib), ``figures.json``, and ``sheet.png``: a row for
each of the best and the worst four people of the rung that is chosen, with the photo, the true left, back and right,
and those of 25 steps with guidance, of the chosen rung and of the student. Every sampling of a person begins at the
same noise, by the person's place. Seconds are of one photo to latents, on a GPU replayed from CUDA graphs, the median
of five calls after two that warm up (on a CPU one call); what the columns mean is in
``humansplat.metrics.generated_views``, and ``against`` is ``psnr_box`` less that of 25 steps with guidance. The first
row is the autoencoder's own limit: the true latents, decoded.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from humansplat.body.models import load_body_model
from humansplat.data.dataset import PeoplePool
from humansplat.data.people import BodyTemplate
from humansplat.io.images import to_bytes, write_png
from humansplat.metrics.generated_views import score_generated
from humansplat.models.autoencoder import decode_latents, encode_images, load_autoencoder
from humansplat.models.edm_sampling import Sampler
from humansplat.models.sv3d import load_sv3d
from humansplat.pipelines.preview import labelled, side_by_side, stacked
from humansplat.pipelines.view_synthesis import ViewSynthesizer, stated_sampling
from humansplat.pipelines.weights import VIEW_MODEL
from humansplat.training.view_jitter import TrainingViews, rig_views

BATCH = {"cuda": 32, "cpu": 8}
"""People at once."""
CALLS = {"cuda": (2, 5), "cpu": (0, 1)}
"""Of one photo: to warm up, and to time."""
SHOWN = 4
COLUMNS = (
    "psnr", "psnr_box", "ssim_box", "sharpness", "saturation", "psnr_box_left", "psnr_box_back", "psnr_box_right",
)  # fmt: skip
AGREEMENT = ("front_back_color", "neighbour_color", "neighbour_height")


@dataclass(frozen=True)
class Setting:
    """One rung of the ladder."""

    sampler: Sampler
    steps: int
    back: float = 1.0
    """Guidance at the back."""
    sigma_max: float = 80.0
    sigma_min: float = 0.02
    student: bool = False

    @property
    def label(self) -> str:
        """How the rung is called."""
        levels = f"sigma {self.sigma_max:g} to {self.sigma_min:g}"
        return f"{'student: ' if self.student else ''}{self.sampler} {self.steps}, {self.guided}, {levels}"

    @property
    def guided(self) -> str:
        """How strongly, in words."""
        return f"guidance {self.back:g}" if self.back != 1 else "no guidance"

    @property
    def line(self) -> str | None:
        """Of the plot; ``None`` of what it leaves out: other noise levels, and Heun's steps."""
        if self.student:
            return "student"
        if self == BASE:
            return f"{self.sampler}, {self.guided}, SV3D's levels"
        usual = (self.sigma_max, self.sigma_min) == (CHOSEN.sigma_max, CHOSEN.sigma_min)
        return f"{self.sampler}, {self.guided}" if usual and self.sampler != "heun" else None

    @property
    def arguments(self) -> dict[str, Any]:
        """Of :class:`ViewSynthesizer`."""
        return {
            "num_steps": self.steps,
            "sampler": self.sampler,
            "guidance": (1.0, self.back),
            "sigma_max": self.sigma_max,
            "sigma_min": self.sigma_min,
        }


BASE = Setting("dpm", 25, 2.5, 700.0, 0.002)
"""25 steps with guidance, between SV3D's own noise levels: what the others are compared with."""
CHOSEN = Setting("dpm", 8)
LADDER = (
    BASE,
    Setting("euler", 25, 2.5, 700.0, 0.002),
    Setting("euler", 25, 1.0, 700.0, 0.002),
    *(Setting("dpm", steps, back) for steps in (25, 12, 8, 6, 4) for back in (2.5, 1.5, 1.0)),
    Setting("dpm", 8, 1.0, 700.0, 0.002),
    Setting("dpm", 8, 1.0, 80.0, 0.002),
    Setting("dpm", 8, 1.0, 20.0),
    Setting("heun", 6),
    Setting("euler", 4),
    Setting("dpm", 2),
    Setting("euler", 1),
)
SHORT = (BASE, CHOSEN)


def main() -> None:
    """Load once, climb the ladder, write the four files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--vae", type=Path, help="folder of the autoencoder, where MODEL has none")
    parser.add_argument("--student", type=Path, help="folder of the distilled view model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--people", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="no rung but the first begins later than that"
    )
    parser.add_argument("--eager", action="store_true", help="time without CUDA graphs")
    parser.add_argument("--quick", action="store_true", help="two rungs and the student's")
    arguments = parser.parse_args()
    began = time.monotonic()
    vae = arguments.vae or arguments.model / "vae"
    models = {False: load(arguments.model, vae).to(arguments.device)}
    rungs = SHORT if arguments.quick else LADDER
    if arguments.student is not None:
        models[True] = load(arguments.student, vae).to(arguments.device)
        rungs += students_rungs(models[True])
    people = list(batches(arguments.data, arguments.people, arguments.image_size, arguments.device))
    found: Found = {DECODED: (mean(decoded_figures(models[False], people)), math.nan)}
    shown: dict[str, tuple[Tensor, dict[str, Tensor]]] = {}
    print(HEADER)
    # What the sheet shows comes first, should the minutes end.
    for setting in sorted(rungs, key=lambda setting: not is_shown(setting)):
        if shown and time.monotonic() - began > 60 * arguments.minutes:
            break
        made = generate(models[setting.student], people, setting)
        seconds = seconds_a_photo(models[setting.student], people[0][0], setting, graphs=not arguments.eager)
        found[setting.label] = (mean(made[1]), seconds)
        print(row(setting.label, found), flush=True)
        if is_shown(setting):
            shown[setting.label] = made
    write_png(to_bytes(sheet(people, shown)), arguments.out / "sheet.png")
    rows = [row(name, found) for name in (DECODED, *(setting.label for setting in rungs)) if name in found]
    (arguments.out / "ladder.md").write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    stored = {name: values | {"seconds": seconds} for name, (values, seconds) in found.items()}
    (arguments.out / "figures.json").write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    plot([setting for setting in rungs if setting.label in found], found, arguments.out / "ladder.png")


def is_shown(setting: Setting) -> bool:
    """Whether the sheet has a row of it."""
    return setting in SHORT or setting.student


def students_rungs(student: ViewSynthesizer) -> tuple[Setting, ...]:
    """As the weights state; a view model that states nothing, distilled elsewhere, with a few numbers of steps."""
    stated = stated_sampling(student.unet)
    if stated is None:
        return tuple(Setting("dpm", steps, student=True) for steps in (25, 8, 4))
    back = stated.guidance[1]
    return (Setting(stated.sampler, stated.num_steps, back, stated.sigma_max, stated.sigma_min, student=True),)


def load(model: Path, vae: Path) -> ViewSynthesizer:
    """From a folder of weights, or a run's folder and an autoencoder's."""
    views = load_sv3d(model / VIEW_MODEL if (model / VIEW_MODEL).is_dir() else model)
    return ViewSynthesizer(views.unet, views.image_encoder, load_autoencoder(vae), views.image_mean, views.image_std)


def batches(data: Path, count: int, size: int, device: str) -> Iterator[tuple[TrainingViews, Tensor]]:
    """The views of the rig of the first people, and their masks."""
    template = BodyTemplate.of(load_body_model())
    pool = PeoplePool(data, template, capacity=count, device=device, image_size=size, max_views=4)
    pool.load(limit=count)
    for some in pool.everybody(BATCH[device]):
        batch = pool.batch(some, some.new_zeros(len(some), 1), num_inputs=4)
        yield rig_views(batch), batch.images[:, :, 3]


def generate(
    synthesizer: ViewSynthesizer, people: list[tuple[TrainingViews, Tensor]], setting: Setting
) -> tuple[Tensor, dict[str, Tensor]]:
    """Pictures of everybody's views, and the figures of each person."""
    drawn, figures, first = [], [], 0
    for views, masks in people:
        count = len(masks)
        made = synthesizer(
            views.pictures[:, 0],
            elevations=views.elevations,
            seeds=list(range(first, first + count)),
            **setting.arguments,
        )
        first += count
        drawn.append(made.images)
        figures.append(score_generated(made.images, views.pictures, masks))
    return torch.cat(drawn), joined(figures)


@torch.no_grad()
def decoded_figures(synthesizer: ViewSynthesizer, people: list[tuple[TrainingViews, Tensor]]) -> dict[str, Tensor]:
    """What the autoencoder makes of the true views."""
    found = []
    for views, masks in people:
        unseen = [
            decode_latents(synthesizer.vae, encode_images(synthesizer.vae, view)) for view in views.pictures.unbind(1)
        ]
        pictures = torch.stack([views.pictures[:, 0], *unseen[1:]], dim=1)
        found.append(score_generated(pictures, views.pictures, masks))
    return joined(found)


def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Figures of batches as figures of all."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def mean(figures: dict[str, Tensor]) -> dict[str, float]:
    """Over the people."""
    return {name: float(values.mean()) for name, values in figures.items()}


def seconds_a_photo(
    synthesizer: ViewSynthesizer, views: TrainingViews, setting: Setting, graphs: bool = True
) -> float:
    """Median of some calls after some that warm up, see :data:`CALLS`."""
    if graphs and synthesizer.device.type == "cuda":
        synthesizer.use_cuda_graphs()
    times = []
    warming, timed = CALLS[synthesizer.device.type]
    for _ in range(warming + timed):
        began = time.perf_counter()
        made = synthesizer(
            views.pictures[:1, 0],
            **setting.arguments,
            decode=False,
        )
        made.latents.sum().item()  # waits for the device
        times.append(time.perf_counter() - began)
    synthesizer.release_cuda_graphs()
    return statistics.median(times[warming:])


def sheet(
    people: list[tuple[TrainingViews, Tensor]], shown: dict[str, tuple[Tensor, dict[str, Tensor]]]
) -> Float[Tensor, "3 h w"]:
    """A row for each of the best and the worst people: the photo, the true views, those of each rung that is shown."""
    truth = torch.cat([views.pictures for views, _ in people]).cpu()
    label = CHOSEN.label if CHOSEN.label in shown else next(iter(shown))
    figures = shown[label][1]
    ranked = figures["psnr_box"].argsort(descending=True).tolist()
    strips = ", ".join(name.partition(", sigma")[0] for name in shown)
    rows = []
    for place in [*ranked[:SHOWN], *ranked[SHOWN:][-SHOWN:]]:
        told = (
            f"person {place}: {figures['psnr_box'][place]:.2f} dB in the box, sharpness "
            f"{figures['sharpness'][place]:.2f}, front to back {figures['front_back_color'][place]:.3f} "
            f"(true {figures['front_back_color_true'][place]:.3f}).   photo | left, back, right: truth, {strips}"
        )
        views = [truth[place], *(pictures[place, 1:].cpu() for pictures, _ in shown.values())]
        rows.append(labelled(side_by_side(list(halved(torch.cat(views)).unbind(0))), told))
    return stacked(rows)


def halved(pictures: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h2 w2"]:
    """At half their size: a row has ten pictures and more."""
    return F.avg_pool2d(pictures, 2)


Found = dict[str, tuple[dict[str, float], float]]
"""Figures and seconds, by the rungs' labels."""
DECODED = "decoded"
HEADER = (
    f"| sampling | s | against | {' | '.join(COLUMNS)} | {' | '.join(f'{name} (true)' for name in AGREEMENT)} |\n"
    f"|{'---|' * (3 + len(COLUMNS) + len(AGREEMENT))}"
)


def row(name: str, found: Found) -> str:
    """One line of the table."""
    values, seconds = found[name]
    told = [f"{values[column]:.2f}" if column.startswith("psnr") else f"{values[column]:.3f}" for column in COLUMNS]
    agreed = [f"{values[column]:.3f} ({values[f'{column}_true']:.3f})" for column in AGREEMENT]
    base = found.get(BASE.label)
    against = "" if base is None else f"{values['psnr_box'] - base[0]['psnr_box']:+.2f}"
    took = "" if math.isnan(seconds) else f"{seconds:.3f}"
    return f"| {' | '.join([name, took, against, *told, *agreed])} |"


def plot(rungs: Sequence[Setting], found: Found, path: Path) -> None:
    """PSNR and sharpness (a blurred mean has a high PSNR) against milliseconds, if matplotlib is there."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines: dict[str, list[Setting]] = {}
    for setting in sorted(rungs, key=lambda setting: setting.steps):
        if setting.line is not None:
            lines.setdefault(setting.line, []).append(setting)
    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.2))
    for panel, name, label in zip(
        panels, ("psnr_box", "sharpness"), ("PSNR in the person's box, dB", "sharpness (1: the truth's)"), strict=True
    ):
        for number, (line, settings) in enumerate(lines.items()):
            points = [(1000 * found[setting.label][1], found[setting.label][0][name]) for setting in settings]
            alone = "D" if line == "student" else "s"
            panel.plot(*zip(*points, strict=True), marker="o" if len(points) > 1 else alone, markersize=4, label=line)
            for setting, point in zip(settings, points, strict=True):
                offset = (4, 4 if number % 2 else -9)
                panel.annotate(str(setting.steps), point, xytext=offset, textcoords="offset points", fontsize=7)
        panel.set_xscale("log")
        panel.set_xticks([5, 10, 20, 40], ["5", "10", "20", "40"])
        panel.minorticks_off()
        panel.set_xlabel("milliseconds from photo to latents")
        panel.set_ylabel(label)
        panel.grid(color="0.92")
    panels[0].legend(fontsize=7, title="numbers: steps", title_fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
