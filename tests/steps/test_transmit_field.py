"""B1+ maps: units, holes, and SA2RAGE against the field that made its images."""

from __future__ import annotations

import numpy as np
import pytest

from ssl2_bids.errors import DataError
from ssl2_bids.simulation.anatomy.tissues import Tissue
from ssl2_bids.simulation.scanner.sequences import signals
from ssl2_bids.steps import transmit_field
from ssl2_bids.volume import Volume

SHARED = {'RepetitionTimePreparation': 2.4, 'RepetitionTimeExcitation': 0.0029}
FIRST = SHARED | {'InversionTime': 0.058, 'FlipAngle': 4, 'NumberShots': [10, 22]}
SECOND = SHARED | {'InversionTime': 1.8, 'FlipAngle': 11, 'NumberShots': [10, 22]}


def volume(data: np.ndarray, spacing: float = 1.0) -> Volume:
    return Volume(np.asarray(data, np.float32), np.diag([spacing, spacing, spacing, 1.0]))


@pytest.mark.parametrize('factor', [1.0, 100.0])
def test_percent_and_fraction_are_recognised(factor):
    field = np.linspace(0.5, 1.4, 1000).reshape(10, 10, 10)
    found = transmit_field.as_fraction(volume(field * factor))
    assert found.data == pytest.approx(field, rel=1e-5)


def test_a_map_of_other_values_is_refused():
    with pytest.raises(DataError, match='outside 0.2 to 2 of nominal'):
        transmit_field.as_fraction(volume(np.linspace(400, 3000, 1000).reshape(10, 10, 10)))
    with pytest.raises(DataError, match='no value above 0'):
        transmit_field.as_fraction(volume(np.zeros((10, 10, 10))))


@pytest.mark.parametrize('t1', [1.15, 1.5, 1.85])
def test_the_field_of_sa2rage_is_found_on_both_sides_of_the_sign_change(t1):
    protocol = transmit_field.sa2rage_protocol([FIRST, SECOND])
    assert protocol is not None
    field = np.linspace(0.4, 1.5, 1000).reshape(10, 10, 10)
    tissue = Tissue(t1=t1, t2=1.0, t2star=np.inf, density=1.0, transfer=1.0)
    one, two = signals(tissue, protocol, field)
    assert (one < 0).any()
    assert (one > 0).any()
    images = [volume(1e4 * np.abs(one)), volume(1e4 * np.abs(two))]
    coil = np.exp(1j * np.random.default_rng(0).uniform(-np.pi, np.pi, field.shape))
    phases = [volume(np.angle(image * coil)) for image in (one, two)]
    found = transmit_field.from_sa2rage(images, phases, protocol)
    assert found.data == pytest.approx(field, abs=0.02)


def test_without_its_settings_there_is_no_sa2rage():
    bare = {k: v for k, v in FIRST.items() if k != 'FlipAngle'}
    assert transmit_field.sa2rage_protocol([bare, SECOND]) is None


@pytest.mark.parametrize(
    ('shift', 'text'),
    [
        (0.0, None),
        (12.0, None),
        (40.0, 'the B1+ map covers 83% of the head'),
        (-40.0, 'the B1+ map covers'),
        (90.0, DataError),
        (300.0, DataError),
    ],
)
def test_a_map_of_another_position_is_refused_and_a_part_is_a_warning(shift, text):
    head = np.zeros((40, 40, 40), bool)
    head[5:35, 5:35, 5:35] = True
    grid = volume(head, 4.0)
    field = volume(np.ones((20, 20, 20)), 8.0)
    field.affine[0, 3] = shift
    if text is DataError:
        with pytest.raises(DataError, match=r'covers \d+% of the head'):
            transmit_field.check_coverage(field, grid, head)
    else:
        warnings = transmit_field.check_coverage(field, grid, head)
        assert [w[: len(text or '')] for w in warnings] == ([text] if text else [])


@pytest.mark.parametrize(('empty', 'text'), [(1, None), (5, 'covers'), (14, DataError)])
def test_zeros_of_a_map_do_not_cover_the_head(empty, text):
    head = np.zeros((40, 40, 40), bool)
    head[:38, :38, :38] = True
    values = np.ones((20, 20, 20))
    values[:empty] = 0
    field, grid = volume(values, 8.0), volume(head, 4.0)
    if text is DataError:
        with pytest.raises(DataError, match='covers'):
            transmit_field.check_coverage(field, grid, head)
    else:
        assert len(transmit_field.check_coverage(field, grid, head)) == bool(text)


def test_holes_and_what_lies_outside_take_the_nearest_value():
    field = np.full((12, 12, 12), 0.8, np.float32)
    field[6:] = 1.2
    field[3, 5, 5] = 0
    grid = Volume(np.zeros((40, 40, 40), np.uint8), np.diag([2.0, 2.0, 2.0, 1.0]))
    found = transmit_field.on_grid(volume(field, 4.0), grid)
    assert found.shape == (40, 40, 40)
    assert found[6, 10, 10] == pytest.approx(0.8, abs=0.02)
    assert found[39, 39, 39] == pytest.approx(1.2, abs=0.02)
    assert found.min() >= 0.79
