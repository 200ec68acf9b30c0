import pytest

from ssl2_bids.training.schedule import average_weight, rate


def test_the_rate_rises_then_falls_as_a_cosine():
    rates = [rate(step, steps=100, warm_up=0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1)
    assert rates[55] == pytest.approx(0.5, abs=0.02)
    assert rates[100] == pytest.approx(0, abs=1e-12)
    assert all(a <= b for a, b in zip(rates[:9], rates[1:10], strict=True))
    assert all(a >= b for a, b in zip(rates[10:-1], rates[11:], strict=True))


def test_a_floor_is_left_at_the_end_and_after_it():
    assert rate(100, steps=100, warm_up=0, floor=0.1) == pytest.approx(0.1)
    assert rate(500, steps=100, warm_up=0, floor=0.1) == pytest.approx(0.1)


def test_an_average_forgets_its_random_start():
    assert average_weight(0, 0.999) == 0
    assert average_weight(9, 0.999) == pytest.approx(0.9)
    assert average_weight(10_000, 0.999) == 0.999
