"""Time the default body on one core: loading, posing, gradients.

python benchmarks/body.py [--repeats 50]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from call_times import call_times
from torch import Tensor

from humansplat.body.anny import AnnyBody
from humansplat.body.landmarks import landmark_map


def milliseconds(call: Callable[[], object], repeats: int) -> str:
    """Least and median time of a call."""
    times = call_times(call, repeats, "cpu", warmups=5)
    return f"{min(times):7.2f} {statistics.median(times):7.2f}"


def random_people(body: AnnyBody, num: int) -> dict[str, Tensor]:
    """Parameters of random people in random poses."""
    rng = torch.Generator().manual_seed(0)
    neutral = body.neutral(num)
    return {
        "phenotypes": torch.rand(neutral["phenotypes"].shape, generator=rng),
        "rotations": 0.3 * torch.randn(neutral["rotations"].shape, generator=rng),
        "translation": neutral["translation"],
    }


def gradient(body: AnnyBody, people: dict[str, Tensor]) -> None:
    """Pose and pull a gradient back to all parameters."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in people.items()}
    body.pose(leaves).vertices.square().sum().backward()


def main(repeats: int) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    body = AnnyBody.load()
    print(f"load {time.perf_counter() - start:.2f} s\n{'one core, milliseconds':40}    min  median")
    landmarks = body.subset(landmark_map(body).vertex_ids)
    for num in (1, 8):
        people = random_people(body, num)
        with torch.no_grad():
            print(f"{f'{num} bodies, 13718 vertices':40}", milliseconds(lambda p=people: body.pose(p), repeats))
            print(f"{f'{num} bodies, 33 landmarks':40}", milliseconds(lambda p=people: landmarks.pose(p), repeats))
            print(f"{f'{num} bodies, joints':40}", milliseconds(lambda p=people: body.joints_only(**p), repeats))
        print(f"{f'{num} bodies and gradients':40}", milliseconds(lambda p=people: gradient(body, p), repeats))
        print(
            f"{f'{num} times 33 landmarks and gradients':40}",
            milliseconds(lambda p=people: gradient(landmarks, p), repeats),
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Time the default body on one core.")
    parser.add_argument("--repeats", type=int, default=50)
    main(parser.parse_args().repeats)
