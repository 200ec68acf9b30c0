"""One brain mask of a session from those of all its contrasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ssl2_bids.steps import brain_check
from ssl2_bids.steps.brain_check import ExpectedBrain, Flag
from ssl2_bids.steps.template import overlap
from ssl2_bids.volume import Volume, resample
from ssl2_bids.voxel_grid import bounding_box

SMOOTH = 1.0  # mm; so that the surface of two votes lies in the middle between theirs
MIN_SEEN = 0.5  # share of a voxel in a field of view from which a contrast has a vote there


@dataclass(frozen=True)
class BrainVote:
    """The brain mask of a session.

    Attributes
    ----------
    mask : uint8 on the grid of the reference.
    flags : of the joint mask and of the reference image.
    without_vote : the contrasts whose mask was left out, with the reason.
    agreement : Dice of each contrast's mask with the joint one, where it has a view.
    """

    mask: Volume
    flags: list[Flag]
    without_vote: dict[str, str]
    agreement: dict[str, float]


def vote(
    reference: Volume,
    masks: Mapping[str, Volume],
    transforms: Mapping[str, np.ndarray],
    *,
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
    given : contrast whose mask is the user's: it alone counts.

    Raises
    ------
    DataError : the reference's mask is empty, or its image is constant within it.
    """
    first, *others = masks
    expected = brain_check.expect_brain(reference, masks[first], seed=seed)
    views = {first: Volume(np.ones(reference.shape, np.float32), reference.affine)}
    shares = {first: masks[first].with_data((masks[first].data > 0).astype(np.float32))}
    for contrast in others:
        own = masks[contrast].with_data((masks[contrast].data > 0).astype(np.float32))
        view = own.with_data(np.ones(own.shape, np.float32))
        shares[contrast], views[contrast] = (
            resample(
                one,
                reference.affine,
                reference.shape,
                transform=transforms[contrast],
                antialias=False,
            )
            for one in (own, view)
        )
    left_out = {} if given else _without_vote(shares, views, masks, transforms, expected)
    voters = [given] if given else [c for c in shares if c not in left_out]
    if voters == [first]:
        joint = masks[first].with_data((masks[first].data > 0).astype(np.uint8))
    elif not voters[1:]:
        joint = masks[first].with_data((shares[voters[0]].data >= 0.5).astype(np.uint8))
    else:
        joint = _median_surface(
            [shares[c] for c in voters],
            [views[c].data >= MIN_SEEN for c in voters],
        )
    agreement = {
        contrast: _agreement(shares[contrast], joint, views[contrast].data >= MIN_SEEN)
        for contrast in (shares if others else ())
    }
    flags = [*brain_check.check_mask(joint, expected), *brain_check.check_image(expected)]
    if voters[1:]:
        lowest = min(voters, key=lambda contrast: agreement[contrast])
        if agreement[lowest] < brain_check.MIN_AGREEMENT:
            text = (
                f'the brain masks of the contrasts disagree: Dice of {lowest} and the joint mask '
                f'{agreement[lowest]:.2f}'
            )
            flags.append(Flag('disagreement', agreement[lowest], brain_check.MIN_AGREEMENT, text))
    return BrainVote(joint, flags, left_out, agreement)


def _without_vote(
    shares: Mapping[str, Volume],
    views: Mapping[str, Volume],
    masks: Mapping[str, Volume],
    transforms: Mapping[str, np.ndarray],
    expected: ExpectedBrain,
) -> dict[str, str]:
    """The contrasts whose masks do not count, with the reason; never all."""
    reasons: dict[str, str] = {}
    if len(shares) == 1:
        return reasons
    for contrast, share in shares.items():
        way = transforms.get(contrast, np.eye(4)) @ expected.matrix
        seen = expected.seen & brain_check.seen_of(masks[contrast], way)
        flags = brain_check.check_mask(share, expected.within(seen))
        flags = [flag for flag in flags if flag.code != 'volume' or seen.all()]
        if flags:
            reasons[contrast] = flags[0].text
    sound = [contrast for contrast in shares if contrast not in reasons]
    if not sound:
        return {}
    if len(sound) > 2:
        middle = _median_surface(
            [shares[c] for c in sound], [views[c].data >= MIN_SEEN for c in sound]
        )
        for contrast in sound:
            dice = _agreement(shares[contrast], middle, views[contrast].data >= MIN_SEEN)
            if dice < brain_check.MIN_AGREEMENT:
                reasons[contrast] = f'its brain mask is far from the others (Dice {dice:.2f})'
    return reasons if len(reasons) < len(shares) else {}


def _median_surface(shares: list[Volume], views: list[np.ndarray]) -> Volume:
    """The mask whose surface is the median of others', uint8; each counts in its view only."""
    first = shares[0]
    found = np.zeros(first.shape, np.uint8)
    anywhere = np.any([share.data > 0 for share in shares], axis=0)
    margin = np.ceil(3 * SMOOTH / first.spacing).astype(int)
    box = bounding_box(anywhere, margin)
    sigma = SMOOTH / first.spacing
    votes = [ndimage.gaussian_filter(share.data[box], sigma) for share in shares]
    if all(view[box].all() for view in views):
        middle = np.median(np.stack(votes), axis=0)
    else:
        stack = np.stack(
            [np.where(view[box], one, np.nan) for one, view in zip(votes, views, strict=True)]
        )
        ordered = np.sort(stack, axis=0)  # NaN goes last
        count = np.isfinite(stack).sum(axis=0)
        low, high = (np.maximum(count - 1, 0) // 2)[None], (count // 2)[None]
        high = np.where(count % 2 == 1, low, high)
        pick = [np.take_along_axis(ordered, place, axis=0)[0] for place in (low, high)]
        middle = np.where(count > 0, (pick[0] + pick[1]) / 2, 0)
    labels, parts = ndimage.label(middle >= 0.5)
    if parts > 1:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        labels = labels == sizes.argmax()
    found[box] = ndimage.binary_fill_holes(labels > 0)
    return Volume(found, first.affine)


def _agreement(share: Volume, joint: Volume, view: np.ndarray) -> float:
    return overlap((share.data >= 0.5) & view, (joint.data > 0) & view)


def methods(contrasts: list[str]) -> str:
    """The methods sentence for masks of these contrasts; nothing for a single one."""
    if not contrasts[1:]:
        return ''
    named = ', '.join(contrasts[:-1]) + ' and ' + contrasts[-1]
    return (
        f'The brain mask of the session is the median surface of those of {named}, brought to '
        'the reference image.'
    )
