"""Loading tensors strictly: one that is missing, unknown or of another shape is an error that names it."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from humansplat.errors import UserError

M = TypeVar("M", bound=nn.Module)


def load_part(kind: type[M], folder: Path, dtype: torch.dtype = torch.float32) -> M:
    """Load a model that ``save_pretrained`` of diffusers or transformers wrote, strictly, in ``eval`` mode.

    Raises:
        UserError: If files are missing, or a tensor is missing, unknown or of another shape; it is named.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no config.json; give a folder of {kind.__name__}'s weights")
    try:
        # Other shapes are let through here, and refused below with their names.
        module, told = kind.from_pretrained(  # type: ignore[attr-defined]
            folder, torch_dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder} does not load ({error}); get the weights anew") from error
    _refuse(
        {
            "missing": told["missing_keys"],
            "unexpected": [name for name in told["unexpected_keys"] if not name.endswith("position_ids")],
            "of another shape": [name for name, *_ in told["mismatched_keys"]],
        },
        str(folder),
        kind.__name__,
    )
    return module.eval()


def check_tensors(given: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], source: str, kind: str) -> None:
    """Hold tensors against the names and shapes that a class ``kind`` has; ``source`` is what errors call them.

    Raises:
        UserError: If any is missing, unknown or of another shape; all are named.
    """
    _refuse(
        {
            "missing": shapes.keys() - given.keys(),
            "unexpected": given.keys() - shapes.keys(),
            "of another shape": [
                f"{name} {tuple(given[name].shape)} instead of {tuple(shapes[name])}"
                for name in shapes.keys() & given.keys()
                if given[name].shape != shapes[name]
            ],
        },
        source,
        kind,
    )


def _refuse(problems: Mapping[str, Collection[str]], source: str, kind: str) -> None:
    told = [f"{label}: {', '.join(sorted(names))}" for label, names in problems.items() if names]
    if told:
        raise UserError(f"{source} does not fit {kind}; {'; '.join(told)}")
