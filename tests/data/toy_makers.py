"""Makers of the smallest people; a module of its own so that worker processes can import it."""

import os
import signal
from pathlib import Path

from humansplat.data.worker import Maker


def load(out: Path) -> Maker:
    """People of one file; the item ``kill`` kills its process, ``fail`` fails."""

    def make(item: object) -> str | None:
        if item == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "fail":
            return "it had to"
        (out / str(item)).mkdir()
        (out / str(item) / "meta.json").write_text(f'{{"split": "train", "seed": 1, "flags": ["{item}"]}}\n')
        return None

    return make
