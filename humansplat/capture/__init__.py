"""Photo -> person mask, landmarks, canonical crop. The names load at first use."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from humansplat.capture.capture import Capture as Capture
    from humansplat.capture.capture import capture_person as capture_person
    from humansplat.capture.graph import ensure_graph as ensure_graph
    from humansplat.capture.photo import load_photo as load_photo

_MODULES = {
    "Capture": "humansplat.capture.capture",
    "capture_person": "humansplat.capture.capture",
    "ensure_graph": "humansplat.capture.graph",
    "load_photo": "humansplat.capture.photo",
}

__all__ = ["Capture", "capture_person", "ensure_graph", "load_photo"]


def __getattr__(name: str) -> object:
    """Load a public name at first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'humansplat.capture' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
