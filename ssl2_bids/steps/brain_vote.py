"""One brain mask of a session from those of all its contrasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import ndimage

from ssl2_bids.steps import brain_check, expected_brain
from ssl2_bids.steps.brain_check import Flag
from ssl2_bids.steps.expected_brain import ExpectedBrain
from ssl2_bids.steps.template import overlap
from ssl2_bids.volume import Volume, resample
from ssl2_bids.voxel_grid import Box, bounding_box, shift_affine

MARGIN = 15.0  # mm around the template's brain
SMOOTH = 1.0  # mm; so that the surface of two votes lies in the middle between theirs


@dataclass(frozen=True)
class BrainVote:
    """The brain mask of a session.

    Attributes
    ----------
    mask : uint8 on the grid of the reference.
    flags : of the joint mask and of the reference image.
    without_vote : the contrasts whose mask was left out, with the reason.
    agreement : Dice of each contrast's mask with the joint one, where it has a view.
    expected : the template's brain in the reference, found without any mask.
    coverage : share of the template's brain in the field of view of each contrast; empty where
        the template does not fit the reference.
    """

    mask: Volume
    flags: list[Flag]
    without_vote: dict[str, str]
    agreement: dict[str, float]
    expected: ExpectedBrain
    coverage: dict[str, float]


def vote(
    reference: Volume,
    masks: Mapping[str, Volume],
    transforms: Mapping[str, np.ndarray],
    *,
    expected: ExpectedBrain | None = None,
    seed: int = 0,
    given: str = '',
) -> BrainVote:
    """Join the brain masks of the contrasts of one session, and check the result.

    The surface is the median of the contrasts': a voxel is brain where the median of the masks,
    smoothed by 1 mm, is at least 0.5. A contrast has no vote beyond its field of view, and none at
    all if its mask is flagged or far from the others while another one is sound.

    Parameters
    ----------
    reference : the reference image, on its grid.
    masks : of each contrast on its own grid, above 0 is brain; the reference's first.
    transforms : (4, 4), RAS+ mm of the reference to RAS+ mm of each other contrast.
    expected : the template's brain in the reference; None: it is found here.
    seed : see :func:`ssl2_bids.steps.expected_brain.expect_brain`.
    given : contrast whose mask is the user's: it alone counts.

    Raises
    ------
    DataError : the reference's mask is empty, or its image is constant within it.
    """
    first = next(iter(masks))
    if expected is None:
        expected = expected_brain.expect_brain(reference, masks[first], seed=seed)
    ways = {contrast: transforms.get(contrast, np.eye(4)) for contrast in masks}
    part = _around_brain(reference, masks[first], expected)
    if given and given != first:
        part = _with_mask(part, reference, masks[given], ways[given])
    votes = {
        c: _vote_of(mask, part, ways[c], is_reference=c == first)
        for c, mask in masks.items()
        if len(masks) > 1
    }
    spacing = part.grid.spacing
    left_out = {} if given else _unsound(votes, masks, ways, expected)
    voters = [given] if given else [c for c in masks if c not in left_out]
    middle = np.empty(0, bool)
    if voters[1:]:
        middle = _median_surface([votes[c] for c in voters], spacing)
        if far := _far({c: votes[c] for c in voters}, middle):
            left_out |= far
            voters = [c for c in voters if c not in far]
            middle = _median_surface([votes[c] for c in voters], spacing)
    joint = np.zeros(reference.shape, np.uint8)
    if voters == [first]:
        joint[:] = masks[first].data > 0
    elif voters[1:]:
        joint[part.box] = _solid(middle)
    else:
        joint[part.box] = votes[voters[0]].share >= 0.5
    mask = Volume(joint, reference.affine)
    agreement = {c: votes[c].agreement(joint[part.box] > 0) for c in votes}
    flags = [*brain_check.check_mask(mask, expected), *brain_check.check_image(expected)]
    lowest = min(voters, key=lambda contrast: agreement.get(contrast, 1.0))
    if voters[1:] and agreement[lowest] < brain_check.MIN_AGREEMENT:
        text = (
            'the brain masks of the contrasts disagree: '
            f'Dice of {lowest} and the joint mask {agreement[lowest]:.2f}'
        )
        limit = brain_check.MIN_AGREEMENT
        flags.append(Flag('disagreement', agreement[lowest], limit, text))
    coverage = {
        c: 1 - expected.moved(ways[c], masks[c]).missing for c in masks if expected.is_reliable
    }
    return BrainVote(mask, flags, left_out, agreement, expected, coverage)


@dataclass(frozen=True)
class _Part:
    """The part of the reference grid in which masks are joined: where, and its own grid."""

    box: Box
    grid: Volume


@dataclass(frozen=True)
class _Vote:
    """A mask on the part: share of each voxel, (I, J, K), and where its image has data, bool."""

    share: np.ndarray
    view: np.ndarray

    def agreement(self, joint: np.ndarray) -> float:
        """Dice with another mask, in the field of view."""
        return overlap((self.share >= 0.5) & self.view, joint & self.view)


def _around_brain(reference: Volume, mask: Volume, expected: ExpectedBrain) -> _Part:
    """The box that holds the reference's mask and the template's brain, with a margin."""
    model = expected_brain.template_parts().grid
    inside = bounding_box(model.data)
    corners = np.array([[*place, 1.0] for place in product(*[(s.start, s.stop) for s in inside])])
    there = np.linalg.inv(reference.affine) @ expected.matrix @ model.affine @ corners.T
    margin = MARGIN / reference.spacing
    own = bounding_box(mask.data)
    low = np.minimum(there[:3].min(axis=1) - margin, [s.start for s in own])
    high = np.maximum(there[:3].max(axis=1) + margin, [s.stop for s in own])
    return _part(reference, low, high)


def _with_mask(part: _Part, reference: Volume, mask: Volume, way: np.ndarray) -> _Part:
    """The part, made larger where a mask of another image reaches beyond it."""
    inside = bounding_box(mask.data, margin=1)
    corners = np.array([[*place, 1.0] for place in product(*[(s.start, s.stop) for s in inside])])
    there = np.linalg.inv(way @ reference.affine) @ mask.affine @ corners.T
    low = np.minimum(there[:3].min(axis=1), [s.start for s in part.box])
    high = np.maximum(there[:3].max(axis=1) + 1, [s.stop for s in part.box])
    return _part(reference, low, high)


def _part(reference: Volume, low: np.ndarray, high: np.ndarray) -> _Part:
    """The part of a grid between two places, in voxels."""
    start = np.clip(np.floor(low), 0, reference.shape).astype(int)
    stop = np.clip(np.ceil(high), start, reference.shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(start.tolist(), stop.tolist(), strict=True))
    affine = shift_affine(reference.affine, start)
    return _Part(box, Volume(np.empty((*(stop - start).tolist(),), bool), affine))


def _vote_of(mask: Volume, part: _Part, way: np.ndarray, *, is_reference: bool) -> _Vote:
    if is_reference:
        share = mask.data[part.box] > 0
        return _Vote(share.astype(np.float32), np.ones(share.shape, bool))
    resampled = resample(
        mask.with_data((mask.data > 0).astype(np.float32)),
        part.grid.affine,
        part.grid.shape,
        transform=way,
        antialias=False,
    )
    return _Vote(resampled.data, expected_brain.inside_grid(mask, part.grid, way))


def _unsound(
    votes: Mapping[str, _Vote],
    masks: Mapping[str, Volume],
    ways: Mapping[str, np.ndarray],
    expected: ExpectedBrain,
) -> dict[str, str]:
    """The contrasts whose masks are flagged, with the reason; never all."""
    reasons: dict[str, str] = {}
    for contrast in votes:
        own = expected.moved(ways[contrast], masks[contrast])
        flags = brain_check.check_mask(masks[contrast], own)
        # a part of a brain may be small
        flags = [f for f in flags if f.code != 'volume' or own.missing <= brain_check.MAX_CUT]
        if flags:
            reasons[contrast] = flags[0].text
    return reasons if len(reasons) < len(votes) else {}


def _far(votes: Mapping[str, _Vote], middle: np.ndarray) -> dict[str, str]:
    """The contrasts whose masks are far from those of the others, with the reason; never all."""
    dice = {contrast: vote.agreement(middle) for contrast, vote in votes.items()}
    far = {contrast: one for contrast, one in dice.items() if one < brain_check.MIN_AGREEMENT}
    if len(votes) < 3 or len(far) == len(votes):
        return {}
    return {c: f'it is far from the others (Dice {one:.2f})' for c, one in far.items()}


def _median_surface(votes: list[_Vote], spacing: np.ndarray) -> np.ndarray:
    """The mask whose surface is the median of others', bool; each counts in its view only."""
    smooth = [ndimage.gaussian_filter(vote.share, SMOOTH / spacing, truncate=3) for vote in votes]
    middle = np.zeros(smooth[0].shape, bool)
    for number in range(len(middle)):  # slice by slice: all at once take a gigabyte
        views = np.stack([vote.view[number] for vote in votes])
        shares = np.stack([one[number] for one in smooth])
        ordered = np.sort(np.where(views, shares, np.inf), axis=0)
        count = views.sum(axis=0, keepdims=True)
        low, high = (
            np.take_along_axis(ordered, place, axis=0)[0]
            for place in (np.maximum(count - 1, 0) // 2, count // 2)
        )
        middle[number] = ((low + high) / 2 >= 0.5) & (count[0] > 0)
    return middle


def _solid(mask: np.ndarray) -> np.ndarray:
    """The largest component without holes, bool."""
    labels, count = ndimage.label(mask)
    if count > 1:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        mask = labels == sizes.argmax()
    return np.asarray(ndimage.binary_fill_holes(mask))


def methods(contrasts: list[str]) -> str:
    """The methods sentence for masks of these contrasts; nothing for a single one."""
    if not contrasts[1:]:
        return ''
    named = ', '.join(contrasts[:-1]) + ' and ' + contrasts[-1]
    return (
        f'The brain mask of the session is the median surface of those of {named}, brought to '
        'the reference image.'
    )
