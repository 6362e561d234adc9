"""The learning rate over a run that ends by steps or by the clock, whichever comes first."""

import math
from dataclasses import dataclass


def lr_factor(progress: float, step: int, *, warmup_steps: int, final_fraction: float) -> float:
    """Linear warm-up times a cosine from 1 to ``final_fraction``.

    Args:
        progress: Part of the run that is done, in ``[0, 1]``; see :class:`RunClock`.
        step: Steps taken before this one.
        warmup_steps: Steps until the warm-up is over.
        final_fraction: Value at progress 1.
    """
    warmup = min(1.0, (step + 1) / max(1, warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return warmup * (final_fraction + (1 - final_fraction) * cosine)


@dataclass(kw_only=True)
class RunClock:
    """How much of a run is done: by steps or by time, whichever is further.

    Reading a clock at every step would let several processes drift apart, each with its own learning
    rate. So the time counts at readings only (:meth:`read`), which the caller makes the same in all
    processes; in between the rate stands still where the time is what leads. Progress never falls, and
    a resumed run goes on from the time that its checkpoint says was used.
    """

    num_steps: int
    max_minutes: float | None = None
    minutes_used: float = 0.0
    """Training time at the last reading, of earlier parts of the run too."""

    def read(self, minutes_used: float) -> None:
        """Take in the time used by now."""
        self.minutes_used = max(self.minutes_used, minutes_used)

    def progress(self, step: int) -> float:
        """Part of the run that is done before ``step``, in ``[0, 1]``."""
        by_time = 0.0 if self.max_minutes is None else self.minutes_used / self.max_minutes
        return min(1.0, max(by_time, step / self.num_steps))

    def is_over(self, step: int) -> bool:
        """Whether the steps, or at the last reading the time, are used up."""
        return self.progress(step) >= 1.0

    def expected_steps(self, step: int) -> int:
        """Steps of the whole run if it goes on as it did on average."""
        progress = self.progress(step)
        return round(step / progress) if step and progress else self.num_steps
