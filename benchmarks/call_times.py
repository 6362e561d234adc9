"""What a call takes: its times, alone or replayed from a CUDA graph, and the memory that it adds."""

import itertools
import time
from collections.abc import Callable

import torch


def call_times(call: Callable[[], object], repeats: int, device: torch.device | str, warmups: int) -> list[float]:
    """Milliseconds of each of several calls after some that warm up; on a GPU by events, one call after the other."""
    for _ in range(warmups):
        call()
    if torch.device(device).type != "cuda":
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            call()
            times.append(1000 * (time.perf_counter() - start))
        return times
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    torch.cuda.synchronize(device)
    for mark in marks[:-1]:
        mark.record()
        call()
    marks[-1].record()
    torch.cuda.synchronize(device)
    return [begin.elapsed_time(end) for begin, end in itertools.pairwise(marks)]


def captured(call: Callable[[], object], device: torch.device | str) -> Callable[[], object]:
    """The call as a CUDA graph; on the CPU the call itself."""
    if torch.device(device).type != "cuda":
        return call
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = call()  # its memory is the graph's

    def replay() -> object:
        graph.replay()
        return kept

    return replay


def added_bytes(call: Callable[[], object], device: torch.device | str) -> float:
    """What a call adds to the allocated memory at its peak; not a number on the CPU."""
    if torch.device(device).type != "cuda":
        return float("nan")
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
