"""Named values of one file: aliases, nesting, stacks of people."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.errors import UserError
from humansplat.io.body_files.values import Value

# Dictionaries inside dictionaries that hold a person's parameters.
_WRAPPERS = (
    "pred_smpl_params", "smpl_params", "smplx_params", "smplh_params", "smpl_param", "smplx_param",
    "pred_smplx_params", "body_params", "params", "annots", "people", "persons", "results", "outputs",
)  # fmt: skip


@dataclass(frozen=True)
class Fields:
    """The values of a person, or of people stacked along leading axes."""

    values: dict[str, Value]
    path: Path

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def has(self, *names: str) -> bool:
        """Whether all of these are there."""
        return all(name in self for name in names)

    def name_of(self, *aliases: str) -> str | None:
        """The first alias that is there."""
        return next((name for name in aliases if name in self), None)

    def array(self, *aliases: str) -> np.ndarray | None:
        """The numbers under the first alias that is there.

        Raises:
            UserError: If they are no numbers.
        """
        name = self.name_of(*aliases)
        return None if name is None else as_numbers(self.values[name], f"{self.path}: {name}")

    def rows(self, width: int | Sequence[int] | None, *aliases: str) -> Float[Tensor, "n w"] | None:
        """Vectors, one a person.

        Args:
            width: Numbers a person, which numbers may be, or ``None`` for any.
            aliases: Names; the first that is there is taken.

        Raises:
            UserError: If the last axis has another length.
        """
        array = self.array(*aliases)
        if array is None:
            return None
        widths = [width] if isinstance(width, int) else width
        if array.ndim == 0 or (widths is not None and array.shape[-1] not in widths):
            needed = " or ".join(str(count) for count in widths or ())
            raise UserError(
                f"{self.path}: {self.name_of(*aliases)} has the shape {array.shape}; "
                f"needed are {needed or 'some'} numbers a person"
            )
        return torch.from_numpy(array.reshape(-1, array.shape[-1]).astype(np.float32))

    def row(self, person: int, width: int | Sequence[int] | None, *aliases: str) -> Float[Tensor, " w"] | None:
        """One person's vector; a single row is everybody's."""
        rows = self.rows(width, *aliases)
        return None if rows is None else rows[min(person, len(rows) - 1)]

    def number(self, person: int, *aliases: str) -> float | None:
        """One number of a person; a single one is everybody's."""
        array = self.array(*aliases)
        if array is None or array.size == 0:
            return None
        flat = array.reshape(-1)
        return float(flat[min(person, len(flat) - 1)])

    def text(self, *aliases: str) -> str | None:
        """A text, or the first of a list of texts."""
        name = self.name_of(*aliases)
        value = None if name is None else self.values[name]
        if isinstance(value, list) and value:
            value = value[0]
        return value if isinstance(value, str) else None


def as_numbers(value: Value, what: str) -> np.ndarray:
    """An array of doubles; ragged lists (people of several pictures) are joined along the first axis.

    Raises:
        UserError: If it holds something else.
    """
    try:
        if isinstance(value, list) and value and all(isinstance(item, np.ndarray) for item in value):
            arrays = [np.asarray(item, dtype=np.float64) for item in value]
            if len({item.shape for item in arrays}) > 1:
                return np.concatenate(arrays)
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} holds no array of numbers; give numbers") from error


def people_of(value: Value, path: Path) -> list[Fields]:
    """One set of fields for each entry of a list of people, else a single one (which may stack people).

    Raises:
        UserError: If the file holds no names.
    """
    if isinstance(value, dict):
        for name in _WRAPPERS:
            inner = value.get(name)
            if isinstance(inner, dict):
                merged = {key: item for key, item in value.items() if key != name}
                return people_of({**merged, **inner}, path)
            if isinstance(inner, list) and inner and all(isinstance(item, dict) for item in inner):
                shared = {key: item for key, item in value.items() if key != name}
                return [people_of({**shared, **_named(item)}, path)[0] for item in inner]
        return [Fields(value, path)]
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return [people_of(item, path)[0] for item in value]
    if isinstance(value, list) and len(value) == 1:
        return people_of(value[0], path)
    if isinstance(value, list) and not value:
        raise UserError(f"{path} holds an empty list of people; give a file with a person")
    raise UserError(
        f"{path} holds {_kind(value)} and no names; needed are named parameters, or a mesh as .obj or .ply"
    )


def _named(value: Value) -> dict[str, Value]:
    return value if isinstance(value, dict) else {}


def _kind(value: Value) -> str:
    return f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"


def choose(count: int, person: int | None, path: Path) -> int:
    """The index of the person that is meant.

    Raises:
        UserError: If there are several and none is named, or there is no such person.
    """
    if person is None:
        if count > 1:
            raise UserError(f"{path} holds {count} people or frames; choose one with --person 0 to {count - 1}")
        return 0
    if not 0 <= person < count:
        last = f"0 to {count - 1}" if count > 1 else "0"
        raise UserError(f"{path} holds no person {person}; choose --person {last}")
    return person
