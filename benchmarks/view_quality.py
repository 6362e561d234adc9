"""Judge a view model on people whose every side is known: the ladder of samplers and steps, and who comes off how.

python benchmarks/view_quality.py MODEL DATA --out DIR [--vae DIR] [--people 64] [--device cuda|cpu] [--quick]

MODEL is a folder of weights with ``view_model/`` and ``vae/``, or what training view synthesis leaves (then give
``--vae``). DIR gets ``ladder.md``, ``ladder.png`` (with matplotlib), ``sheet.png`` (for each of the best and the worst
four people the true views above, the generated below) and ``figures.json``. Every sampling of a person begins at the
same noise, by the person's place. Seconds are of one photo to latents, the median of five calls after two that warm
up; what each column means is in ``humansplat.metrics.generated_views``. The first row is the autoencoder's own
limit: the true latents, decoded.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from humansplat.body.models import load_body_model
from humansplat.data.dataset import PeoplePool
from humansplat.data.people import BodyTemplate
from humansplat.io.images import to_bytes, write_png
from humansplat.metrics.generated_views import score_generated
from humansplat.models.autoencoder import decode_latents, encode_images
from humansplat.models.edm_sampling import Sampler
from humansplat.models.sv3d import load_sv3d
from humansplat.pipelines.preview import labelled, side_by_side, stacked
from humansplat.pipelines.view_synthesis import ViewSynthesizer
from humansplat.pipelines.weights import VIEW_MODEL
from humansplat.training.view_jitter import TrainingViews, rig_views

BATCH = 8
SHOWN = 4
COLUMNS = ("psnr", "psnr_box", "ssim_box", "psnr_box_left", "psnr_box_back", "psnr_box_right")
AGREEMENT = ("front_back_color", "neighbour_color", "neighbour_height")


@dataclass(frozen=True)
class Setting:
    """One rung of the ladder."""

    sampler: Sampler
    steps: int
    back: float = 1.0
    """Guidance at the back."""
    sigma_max: float = 80.0

    @property
    def evaluations(self) -> int:
        """Of the network, both branches of guidance counted."""
        return (2 * self.steps - 1 if self.sampler == "heun" else self.steps) * (2 if self.back != 1 else 1)


BASE = Setting("euler", 25, 2.5, 700.0)
"""SV3D's own sampler, which the others are compared with."""
CHOSEN = Setting("dpm", 8)
LADDER = (
    BASE,
    Setting("euler", 25),
    Setting("dpm", 25, 2.5),
    Setting("dpm", 12, 2.5),
    Setting("dpm", 12),
    Setting("heun", 6),
    Setting("dpm", 8, 1.5),
    CHOSEN,
    Setting("dpm", 8, sigma_max=700.0),
    Setting("dpm", 6),
    Setting("dpm", 4),
    Setting("euler", 4),
    Setting("dpm", 2),
    Setting("euler", 1),
)


