import pytest

from humansplat.training.schedule import RunClock, lr_factor


def factors(num_steps, warmup_steps):
    return [
        lr_factor(step / num_steps, step, warmup_steps=warmup_steps, final_fraction=0.1) for step in range(num_steps)
    ]


def test_rate_rises_to_its_peak_and_falls_as_a_cosine():
    values = factors(1000, 100)
    assert values[0] == pytest.approx(0.01, rel=1e-3)
    assert max(values) == pytest.approx(0.978, abs=0.01)
    assert values.index(max(values)) == 99
    assert values[500] == pytest.approx(0.1 + 0.9 * 0.5)
    assert values[999] == pytest.approx(0.1, abs=1e-4)
    assert all(a > b for a, b in zip(values[100:], values[101:], strict=False))


def test_no_warm_up_starts_at_the_peak():
    assert lr_factor(0.0, 0, warmup_steps=0, final_fraction=0.1) == 1.0


def test_without_a_time_budget_progress_is_the_steps():
    clock = RunClock(num_steps=50)
    clock.read(minutes_used=1e6)
    assert clock.progress(10) == 0.2
    assert clock.expected_steps(10) == 50
    assert not clock.is_over(49)
    assert clock.is_over(50)


def test_time_budget_ends_the_run_whatever_the_speed():
    """Steps become four times slower half way: progress still arrives at 1 with the clock, and never falls."""
    clock = RunClock(num_steps=10**9, max_minutes=10.0)
    minutes, step, seen = 0.0, 0, []
    while not clock.is_over(step):
        seen.append(clock.progress(step))
        step += 1
        minutes += 0.001 if minutes < 5 else 0.004
        if step % 20 == 0:
            clock.read(minutes)
    assert minutes == pytest.approx(10, abs=0.1)
    assert seen[-1] == pytest.approx(1, abs=0.01)
    assert all(0 <= b - a < 0.01 for a, b in zip(seen, seen[1:], strict=False))


def test_steps_end_a_run_before_its_time():
    clock = RunClock(num_steps=100, max_minutes=1000.0)
    clock.read(minutes_used=1.0)
    assert clock.progress(95) == pytest.approx(0.95)
    assert clock.is_over(100)


def test_expected_steps_follow_the_clock():
    clock = RunClock(num_steps=10**6, max_minutes=10.0)
    assert clock.expected_steps(0) == 10**6
    clock.read(2.5)
    assert clock.expected_steps(300) == 1200


def test_larger_budget_gives_a_resumed_run_its_rate_back():
    clock = RunClock(num_steps=10**6, max_minutes=40.0)
    clock.read(4.0)  # what a checkpoint of a run of 10 minutes said
    assert clock.progress(200) == pytest.approx(0.1)
