"""The space between visits: known moves, both directions equal, any order of three visits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg, ndimage
from scipy.spatial.transform import Rotation

from ssl2_bids.steps import midpoint
from ssl2_bids.volume import Volume, resample


def rigid(degrees: tuple[float, ...], shift: tuple[float, ...]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler('xyz', degrees, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


MOVE = rigid((4, -6, 3), (5, -3, 7))


@pytest.fixture(scope='module')
def head() -> tuple[Volume, Volume]:
    """A folded brain of 2 mm voxels, centred on 0, and its mask."""
    random = np.random.default_rng(3)
    shape, affine = (80, 96, 76), np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1)
    grid = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3] + affine[:3, 3]
    brain = np.linalg.norm(grid / [52, 66, 50], axis=-1) < 1
    folds = ndimage.gaussian_filter(random.normal(size=shape), 3)
    image = np.where(brain, 100 + 300 * folds / folds.std() / 10, 0)
    return Volume(image.astype(np.float32), affine, 'T1w'), Volume(brain.astype(np.uint8), affine)


def moved(head: tuple[Volume, Volume], matrix: np.ndarray, seed: int) -> tuple[Volume, Volume]:
    """The head where ``matrix`` (points of the head to points of the visit) puts it, noisy."""
    image, mask = head
    back = np.linalg.inv(matrix)
    noise = np.random.default_rng(seed).normal(0, 2, image.shape)
    there = resample(image, image.affine, image.shape, transform=back)
    brain = resample(mask, mask.affine, mask.shape, transform=back)
    return (
        there.with_data((there.data + noise).astype(np.float32)),
        mask.with_data((brain.data >= 0.5).astype(np.uint8)),
    )


def apart(one: np.ndarray, other: np.ndarray, mask: Volume) -> float:
    return midpoint.distance_within(one, other, mask)


def test_logarithm_is_that_of_the_matrix():
    assert np.allclose(linalg.expm(midpoint.log_rigid(MOVE)), MOVE, atol=1e-12)
    assert np.allclose(midpoint.log_rigid(MOVE), linalg.logm(MOVE).real, atol=1e-9)
    tiny = rigid((1e-7, 0, 0), (1, 2, 3))
    assert np.allclose(linalg.expm(midpoint.log_rigid(tiny)), tiny, atol=1e-10)


def test_middle_of_two_is_half_the_way_whatever_the_order():
    forth = midpoint.poses_around({(0, 1): MOVE}, 2)
    back = midpoint.poses_around({(0, 1): np.linalg.inv(MOVE)}, 2)
    assert np.allclose(forth[0], back[1], atol=1e-9)
    assert np.allclose(forth[1], back[0], atol=1e-9)
    assert np.allclose(forth[0], np.linalg.inv(forth[1]), atol=1e-9)
    assert np.allclose(forth[1] @ np.linalg.inv(forth[0]), MOVE, atol=1e-9)


def test_middle_of_three_does_not_depend_on_their_order():
    poses = [np.eye(4), MOVE, rigid((-3, 2, 8), (-4, 1, 2))]

    def found(order: list[int]) -> dict[int, np.ndarray]:
        pairs = {
            (i, j): poses[order[j]] @ np.linalg.inv(poses[order[i]])
            for i in range(3)
            for j in range(i + 1, 3)
        }
        return dict(zip(order, midpoint.poses_around(pairs, 3), strict=True))

    first, other = found([0, 1, 2]), found([2, 0, 1])
    for visit in range(3):
        assert np.allclose(first[visit], other[visit], atol=1e-8)


def test_a_known_move_is_found_and_both_directions_are_equal(head):
    before, after = moved(head, np.eye(4), 1), moved(head, MOVE, 2)
    forth = midpoint.register_visits([before[0], after[0]], [before[1], after[1]])
    back = midpoint.register_visits([after[0], before[0]], [after[1], before[1]])
    way = forth.poses[1] @ np.linalg.inv(forth.poses[0])
    assert apart(way, MOVE, before[1]) < 0.3
    assert forth.asymmetry < 0.3
    assert forth.overlaps[0, 1] > 0.97
    assert apart(forth.poses[0], back.poses[1], before[1]) < 1e-6
    assert apart(forth.poses[1], back.poses[0], after[1]) < 1e-6
    half = midpoint.poses_around({(0, 1): MOVE}, 2)
    assert apart(forth.poses[0], half[0], before[1]) < 0.2


def test_grid_is_cubic_around_the_brains_of_all_visits(head):
    mask = head[1]
    poses = midpoint.poses_around({(0, 1): rigid((0, 0, 0), (40, 0, 0))}, 2)
    grid = midpoint.within_grid([mask, mask], poses)
    assert np.allclose(grid.spacing, 1.0)
    for pose in poses:
        there = resample(mask, grid.affine, grid.shape, transform=pose)
        volume = float((there.data >= 0.5).sum())
        assert volume == pytest.approx(float(mask.data.sum()) * mask.voxel_volume, rel=0.03)
    fine = Volume(mask.data, mask.affine @ np.diag([0.35, 0.35, 0.35, 1]))
    assert midpoint.within_grid([mask, fine], poses).spacing == pytest.approx([0.7] * 3)


def test_brains_of_other_shape_overlap_less(head):
    mask = head[1]
    other = mask.with_data(ndimage.shift(mask.data, (12, 0, 0), order=0))
    assert midpoint.brain_overlap(mask, mask, np.eye(4)) > 0.999
    assert midpoint.brain_overlap(mask, other, np.eye(4)) < 0.85
