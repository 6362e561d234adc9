"""Which parts of a network `torch.compile` takes, so that a run waits seconds for it or minutes."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from humansplat.config import Compiled
from humansplat.errors import UserError
from humansplat.training.graphs import replay_training


def compile_network(module: nn.Module, what: Compiled, *, backend: str = "inductor", fullgraph: bool = False) -> None:
    """Have a module's later calls run compiled code, in place.

    Args:
        module: The network, already on its device.
        what: ``no`` leaves it as it is. ``blocks``: each member of its lists of modules (``nn.ModuleList``) is
            compiled by itself, for the sizes that it meets; those of one kind and size share the code, so a dozen
            take no longer than one. ``stages``: also what is between them, of networks that have
            ``compile_stages``. ``whole``: one graph of all, with every block written out. ``graphs``: nothing is
            compiled, training calls replay CUDA graphs (:func:`humansplat.training.graphs.replay_training`).
        backend: Of ``torch.compile``.
        fullgraph: Whether an operation that the compiler does not take is an error instead of a break.

    Raises:
        UserError: If the network has no such parts, or cannot be recorded.
    """
    if what == "no":
        return
    if what == "graphs":
        replay_training(module)
        return
    if what == "whole":
        module.compile(backend=backend, fullgraph=fullgraph)
        return
    blocks = [block for part in module.children() if isinstance(part, nn.ModuleList) for block in part]
    compile_stages = getattr(module, "compile_stages", None)
    if not blocks or (what == "stages" and compile_stages is None):
        raise UserError(f"compile is {what}, and {type(module).__name__} has none: set it to whole or no")
    if what == "stages":
        compile_stages(dynamic=False, backend=backend, fullgraph=fullgraph)
    for block in blocks:
        block.compile(dynamic=False, backend=backend, fullgraph=fullgraph)


@contextlib.contextmanager
def without_compiled_code(what: Compiled) -> Iterator[None]:
    """Within the block compiled modules run as written: validation's other sizes would be compiled for little use.

    Args:
        what: Was compiled.
    """
    if what in ("no", "graphs"):  # torch's compiler takes seconds to import; graphs are of training calls alone
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
