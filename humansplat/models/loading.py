"""Loading models that other libraries wrote, strictly: what does not fit is an error that names it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from torch import nn

from humansplat.errors import UserError
from humansplat.misfits import of_another_shape, refuse_misfits

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
        with _no_bar_for_tensors(kind):
            module, told = kind.from_pretrained(  # type: ignore[attr-defined]
                folder, torch_dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder} does not load ({error}); get the weights anew") from error
    refuse_misfits(
        told["missing_keys"],
        [name for name in told["unexpected_keys"] if not name.endswith("position_ids")],
        [of_another_shape(*misfit) for misfit in told["mismatched_keys"]],
        str(folder),
        kind.__name__,
    )
    return module.eval()


@contextlib.contextmanager
def _no_bar_for_tensors(kind: type[nn.Module]) -> Iterator[None]:
    """Transformers counts the tensors that it loads in a bar of its own, across the one that is being shown."""
    if kind.__module__.partition(".")[0] != "transformers":
        yield
        return
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
