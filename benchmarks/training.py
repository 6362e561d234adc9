"""Time training steps of the reconstructor: samples a second, memory, parts of a step, share of the matrix rate.

python benchmarks/training.py [--only rate|encoder|base_512|base_256|small|several] [--minutes 1] [--out FILE.json]
accelerate launch --config_file configs/accelerate/two_gpus.yaml benchmarks/training.py --only several --one FILE.json
python benchmarks/training.py --paper FILE.json...

The steps are the trainer's own, with the task's own losses, on made-up people in the device's memory and an untrained
autoencoder of Stable Diffusion's size (``small``: the one that ships). A row is a training of its own: some steps to
compile and settle, then as many as the time allows, timed together; after them a few with marks, whose medians show
where the time goes. Before the first row a step of two people counts operations and has the kernels of Triton and
gsplat compiled or loaded. The share is the model FLOPs of a second (what is counted: ``training_flops.py``), over the
rate of a large bfloat16 product measured in the same run. ``compile`` is the configuration's. What does not fit into
memory says so. No row begins later than ``--minutes`` after its table, set-up included.

``several`` times one step size on as many processes as there are; with the result of one process by ``--one`` it shows
what a second GPU brings. ``--out`` adds to a file of results; ``--paper`` makes the paper run's hours of such files.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import get_args

import torch
from training_bench import Bench
from training_encoder import encoder
from training_paper import merged, paper
from training_tables import CELLS, SEVERAL, several, table

from humansplat.config import Compiled


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", choices=["rate", "encoder", *CELLS, "several"])
    parser.add_argument("--cells", default="", help="rows of the table by number, in this order, e.g. 3,0")
    parser.add_argument("--profile", action="store_true", help="list what takes longest in a step of each row")
    parser.add_argument("--minutes", type=float, default=1.0, help="after its table's beginning no row begins")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes, to try this script")
    parser.add_argument("--names", default=",".join(SEVERAL), help="configurations of --only several")
    parser.add_argument("--compile", choices=get_args(Compiled), help="for all rows")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as of tools/train.py")
    parser.add_argument("--one", type=Path, help="results of --only several with one process")
    parser.add_argument("--out", type=Path, help="JSON file that the results are added to")
    parser.add_argument("--paper", type=Path, nargs="+", help="files of results: print the hours of the paper's run")
    given = parser.parse_args()
    if given.paper:
        paper(given.paper)
        return
    torch.set_float32_matmul_precision("highest")  # as tools/train.py
    torch.backends.cudnn.benchmark = True
    with tempfile.TemporaryDirectory() as scratch:
        cells = [cell for cell in given.cells.split(",") if cell]
        bench = Bench(
            given.device,
            tiny=given.tiny,
            minutes=given.minutes,
            scratch=Path(scratch),
            cells=cells,
            compiled=given.compile,
            profiled=given.profile,
            overrides=given.set,
        )
        bench.say(f"{bench.results['device']}, torch {torch.__version__}")
        bench.results["rate"] = bench.rate
        if given.only in (None, "encoder"):
            encoder(bench)
        for name in CELLS:
            if given.only in (None, name):
                bench.say(f"### {name}\n")
                table(bench, name)
        if given.only == "several":
            several(bench, given.one, given.names.split(","))
        if given.out and bench.accelerator.is_main_process:
            known = json.loads(given.out.read_text(encoding="utf-8")) if given.out.is_file() else {}
            given.out.parent.mkdir(parents=True, exist_ok=True)
            given.out.write_text(json.dumps(merged(known, bench.results), indent=1), encoding="utf-8")
        bench.accelerator.end_training()


if __name__ == "__main__":
    main()
