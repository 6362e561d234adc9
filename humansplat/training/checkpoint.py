"""Checkpoints: tensors in safetensors files of bounded size, everything else in ``state.json``.

A checkpoint is a folder ``checkpoint-<step>``. It is written under another name and renamed when it is
complete, so whatever has that name can be resumed from, and a run that is killed while it writes
loses nothing but the steps since the checkpoint before.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from humansplat.config import CheckpointConfig
from humansplat.errors import UserError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
MIB = 2**20
PLAIN_FIELDS = ("step", "position", "minutes_used", "metrics", "best", "config")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run at one moment."""

    step: int
    weights: dict[str, Tensor]
    """The module's state by name."""
    averages: dict[str, Tensor]
    """Averaged parameters by name."""
    moments: dict[str, Tensor]
    """The optimizer's state by ``<kind>.<name>``; empty if it was not kept."""
    loss_scale: dict[str, Tensor]
    """Of training in half precision; empty otherwise."""
    position: int | None
    """Samples drawn of a stream of people; ``None`` for other sources."""
    minutes_used: float
    """Training time so far."""
    metrics: dict[str, float]
    """Of the last validation."""
    best: float | None
    """Best value of the deciding metric so far."""
    config: dict[str, object]
    """The run's configuration, for the reader."""


def save_checkpoint(checkpoint: Checkpoint, folder: Path, config: CheckpointConfig) -> Path:
    """Write ``folder/checkpoint-<step>`` and delete the oldest beyond ``config.keep``."""
    tensors = _flatten(checkpoint, config)
    final = folder / f"checkpoint-{checkpoint.step:08d}"
    temporary = final.with_name(f"{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    parts = pack({name: tensor.nbytes for name, tensor in tensors.items()}, config.max_part_mib)
    for number, names in enumerate(parts):
        save_file({name: tensors[name] for name in names}, temporary / f"part-{number:02d}.safetensors")
    plain = {name: getattr(checkpoint, name) for name in PLAIN_FIELDS}
    state = {"parts": len(parts)} | plain
    (temporary / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
    if final.exists():  # the same step again, after a resumed run with nothing left to do
        shutil.rmtree(final)
    temporary.rename(final)
    for old in list_checkpoints(folder)[: -config.keep]:
        shutil.rmtree(old)
    return final


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint folder, or the newest in a run's folder.

    Raises:
        UserError: If there is none, or a part of it is missing.
    """
    if not (path / "state.json").is_file():
        found = list_checkpoints(path) or list_checkpoints(path / "checkpoints")
        if not found:
            raise UserError(f"{path} holds no checkpoint: give the folder of a run or of one of its checkpoints")
        path = found[-1]
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    parts = [path / f"part-{number:02d}.safetensors" for number in range(state["parts"])]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise UserError(f"{path} lacks {missing}: bring all {len(parts)} parts of the checkpoint together")
    groups: dict[str, dict[str, Tensor]] = {"weights": {}, "averages": {}, "moments": {}, "loss_scale": {}}
    for part in parts:
        for key, tensor in load_file(part).items():
            group, _, name = key.partition("/")
            if group in groups:  # older checkpoints hold the states of random generators, too
                groups[group][name] = tensor
    return Checkpoint(**groups, **{name: state.get(name) for name in PLAIN_FIELDS})  # type: ignore[arg-type]


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob("checkpoint-*") if path.suffix != ".tmp")


def check_part_size(module: nn.Module, config: CheckpointConfig) -> None:
    """Refuse, before the first step, parts too small for the module's largest tensor.

    Raises:
        UserError: If a checkpoint could not be split so finely.
    """
    pack(
        {name: tensor.numel() * DTYPES[config.weights].itemsize for name, tensor in module.state_dict().items()},
        config.max_part_mib,
    )


def pack(sizes: dict[str, int], max_part_mib: float | None) -> list[list[str]]:
    """Distribute tensors of the given sizes (bytes) over files, first fit in falling order of size.

    Raises:
        UserError: If one tensor alone is too large for a part.
    """
    if max_part_mib is None:
        return [list(sizes)]
    limit = max_part_mib * MIB - 0.02 * MIB - 128 * len(sizes)  # the names and shapes take room, too
    largest = max(sizes, key=lambda name: sizes[name])
    if sizes[largest] > limit:
        raise UserError(
            f"checkpoint.max_part_mib ({max_part_mib}) is too small for {largest} of {sizes[largest] / MIB:.1f} MiB: "
            "raise it or leave it out"
        )
    parts: list[list[str]] = []
    used: list[int] = []
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        for number, taken in enumerate(used):
            if taken + sizes[name] <= limit:
                parts[number].append(name)
                used[number] += sizes[name]
                break
        else:
            parts.append([name])
            used.append(sizes[name])
    return parts


def _flatten(checkpoint: Checkpoint, config: CheckpointConfig) -> dict[str, Tensor]:
    """All tensors, contiguous, on the CPU, in the precision that is kept."""
    flat: dict[str, Tensor] = {}
    for group, tensors in (("weights", checkpoint.weights), ("averages", checkpoint.averages)):
        for name, tensor in tensors.items():
            kept = tensor.to(DTYPES[config.weights]) if tensor.dtype == torch.float32 else tensor
            flat[f"{group}/{name}"] = kept.cpu().contiguous()
    if config.moments != "none":
        for name, tensor in checkpoint.moments.items():
            # The step count is a scalar that bfloat16 would round from 256 on.
            kept = tensor.to(DTYPES[config.moments]) if tensor.ndim else tensor
            flat[f"moments/{name}"] = kept.cpu().contiguous()
    flat |= {f"loss_scale/{name}": tensor.cpu() for name, tensor in checkpoint.loss_scale.items()}
    # safetensors refuses tensors that share memory, as tied weights do.
    seen: set[int] = set()
    for name, tensor in flat.items():
        if tensor.data_ptr() in seen:
            flat[name] = tensor.clone()
        seen.add(tensor.data_ptr())
    return flat
