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
    processes, and between two readings progress goes on at the rate per step seen last. Progress never
    falls, and a resumed run goes on from the time that its checkpoint says was used.
    """

    num_steps: int
    max_minutes: float | None = None
    minutes_used: float = 0.0
    """Training time so far, of earlier parts of the run too."""
    step_read: int = 0
    progress_read: float = 0.0
    rate: float = 0.0
    """Progress per step between the last two readings."""

    def read(self, step: int, minutes_used: float) -> None:
        """Take in the time used by now."""
        by_steps = step / self.num_steps
        by_time = 0.0 if self.max_minutes is None else minutes_used / self.max_minutes
        progress = max(self.progress_read, min(1.0, max(by_steps, by_time)))
        if step > self.step_read:
            self.rate = (progress - self.progress_read) / (step - self.step_read)
        self.step_read, self.progress_read, self.minutes_used = step, progress, minutes_used

    def progress(self, step: int) -> float:
        """Estimate for a step after the last reading."""
        if self.max_minutes is None:
            return min(1.0, step / self.num_steps)
        ahead = self.progress_read + self.rate * (step - self.step_read)
        return min(1.0, max(ahead, step / self.num_steps))

    def is_over(self, step: int) -> bool:
        """Whether the steps, or at the last reading the time, are used up."""
        return step >= self.num_steps or self.progress_read >= 1.0

    def minutes_left(self) -> float | None:
        """Time until the budget is spent; ``None`` without one."""
        return None if self.max_minutes is None else max(0.0, self.max_minutes - self.minutes_used)

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {
            "minutes_used": self.minutes_used,
            "step_read": self.step_read,
            "progress_read": self.progress_read,
            "rate": self.rate,
        }

    def restore(self, state: dict[str, float]) -> None:
        """Go on from a checkpoint, perhaps with another ``num_steps`` or ``max_minutes``.

        Progress is computed anew from the new budget, so a longer budget raises the rate again.
        """
        self.minutes_used = state["minutes_used"]
        self.step_read = int(state["step_read"])
        by_time = 0.0 if self.max_minutes is None else self.minutes_used / self.max_minutes
        self.progress_read = min(1.0, max(self.step_read / self.num_steps, by_time))
        self.rate = state["rate"]