def main() -> None:
    """Load once, climb the ladder, write the four files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--vae", type=Path, help="folder of the autoencoder, where MODEL has none")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--people", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="two rungs only, to try the script")
    arguments = parser.parse_args()
    synthesizer = load(arguments.model, arguments.vae).to(arguments.device)
    people = list(batches(arguments.data, arguments.people, arguments.image_size, arguments.device))
    rungs = (CHOSEN, Setting("euler", 1)) if arguments.quick else LADDER
    found = {"decoded": (mean(decoded_figures(synthesizer, people)), float("nan"))}
    for setting in rungs:
        pictures, figures = generate(synthesizer, people, setting)
        found[label(setting)] = (mean(figures), seconds_a_photo(synthesizer, people[0][0], setting))
        print(row(label(setting), *found[label(setting)]), flush=True)
        if setting == CHOSEN:
            write_png(to_bytes(sheet(people, pictures, figures)), arguments.out / "sheet.png")
    table = "\n".join([HEADER, *[row(name, *values) for name, values in found.items()]])
    (arguments.out / "ladder.md").write_text(table + "\n", encoding="utf-8")
    stored = {name: values | {"seconds": seconds} for name, (values, seconds) in found.items()}
    (arguments.out / "figures.json").write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    plot(rungs, found, arguments.out / "ladder.png")
    print("\n" + table)


def load(model: Path, vae: Path | None) -> ViewSynthesizer:
    """From a folder of weights, or a run's folder and an autoencoder's."""
    from humansplat.models.autoencoder import load_autoencoder

    views = load_sv3d(model / VIEW_MODEL if (model / VIEW_MODEL).is_dir() else model)
    autoencoder = load_autoencoder(vae or model / "vae")
    return ViewSynthesizer(views.unet, views.image_encoder, autoencoder, views.image_mean, views.image_std)


def batches(data: Path, count: int, size: int, device: str) -> Iterator[tuple[TrainingViews, Tensor]]:
    """The views of the rig of the first people, and their masks."""
    template = BodyTemplate.of(load_body_model())
    pool = PeoplePool(data, template, capacity=count, device=device, image_size=size, max_views=4)
    pool.load(limit=count)
    for start in range(0, len(pool), BATCH):
        some = torch.arange(start, min(start + BATCH, len(pool)), device=device)
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
            num_steps=setting.steps,
            sampler=setting.sampler,
            guidance=(1.0, setting.back),
            sigma_max=setting.sigma_max,
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


def seconds_a_photo(synthesizer: ViewSynthesizer, views: TrainingViews, setting: Setting) -> float:
    """Median of five calls after two."""
    times = []
    for _ in range(7):
        began = time.perf_counter()
        made = synthesizer(
            views.pictures[:1, 0],
            num_steps=setting.steps,
            sampler=setting.sampler,
            guidance=(1.0, setting.back),
            sigma_max=setting.sigma_max,
            decode=False,
        )
        made.latents.sum().item()  # waits for the device
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


def sheet(people: list[tuple[TrainingViews, Tensor]], pictures: Tensor, figures: dict[str, Tensor]) -> Tensor:
    """The best and the worst people: the true views above the generated ones."""
    truth = torch.cat([views.pictures for views, _ in people]).cpu()
    ranked = figures["psnr_box"].argsort(descending=True).tolist()
    rows = []
    for place in [*ranked[:SHOWN], *ranked[SHOWN:][-SHOWN:]]:
        told = (
            f"person {place}: {figures['psnr_box'][place]:.2f} dB in the box; photo, left, back, right"
            f"; truth above; front to back {figures['front_back_color'][place]:.3f}"
            f" (true {figures['front_back_color_true'][place]:.3f})"
        )
        pair = [side_by_side(list(views.unbind(0))) for views in (truth[place], pictures[place].cpu())]
        rows.append(labelled(stacked(pair), told))
    return stacked(rows)


def label(setting: Setting) -> str:
    """How a rung is called."""
    guided = f"guidance {setting.back:g}" if setting.back != 1 else "no guidance"
    return f"{setting.sampler} {setting.steps}, {guided}, from sigma {setting.sigma_max:g}"


HEADER = (
    f"| sampling | s | {' | '.join(COLUMNS)} | {' | '.join(f'{name} (true)' for name in AGREEMENT)} |\n"
    f"|{'---|' * (2 + len(COLUMNS) + len(AGREEMENT))}"
)


def row(name: str, values: dict[str, float], seconds: float) -> str:
    """One line of the table."""
    told = " | ".join(f"{values[column]:.3f}" if "ssim" in column else f"{values[column]:.2f}" for column in COLUMNS)
    agreed = " | ".join(f"{values[column]:.3f} ({values[f'{column}_true']:.3f})" for column in AGREEMENT)
    return f"| {name} | {'-' if seconds != seconds else f'{seconds:.3f}'} | {told} | {agreed} |"


def plot(rungs: tuple[Setting, ...], found: dict[str, tuple[dict[str, float], float]], path: Path) -> None:
    """PSNR against seconds, if matplotlib is there."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(6, 4))
    for setting in rungs:
        values, seconds = found[label(setting)]
        panel.scatter(seconds, values["psnr_box"], color="C1" if setting.back != 1 else "C0", s=18)
        panel.annotate(f"{setting.sampler} {setting.steps}", (seconds, values["psnr_box"]), fontsize=7)
    panel.set_xscale("log")
    panel.set_xlabel("seconds from photo to latents (orange: guided)")
    panel.set_ylabel("PSNR in the person's box, dB")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
