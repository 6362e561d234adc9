"""Animations of a glTF file, sampled at a time (specification, section 3.11 and appendix C)."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation, Slerp

from humansplat.data.rigged.gltf_file import GltfFile
from humansplat.data.rigged.transforms import Pose

PATHS = {"translation": 3, "rotation": 4, "scale": 3}
MODES = ("LINEAR", "STEP", "CUBICSPLINE")


@dataclass(frozen=True, kw_only=True, eq=False)
class Channel:
    """One changing value of one node."""

    node: int
    path: Literal["translation", "rotation", "scale"]
    mode: Literal["LINEAR", "STEP", "CUBICSPLINE"]
    times: Float[np.ndarray, " t"]
    """Seconds, ascending."""
    values: Float[np.ndarray, "t s k"]
    """``s`` is 1; for cubic splines 3: in-tangent, value, out-tangent."""

    def at(self, time: float) -> Float[np.ndarray, " k"]:
        """The value at a time; before the first and after the last key it stands still."""
        after = int(np.searchsorted(self.times, time, side="right"))
        middle = self.values.shape[1] // 2
        if after == 0 or after == len(self.times):
            return self.values[max(after - 1, 0), middle]
        before = after - 1
        start, end = self.values[before, middle], self.values[after, middle]
        if self.mode == "STEP":
            return start
        span = self.times[after] - self.times[before]
        share = (time - self.times[before]) / span
        if self.mode == "CUBICSPLINE":
            return _hermite(start, span * self.values[before, 2], end, span * self.values[after, 0], share)
        if self.path == "rotation":
            if min(np.linalg.norm(start), np.linalg.norm(end)) < 1e-6:  # no rotation: passed over by ``sample``
                return np.zeros(4)
            return Slerp([0.0, 1.0], Rotation.from_quat(np.stack([start, end])))(share).as_quat()
        return start + share * (end - start)


@dataclass(frozen=True, kw_only=True, eq=False)
class Animation:
    """Channels that play together."""

    name: str
    channels: tuple[Channel, ...]

    @property
    def duration(self) -> float:
        """Time of the last key, seconds."""
        return max((float(channel.times[-1]) for channel in self.channels), default=0.0)

    def sample(self, rest: Pose, time: float) -> Pose:
        """How the nodes stand at a time; those that no channel moves stand as at rest."""
        values = {
            "translation": rest.translations.copy(),
            "rotation": rest.rotations.copy(),
            "scale": rest.scales.copy(),
        }
        for channel in self.channels:
            value = channel.at(time)
            if channel.path == "rotation" and np.linalg.norm(value) < 1e-6:
                continue
            values[channel.path][channel.node] = value
        moved = {channel.node for channel in self.channels}
        return replace(
            rest,
            translations=values["translation"],
            rotations=values["rotation"],
            scales=values["scale"],
            matrices={node: matrix for node, matrix in rest.matrices.items() if node not in moved},
        )


def _hermite(start: np.ndarray, leave: np.ndarray, end: np.ndarray, arrive: np.ndarray, t: float) -> np.ndarray:
    """Cubic with given ends and derivatives there, by ``t`` in ``[0, 1]``."""
    return (
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * leave
        + (3 * t**2 - 2 * t**3) * end
        + (t**3 - t**2) * arrive
    )


def read_animations(file: GltfFile, num_nodes: int) -> tuple[Animation, ...]:
    """Animations that move nodes; what else they change (morph targets, pointers) is passed over.

    Raises:
        ValueError: If one is malformed.
    """
    animations = []
    for number, record in enumerate(file.items("animations")):
        channels = []
        for entry in record["channels"]:
            target = entry["target"]
            if target.get("path") in PATHS and "node" in target:
                channels.append(_channel(file, record["samplers"][entry["sampler"]], target, num_nodes))
        if channels:
            animations.append(Animation(name=str(record.get("name", number)), channels=tuple(channels)))
    return tuple(animations)


def _channel(file: GltfFile, sampler: dict, target: dict, num_nodes: int) -> Channel:
    mode, width = sampler.get("interpolation", "LINEAR"), PATHS[target["path"]]
    if mode not in MODES or not 0 <= target["node"] < num_nodes:
        raise ValueError(f"an animation moves node {target['node']} by {mode!r}")
    times = file.accessor(sampler["input"])[:, 0].astype(np.float64)
    values = file.accessor(sampler["output"]).astype(np.float64)
    parts = 3 if mode == "CUBICSPLINE" else 1
    if len(values) != parts * len(times) or values.shape[1] != width or (np.diff(times) <= 0).any():
        raise ValueError(f"an animation has {values.shape} values at {len(times)} ascending times")
    if not (np.isfinite(times).all() and np.isfinite(values).all()):
        raise ValueError("an animation has values that are not finite")
    return Channel(
        node=target["node"], path=target["path"], mode=mode, times=times, values=values.reshape(-1, parts, width)
    )
