"""Figures of rendered views, and their means."""

import math

from jaxtyping import Float
from torch import Tensor

from humansplat.evaluation.subjects import CLOSEUP, Subject
from humansplat.metrics.scores import METRICS
from humansplat.metrics.scores import score_views as score_pictures
from humansplat.metrics.views import SIDES
from humansplat.models.autoencoder import on_white

DIGITS = 4


def score_views(subject: Subject, renders: Float[Tensor, "t 4 s s"]) -> list[dict[str, float]]:
    """All metrics of each target; views that do not show the head have no ``psnr_head``."""
    targets = subject.targets
    found = score_pictures(renders[:, :3], renders[:, 3], on_white(targets), targets[:, 3], subject.head_boxes)
    columns = {name: values.tolist() for name, values in found.items()}
    rows = [{name: values[view] for name, values in columns.items()} for view in range(len(targets))]
    return [{name: value for name, value in row.items() if not math.isnan(value)} for row in rows]


def summary(scores: dict[str, list[dict[str, float]]], sides: dict[str, tuple[str, ...]]) -> dict[str, object]:
    """Means over all novel views, over those of each side, close-ups and of each person; rounded."""
    views = [(side, score) for name in scores for side, score in zip(sides[name], scores[name], strict=True)]
    groups = {"mean": [score for side, score in views if side != CLOSEUP]}
    groups |= {side: [score for which, score in views if which == side] for side in (*SIDES, CLOSEUP)}
    if not groups[CLOSEUP]:
        del groups[CLOSEUP]
    means = {group: _means(members) for group, members in groups.items()}
    return {
        **means,
        "num_views": {group: len(members) for group, members in groups.items()},
        "num_people": len(scores),
        "people": {name: _means(of_whole(members, sides[name])) for name, members in scores.items()},
    }


def of_whole(scores: list[dict[str, float]], sides: tuple[str, ...]) -> list[dict[str, float]]:
    """The views that are no close-ups."""
    return [score for score, side in zip(scores, sides, strict=True) if side != CLOSEUP]


def _means(scores: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(mean(scores, name), DIGITS) for name in METRICS if any(name in score for score in scores)}


def mean(scores: list[dict[str, float]], name: str) -> float:
    """Of one figure over the views that have it."""
    values = [score[name] for score in scores if name in score]
    return math.fsum(values) / len(values)
