"""Time fine-tuning steps of SV3D at its full size: people a second, memory, share of the matrix rate, several GPUs.

    python benchmarks/view_training.py [--minutes 2] [--out FILE.json]
    accelerate launch --config_file configs/accelerate/two_gpus.yaml benchmarks/view_training.py --one FILE.json

The steps are the trainer's own with ``configs/sv3d_base.yaml`` (AdamW, averaged weights, bfloat16 autocast), on
made-up people in the device's memory; UNet, image encoder (ViT-H/14) and Stable Diffusion's autoencoder have random
weights. A row trains ``unet`` (all of the UNet), ``release`` (what the configuration trains, as HumanSplat's release)
or ``all`` (the image encoder as well). Without ``encoding`` latents and the photo's embedding are drawn, not computed.
The network is built once and goes from row to row; each has an optimizer and averages of its own.

Model FLOPs (``training_flops.py`` says what is counted) are of a step of one person, eager: the forward pass of
everything in the training module, the backward pass of what the trained parameters need; with the autoencoder's in the
second share. No row begins later than ``--minutes`` after the first. Several processes time the rows of ``SEVERAL``
and are held against the rows of one process in ``--one``, from where the FLOPs come, too.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from training_bench import ROOT, Bench, Cell
from training_flops import ModelFlops, count
from training_inputs import made_up_pool, write_autoencoder
from transformers import CLIPVisionModelWithProjection

from humansplat.config import TrainConfig, load_config
from humansplat.data.dataset import PeoplePool
from humansplat.io.atomic import replacing
from humansplat.models.autoencoder import CELL, LATENT_CHANNELS
from humansplat.models.sv3d import SV3D
from humansplat.models.sv3d_parts import vit_h
from humansplat.models.sv3d_unet import SV3DUNet
from humansplat.training.trainer import Trainer
from humansplat.training.view_jitter import TrainingViews
from humansplat.training.view_task import ViewDenoising, ViewTask, build_sv3d, train_only

NUM_PEOPLE = 4
TRAINABLE: dict[str, tuple[str, ...] | None] = {"all": ("",), "unet": (".unet.",), "release": None}
"""Patterns of names; ``None``: the configuration's."""


@dataclass(frozen=True, kw_only=True)
class ViewCell(Cell):
    """One row of the table."""

    trainable: str = "unet"
    """Of :data:`TRAINABLE`."""
    encoded: bool = True
    """Whether the autoencoder and the image encoder are run."""

    @property
    def head(self) -> str:
        """Its first columns."""
        yes_no = ["yes" if value else "no" for value in (self.checkpointing, self.encoded)]
        return f"| {self.trainable} | {self.batch} | {yes_no[0]} | {yes_no[1]} | {self.compile} | "


# The first rows answer most, should time run out.
CELLS = (
    ViewCell(batch=4, checkpointing=True, trainable="release"),
    ViewCell(batch=4, checkpointing=True),
    ViewCell(batch=2),
    ViewCell(batch=8, checkpointing=True),
    ViewCell(batch=2, trainable="release"),
    ViewCell(batch=8, checkpointing=True, trainable="release"),
    ViewCell(batch=4, checkpointing=True, encoded=False),
    ViewCell(batch=4),
    ViewCell(batch=12, checkpointing=True),
    ViewCell(batch=1),
    ViewCell(batch=1, checkpointing=True),
    ViewCell(batch=4, checkpointing=True, trainable="all"),
)
SEVERAL = (CELLS[0], CELLS[1], CELLS[2])


