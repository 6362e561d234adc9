"""The side of ``humansplat.data.production`` that runs in worker processes.

Apart from it because a process that starts imports this, and what else it needs is the maker's to say.
"""

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Hashable
from multiprocessing.synchronize import Event

Maker = Callable[[object], str | None]
"""Makes the person of an item; returns what was wrong with it, or ``None``."""
MakerLoader = Callable[..., Maker]
"""Makes a maker of its arguments, once a process; importable by name, as ``multiprocessing`` asks."""

_stop: list[Event] = []  # one element, in worker processes only


def start_worker(stop: Event) -> None:
    """Prepare this process; once ``stop`` is set, it begins nobody any more."""
    _stop[:] = [stop]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; a person begun is finished
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Else the processes of a parent that was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def work(load: MakerLoader, arguments: tuple[Hashable, ...], item: Hashable) -> str | None:
    """Make one person by the maker of ``load(*arguments)``."""
    if _stop[0].is_set():  # it was handed out already when the parent was interrupted
        return None
    return _loaded(load, arguments)(item)


@functools.cache
def _loaded(load: MakerLoader, arguments: tuple[Hashable, ...]) -> Maker:
    """The maker of this process; not made in the initializer, whose exceptions never reach the parent."""
    return load(*arguments)
