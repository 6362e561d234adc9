"""Processes on a machine's GPUs, several at a time, until all are done or time is up."""

import json
import os
import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
POLL_SECONDS, TELL_SECONDS, PATIENCE_SECONDS = 0.5, 30.0, 90.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """A process, what it leaves when it is done, and what another must have left before."""

    name: str
    command: tuple[str, ...]
    done: Path
    after: Path | None = None


class Queue:
    """Runs jobs on slots until all are done, failed, or time is up."""

    def __init__(self, jobs: Sequence[Job], slots: Sequence[str], out: Path, threads: int, deadline: float) -> None:
        """Take the jobs in their order.

        Args:
            jobs: All of them; those that are done are passed over.
            slots: What each sees as ``CUDA_VISIBLE_DEVICES``.
            out: For the logs.
            threads: Of each process.
            deadline: By ``time.monotonic``.
        """
        self.jobs, self.out, self.threads, self.deadline = list(jobs), out, threads, deadline
        self.waiting = [job for job in jobs if not job.done.is_file()]
        self.free = list(slots)
        self.running: dict[str, tuple[Job, subprocess.Popen[bytes], str]] = {}
        self.failed: dict[str, str] = {}

    def run(self) -> bool:
        """True if nothing was cut short by the clock."""
        told = time.monotonic()
        try:
            while self.running or any(_is_ready(job) for job in self.waiting):
                self._start_some()
                self._collect()
                if time.monotonic() > self.deadline:
                    return False
                if time.monotonic() - told > TELL_SECONDS:
                    told = time.monotonic()
                    print(self._state(), flush=True)
                time.sleep(POLL_SECONDS)
        finally:
            self._stop()
        return True

    def _start_some(self) -> None:
        for job in [job for job in self.waiting if _is_ready(job)][: len(self.free)]:
            # The least loaded GPU: slots come back in any order.
            slot = min(self.free, key=lambda gpu: sum(used == gpu for *_, used in self.running.values()))
            self.free.remove(slot)
            self.waiting.remove(job)
            command = list(job.command)
            if any((self.out / job.name / "checkpoints").glob("checkpoint-*")):
                command.append("--resume")
            environment = os.environ | {"CUDA_VISIBLE_DEVICES": slot, "OMP_NUM_THREADS": str(self.threads)}
            with (self.out / f"{job.name}.log").open("ab") as log:
                log.write(f"CUDA_VISIBLE_DEVICES={slot} {shlex.join(command)}\n".encode())
                log.flush()
                process = subprocess.Popen(
                    command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
                )
            self.running[job.name] = (job, process, slot)
            print(f"{job.name}: started{f' on GPU {slot}' if slot else ''}", flush=True)

    def _collect(self) -> None:
        for name, (job, process, slot) in list(self.running.items()):
            if process.poll() is None:
                continue
            del self.running[name]
            self.free.append(slot)
            if job.done.is_file():
                print(f"{name}: done", flush=True)
                continue
            lines = (self.out / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
            self.failed[name] = lines[-1] if lines else ""
            print(f"{name}: ended with {process.returncode}:", *lines[-12:], sep="\n  ", flush=True)

    def _stop(self) -> None:
        """Ask what runs to write a checkpoint and end; kill what does not."""
        for _, process, _ in self.running.values():
            process.terminate()
        patience = time.monotonic() + PATIENCE_SECONDS
        for name, (_, process, _) in self.running.items():
            try:
                process.wait(max(0.0, patience - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            print(f"{name}: stopped", flush=True)
        self.running.clear()

    def _state(self) -> str:
        done = sum(job.done.is_file() for job in self.jobs)
        now = ", ".join(f"{name} {steps_done(self.out / name)}" for name in sorted(self.running))
        return f"{done} of {len(self.jobs)} done, {len(self.waiting)} waiting; running: {now}"


def _is_ready(job: Job) -> bool:
    return job.after is None or job.after.is_file()


def steps_done(run: Path) -> int:
    """The last step in a run's log."""
    log = run / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    try:
        return int(json.loads(lines[-1])["step"]) if lines else 0
    except json.JSONDecodeError:  # half written
        return 0