class MadeUpTask(ViewTask):
    """The task with a network that is there already.

    Args:
        config: The run.
        model: Goes from row to row.
        encoded: Otherwise latents are drawn.
    """

    def __init__(self, config: TrainConfig, model: SV3D, *, encoded: bool) -> None:
        super().__init__(config)
        self._model, self._encodes = model, encoded

    def build_module(self) -> nn.Module:
        """The network, of which the configuration's names take gradients."""
        module = ViewDenoising(self._model.train())
        train_only(module, self.options.trainable)
        return module

    def _latents(self, views: TrainingViews) -> Tensor:
        if self._encodes:
            return super()._latents(views)
        batch, count, _, height, width = views.pictures.shape
        return torch.randn(batch, count, LATENT_CHANNELS, height // CELL, width // CELL, device=views.pictures.device)


class ViewBench(Bench):
    """The bench of the reconstructor with SV3D on it."""

    def prepare(self) -> tuple[TrainConfig, PeoplePool]:
        """Build what all rows share, and say how long it took."""
        moments = [time.monotonic()]
        autoencoder = self.scratch / "vae"
        write_autoencoder(autoencoder, tiny=self.tiny)
        overrides = ["sv3d.weights=null", f"sv3d.autoencoder={json.dumps(autoencoder.as_posix())}", "data.source=pool"]
        overrides += [f"mixed_precision='{self.autocast_type}'", f"output_dir={json.dumps(self.scratch.as_posix())}"]
        overrides += ["data.image_size=64"] if self.tiny else []
        config = load_config(TrainConfig, ROOT / "configs" / "sv3d_base.yaml", overrides + self.overrides)
        moments.append(time.monotonic())
        torch.manual_seed(0)
        with self.device:
            self.model = (
                build_sv3d(config.sv3d, 1.0) if self.tiny else SV3D(SV3DUNet(), CLIPVisionModelWithProjection(vit_h()))
            )
        self.model.to(self.device)
        self.wait()
        moments.append(time.monotonic())
        pool = made_up_pool(2 if self.tiny else NUM_PEOPLE, config.data.image_size or 512, self.device)
        moments.append(time.monotonic())
        spans = [end - begin for begin, end in zip(moments[:-1], moments[1:], strict=True)]
        sizes = [
            sum(p.numel() for p in part.parameters()) / 1e6 for part in (self.model.unet, self.model.image_encoder)
        ]
        self.say(
            f"UNet {sizes[0]:,.0f} M parameters, image encoder {sizes[1]:,.0f} M; setting up: autoencoder "
            f"{spans[0]:.1f} s, networks {spans[1]:.1f} s, people {spans[2]:.1f} s"
        )
        return config, pool

    def changed(self, cell: ViewCell) -> ViewCell:  # type: ignore[override]
        """A row as it was asked for."""
        return replace(
            cell, compile=self.compiled or cell.compile, batch=min(cell.batch, 2) if self.tiny else cell.batch
        )

    @contextmanager
    def training(self, config: TrainConfig, cell: Cell, pool: PeoplePool) -> Iterator[tuple[Trainer, nn.Module]]:
        """A trainer and the network as its steps call it; nothing but the network stays."""
        assert isinstance(cell, ViewCell)
        trainable = TRAINABLE[cell.trainable] or config.sv3d.trainable
        config = replace(
            config,
            batch_size=cell.batch,
            gradient_checkpointing=cell.checkpointing,
            compile=cell.compile,
            sv3d=replace(config.sv3d, trainable=trainable),
        )
        if not cell.encoded:
            width = self.model.unet.config["cross_attention_dim"]
            self.model.embed_photo = lambda photo: photo.new_ones(len(photo), 1, width)  # type: ignore[method-assign]
        trainer = Trainer(config, MadeUpTask(config, self.model, encoded=cell.encoded), self.accelerator, pool)
        try:
            yield trainer, trainer.learner.wrap()
        finally:
            del trainer
            self.model.__dict__.pop("embed_photo", None)
            self.model.unet.disable_gradient_checkpointing()
            self.model.zero_grad(set_to_none=True)
            self.clear()

    def flops(self, config: TrainConfig, pool: PeoplePool, trainable: str) -> ModelFlops:
        """Count them, and say how many there are."""
        start = time.monotonic()
        with self.training(config, ViewCell(batch=1, trainable=trainable), pool) as (trainer, _):
            flops = count(trainer, trainer.learner.autocast, 1)
            trained = sum(p.numel() for p in trainer.module.parameters() if p.requires_grad)
        tera = [part / 1e12 for part in (flops.network, flops.attention, flops.encoder)]
        self.say(
            f"{trainable}: {trained / 1e6:,.1f} M parameters trained; model TFLOPs of a sample {tera[0]:.4g} "
            f"(attention {tera[1]:.3g}), the autoencoder {tera[2]:.3g}; counted in {time.monotonic() - start:.1f} s"
        )
        return flops

    def write(self, out: Path | None) -> None:
        """Write the results so far in the first process, if a file was asked for."""
        if out and self.accelerator.is_main_process:
            with replacing(out) as temporary:
                temporary.write_text(json.dumps(self.results, indent=1), encoding="utf-8")

    def is_late(self, start: float) -> bool:
        """Whether no row is to begin any more: the same in all processes."""
        passed = torch.tensor(time.monotonic() - start, device=self.device)
        return float(self.accelerator.reduce(passed, "mean")) > 60 * self.minutes


def table(
    bench: ViewBench, cells: tuple[ViewCell, ...], one: dict[str, Any], seconds: float, out: Path | None
) -> None:
    """All rows; what is known by then is written after each, for a run that is stopped."""
    config, pool = bench.prepare()
    processes = bench.accelerator.num_processes
    flops: dict[str, ModelFlops] = {name: ModelFlops(**values) for name, values in one.get("flops", {}).items()}
    rows: list[dict[str, Any]] = []
    results: dict[str, Any] = {"processes": processes, "flops": {}, "rows": rows}
    bench.results["sv3d"] = results
    for trainable in dict.fromkeys(cell.trainable for cell in cells):
        if trainable not in flops:
            flops[trainable] = bench.flops(config, pool, trainable)
        results["flops"][trainable] = flops[trainable]._asdict()
    columns = (
        "trainable | batch a GPU | checkpointing | encoding | compile | step, ms | samples/s | of one process | GiB"
    )
    bench.say(f"\n{processes} processes\n\n| {columns} | share | with the encoder | first step, s |\n{'|---' * 12}|")
    start = time.monotonic()
    for cell in cells:
        if bench.is_late(start):
            bench.say(cell.head + "left out: no time |")
            continue
        failure = ""
        try:
            measured = bench.measure(config, cell, pool, seconds=seconds, by_parts=False)
        except RuntimeError as error:  # of memory, or of a kernel that does not take the size
            failure = " ".join(str(error).split())[:200]
        if failure:
            bench.clear()  # only now: while the error was handled it held the step's tensors
            bench.say(cell.head + ("out of memory |" if "memory" in failure.lower() else f"failed: {failure} |"))
            rows.append(asdict(cell) | {"failure": failure})
            bench.write(out)
            continue
        counted = flops[cell.trainable]
        together = measured.samples_per_second * processes
        encoder = counted.encoder if cell.encoded else 0.0
        shares = [n * measured.samples_per_second / bench.rate for n in (counted.network, counted.network + encoder)]
        alone = [row for row in one.get("rows", []) if asdict(cell).items() <= row.items() and "together" in row]
        gain = together / alone[0]["together"] if alone else None
        rows.append(asdict(cell) | asdict(measured) | {"together": together, "gain": gain, "shares": shares})
        bench.write(out)
        bench.say(
            cell.head + f"{measured.step_ms:.1f} | {together:.2f} | {f'{gain:.3f} x' if gain else '-'} | "
            f"{measured.memory_gib:.1f} | {shares[0]:.1%} | {shares[1]:.1%} | {measured.compile_seconds:.1f} |"
        )
        if measured.operations:
            bench.say(measured.operations)


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cells", default="", help="rows of the table by number, e.g. 0,3")
    parser.add_argument("--minutes", type=float, default=2.0, help="after the first row's beginning no row begins")
    parser.add_argument("--seconds", type=float, default=2.5, help="of steps timed in each row")
    parser.add_argument("--profile", action="store_true", help="list what takes longest in a step of each row")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes, to try this script")
    parser.add_argument("--compile", choices=["no", "whole", "graphs"], help="for all rows")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as of tools/train.py")
    parser.add_argument("--one", type=Path, help="results of one process")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    torch.set_float32_matmul_precision("highest")  # as tools/train.py
    torch.backends.cudnn.benchmark = True
    with tempfile.TemporaryDirectory() as scratch:
        bench = ViewBench(
            given.device,
            tiny=given.tiny,
            minutes=given.minutes,
            scratch=Path(scratch),
            cells=given.cells.split(",") if given.cells else [],
            compiled=given.compile,
            profiled=given.profile,
            overrides=given.set,
        )
        bench.say(f"{bench.results['device']}, torch {torch.__version__}")
        bench.results["rate"] = bench.rate
        rows = SEVERAL if bench.accelerator.num_processes > 1 else CELLS
        rows = tuple(bench.changed(rows[int(number)]) for number in bench.only_cells or range(len(rows)))
        one = json.loads(given.one.read_text(encoding="utf-8"))["sv3d"] if given.one else {}
        table(bench, rows, one, 0.5 if given.tiny else given.seconds, given.out)
        bench.write(given.out)
        bench.accelerator.end_training()


if __name__ == "__main__":
    main()
