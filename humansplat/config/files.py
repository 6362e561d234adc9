"""Dataclasses out of YAML files, and back."""

import types
from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from humansplat.config.training import TrainConfig
from humansplat.errors import UserError

T = TypeVar("T")


def load_config(schema: type[T], path: Path, overrides: Sequence[str] = ()) -> T:
    """Read a YAML file into ``schema``, a frozen dataclass of dataclasses.

    Args:
        schema: The dataclass; its annotations are what the values are checked against.
        path: The file.
        overrides: Changes after the file, each ``dotted.name=value`` with the value in YAML.

    Raises:
        UserError: If the file is no mapping, a key is not in the schema or a value is not of its type.
        FileNotFoundError: If there is no such file.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise UserError(f"{path} must be a mapping of names to values")
    for override in overrides:
        _override(values, override)
    if schema is TrainConfig and values.get("compile") is True:  # of configurations from before there were ways
        values["compile"] = "whole"
    return cast(T, _build(schema, values, where=str(path), prefix=""))


def save_config(config: object, path: Path) -> None:
    """Write the *resolved* configuration, defaults included; :func:`load_config` reads it back."""
    text = yaml.safe_dump(as_plain(config), sort_keys=False)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def as_plain(config: object) -> dict[str, Any]:
    """A configuration as nested dicts, lists, numbers and text, for YAML and JSON."""
    return cast(dict[str, Any], _plain(asdict(cast(Any, config))))


def _override(values: Any, override: str) -> None:
    name, separator, text = override.partition("=")
    if not separator or not name:
        raise UserError(f"--set {override!r} is not of the form name=value, for example optim.lr=1.0e-4")
    *path, last = name.split(".")
    for key in path:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {override!r}: {key!r} is a single value, not a section")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override!r}: {text!r} is not YAML") from error


def _build(schema: type, values: object, where: str, prefix: str) -> object:
    if not isinstance(values, dict):
        raise UserError(f"{where}: {prefix.rstrip('.') or 'the file'} must be a mapping of names to values")
    hints = get_type_hints(schema)
    unknown = sorted(str(key) for key in values.keys() - hints.keys())
    if unknown:
        raise UserError(f"{where}: {schema.__name__} has no {unknown}; it has {sorted(hints)}")
    required = [f.name for f in fields(schema) if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in required if name not in values]
    if missing:
        raise UserError(f"{where}: {schema.__name__} needs a value for {missing}")
    return schema(**{key: _convert(value, hints[key], where, f"{prefix}{key}") for key, value in values.items()})


def _convert(value: object, hint: Any, where: str, name: str) -> object:
    """Return ``value`` as ``hint`` wants it; only text -> Path, whole -> float and list -> tuple are converted."""
    if is_dataclass(hint):
        return _build(cast(type, hint), value, where, f"{name}.")
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = [argument for argument in arguments if argument is not type(None)]
        return _convert(value, hint, where, name)
    if origin is tuple:
        if not isinstance(value, list):
            raise UserError(f"{where}: {name} = {value!r} is not a list")
        return tuple(_convert(item, arguments[0], where, f"{name}[{i}]") for i, item in enumerate(value))
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) is int:
        return float(value)
    if origin is Literal:
        if value is False and "no" in arguments:  # YAML reads a plain no as false
            return "no"
        if value not in arguments or isinstance(value, bool) != isinstance(arguments[0], bool):
            raise UserError(f"{where}: {name} = {value!r} is not one of {list(arguments)}")
    elif type(value) is not hint:
        remedy = "; YAML reads 1e-4 as text, write 1.0e-4" if hint is float and isinstance(value, str) else ""
        raise UserError(f"{where}: {name} = {value!r} is not {hint.__name__}{remedy}")
    return value


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
