"""Who may be at work in a data set's folder at the same time."""

from pathlib import Path

import pytest

from humansplat.data import holding as module
from humansplat.data.holding import holding
from humansplat.data.production import refuse_beside_shards
from humansplat.errors import UserError

FIRST, SECOND = "manifest.1-of-2.jsonl", "manifest.2-of-2.jsonl"


def test_whole_runs_are_alone_and_each_shard_is_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "SHARDS_WAIT", 0.0)
    refused = pytest.raises(UserError, match=f"{tmp_path.name} and writes its {module.MANIFEST}")
    with holding(tmp_path):
        with refused, holding(tmp_path):
            pass
        with refused, holding(tmp_path, FIRST):
            pass
        refuse_beside_shards(tmp_path)  # the shard has left nothing
    with holding(tmp_path, FIRST), holding(tmp_path, SECOND):
        with pytest.raises(UserError, match=FIRST), holding(tmp_path, FIRST):
            pass
        with holding(tmp_path), pytest.raises(UserError, match=FIRST):
            refuse_beside_shards(tmp_path)
    with holding(tmp_path, FIRST):
        pass
