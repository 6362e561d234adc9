"""Where a run's figures and pictures go: a line of JSON each, TensorBoard, and the terminal."""

import json
import sys
from pathlib import Path
from types import TracebackType

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


class RunLog:
    """Writes ``log.jsonl``, ``tensorboard/`` and a progress bar; a silent one writes nothing.

    Args:
        folder: The run's folder; the files are appended to when a run is resumed.
        num_steps: Length of the progress bar.
        silent: For all processes but the first.
    """

    def __init__(self, folder: Path, num_steps: int, *, silent: bool = False) -> None:
        self._silent = silent
        self._writer: SummaryWriter | None = None
        if silent:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = (folder / "log.jsonl").open("a", encoding="utf-8", buffering=1)
        self._writer = SummaryWriter(str(folder / "tensorboard"), flush_secs=20)
        # A file or a pipe gets a line now and then instead of a bar that is redrawn.
        seconds = 0.5 if sys.stderr.isatty() else 20.0
        self._bar = tqdm(total=num_steps, unit="step", smoothing=0.05, mininterval=seconds, dynamic_ncols=True)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._bar.close()
            self._writer.close()
            self._lines.close()

    def start_at(self, step: int) -> None:
        """Let the progress bar begin at a resumed step."""
        if not self._silent:
            self._bar.initial = self._bar.n = step
            self._bar.refresh()

    def scalars(self, step: int, group: str, values: dict[str, float]) -> None:
        """Write named figures of one step."""
        if self._writer is None:
            return
        self._lines.write(json.dumps({"step": step, "group": group} | values) + "\n")
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)

    def picture(self, step: int, name: str, picture: Tensor) -> None:
        """Write a picture ``[3, h, w]`` in ``[0, 1]``."""
        if self._writer is not None:
            self._writer.add_image(name, picture.detach().float().clamp(0, 1).cpu(), step)

    def progress(self, step: int, num_steps: int, note: str) -> None:
        """Move the bar to ``step`` of ``num_steps``; a run that ends by the clock has its steps estimated anew."""
        if not self._silent:
            self._bar.total = num_steps
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(step - self._bar.n)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if not self._silent:
            self._bar.write(line)
