import numpy as np
import pytest

from segray.training.step.schedule import rate_at

TOTAL = 400


def rates(
    first: int = 0, warmup: float = 0.05, schedule: str = "cosine", total: int = TOTAL
) -> np.ndarray:
    return np.array([rate_at(step, first, total, warmup, schedule) for step in range(first, total)])


def test_the_rate_rises_evenly_to_its_peak_and_falls_to_almost_nothing() -> None:
    curve = rates()
    rises = np.diff(curve[:20])  # the twentieth part of the run
    assert curve[0] == pytest.approx(1 / 20)
    np.testing.assert_allclose(rises, 1 / 20, atol=0.005)
    assert curve.argmax() in (19, 20)
    assert 0.99 < curve.max() <= 1
    assert (np.diff(curve[20:]) < 0).all()
    assert curve[TOTAL // 2] == pytest.approx(0.5)
    assert 0 < curve[-1] < 1e-4


@pytest.mark.parametrize("first", [40, 200])
def test_what_joins_late_is_raised_to_the_same_curve(first: int) -> None:
    from_start, late = rates()[first:], rates(first)
    assert late[0] == pytest.approx(from_start[0] / 20)
    assert (late[:19] < from_start[:19]).all()
    assert (np.diff(late[:20]) > 0).all()
    np.testing.assert_array_equal(late[19:], from_start[19:])


def test_a_constant_rate_is_raised_too_and_then_stays() -> None:
    curve = rates(schedule="constant")
    np.testing.assert_allclose(curve[:20], np.arange(1, 21) / 20)
    assert (curve[19:] == 1).all()


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_without_warm_up_the_first_step_is_made_at_the_peak(schedule: str) -> None:
    assert rates(warmup=0, schedule=schedule)[0] == 1


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.9])
@pytest.mark.parametrize("total", [1, 2, 5])
def test_the_shortest_runs_learn_at_every_step(total: int, warmup: float) -> None:
    curve = rates(warmup=warmup, total=total)
    assert (curve > 0).all()
    assert (curve <= 1).all()
