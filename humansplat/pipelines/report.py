"""What a reconstruction tells about itself: time, memory, versions, doubts."""

import json
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

import psutil

import humansplat
from humansplat.io.atomic import replacing

VERSIONS_OF = ("torch", "numpy", "numba", "diffusers", "gsplat", "gsply", "ai-edge-litert")
_SAMPLE_SECONDS = 0.02


@dataclass(kw_only=True)
class StageCost:
    """What one stage took."""

    seconds: float
    peak_memory_mib: float
    """Largest resident memory of the process while the stage ran; what earlier stages left is in it."""


@dataclass(kw_only=True)
class Report:
    """The content of ``report.json``."""

    photo: str
    """The photo's file name, or what messages call it."""
    model: str
    weights: dict[str, str]
    """sha256 of every weight file, by its path within the folder of weights."""
    device: str
    views: str
    seed: int
    view_sampling: dict[str, object] | None = None
    """How the view model was sampled; none where none was. Its files are among ``weights``."""
    back: str | None = None
    """The second photo, of the back, if one was given."""
    versions: dict[str, str] = field(default_factory=lambda: installed_versions())
    stages: dict[str, StageCost] = field(default_factory=dict)
    num_splats: int = 0
    silhouette_iou: float = 0.0
    """Of the splats, seen by the photo's camera, against the mask."""
    body_silhouette_iou: float = 0.0
    """Of the body without clothes against the mask."""
    landmark_error_px: float | None = None
    """Mean distance of the body's landmarks from the photo's, pixels of the crop; none for a body that was given."""
    landmark_error_fraction: float | None = None
    """The same, as a fraction of the body's height in the picture."""
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage and watch its memory; a name that comes again adds up."""
        with _PeakMemory() as memory:
            start = time.perf_counter()
            yield
            seconds = time.perf_counter() - start
        before = self.stages.get(name, StageCost(seconds=0.0, peak_memory_mib=0.0))
        self.stages[name] = StageCost(
            seconds=round(before.seconds + seconds, 3),
            peak_memory_mib=round(max(before.peak_memory_mib, memory.peak / 2**20), 1),
        )

    def write(self, path: Path) -> None:
        """Write ``report.json``."""
        values = asdict(self)
        values["seconds"] = round(sum(cost.seconds for cost in self.stages.values()), 3)
        values["peak_memory_mib"] = max((cost.peak_memory_mib for cost in self.stages.values()), default=0.0)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


class _PeakMemory:
    """Samples the resident memory from a thread: no platform tells the peak of a span of time."""

    def __enter__(self) -> "_PeakMemory":
        self._process = psutil.Process(os.getpid())
        self.peak = self._process.memory_info().rss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        self.peak = max(self.peak, self._process.memory_info().rss)


def installed_versions() -> dict[str, str]:
    """Versions of what a result depends on; packages that are not installed are left out."""
    versions = {"humansplat": humansplat.__version__, "python": platform.python_version(), "platform": sys.platform}
    for name in VERSIONS_OF:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
