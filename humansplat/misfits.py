"""Tensors from files against those that a module has: one that is missing, unknown or of another shape is named."""

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from humansplat.errors import UserError

MOST_NAMES = 8
"""Of each kind of misfit; the others are counted."""


def check_tensors(
    given: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], source: str, kind: str, remedy: str = ""
) -> None:
    """Hold tensors against names and shapes.

    Args:
        given: Tensors by name.
        shapes: Those wanted.
        source: What errors call the tensors.
        kind: What errors call that which they are for.
        remedy: Ends the message.

    Raises:
        UserError: If any is missing, unknown or of another shape, with their names.
    """
    odd = [
        of_another_shape(name, given[name].shape, shape)
        for name, shape in shapes.items()
        if name in given and given[name].shape != shape
    ]
    refuse_misfits(shapes.keys() - given.keys(), given.keys() - shapes.keys(), odd, source, kind, remedy)


def of_another_shape(name: str, found: Iterable[int], wanted: Iterable[int]) -> str:
    """A tensor in the list of odd ones."""
    return f"{name} {tuple(found)} instead of {tuple(wanted)}"


def refuse_misfits(
    missing: Collection[str],
    unexpected: Collection[str],
    odd: Collection[str],
    source: str,
    kind: str,
    remedy: str = "",
) -> None:
    """Refuse what is not in order with names, if there is any; see :func:`check_tensors`."""
    misfits = {"missing": missing, "unexpected": unexpected, "of another shape": odd}
    texts = [f"{len(names)} {label}: {_shortened(names)}" for label, names in misfits.items() if names]
    if remedy:
        texts.append(remedy)
    if missing or unexpected or odd:
        raise UserError(f"{source} does not fit {kind}: {'; '.join(texts)}")


def _shortened(names: Collection[str]) -> str:
    rest = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(sorted(names)[:MOST_NAMES]) + rest
