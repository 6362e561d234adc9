"""What cannot be compiled in parts; what can is tested with the reconstructor."""

import pytest
from torch import nn

from humansplat.errors import UserError
from humansplat.training.compilation import compile_network


def test_parts_that_a_network_lacks_are_refused():
    with pytest.raises(UserError, match="compile is blocks, and Linear has none"):
        compile_network(nn.Linear(1, 1), "blocks")
    listed = nn.Sequential(nn.ModuleList([nn.Linear(1, 1)]))
    with pytest.raises(UserError, match="compile is stages, and Sequential has none"):
        compile_network(listed, "stages")
