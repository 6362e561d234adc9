"""Train one task: ``accelerate launch tools/train.py --config configs/<task>_<size>.yaml``.

Plain ``python tools/train.py`` does the same with one process. On several GPUs add
``--config_file configs/accelerate/two_gpus.yaml`` after ``accelerate launch``.
"""

import argparse
import logging
import sys
from pathlib import Path

from humansplat.config import TrainConfig, load_config
from humansplat.errors import UserError


def main() -> int:
    """Parse, build, train; 2 is returned for what the user can mend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="YAML file of differences from the defaults")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in output_dir")
    parser.add_argument(
        "--stop-after", type=float, metavar="MINUTES", help="write a checkpoint and end this call, not the schedule"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="override a value, e.g. optim.lr=1.0e-4"
    )
    arguments = parser.parse_args()
    try:
        config = load_config(TrainConfig, arguments.config, arguments.set)
        train(config, resume=arguments.resume, stop_after_minutes=arguments.stop_after)
    except (UserError, FileNotFoundError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


def train(config: TrainConfig, *, resume: bool, stop_after_minutes: float | None) -> None:
    """Load the people and run the trainer."""
    import torch
    from accelerate import Accelerator

    from humansplat.training.people import open_pools
    from humansplat.training.tasks import make_task
    from humansplat.training.trainer import Trainer

    accelerator = Accelerator()
    level = logging.INFO if accelerator.is_main_process else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s")
    # Camera algebra stays in float32 under autocast; TF32 would move a splat by millimetres.
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.benchmark = True
    task = make_task(config)
    with open_pools(config.data, accelerator, seed=config.seed) as (train_pool, validation_pool):
        trainer = Trainer(config, task, accelerator, train_pool, validation_pool)
        result = trainer.run(resume=resume, stop_after_minutes=stop_after_minutes)
    accelerator.print(f"step {result.step}: {'finished' if result.finished else 'stopped'} {result.metrics}")
    accelerator.end_training()


if __name__ == "__main__":
    sys.exit(main())
