"""How the channels of one sample are cut into slices: 3D, 2D, or some of each.

Clinical scanners give FLAIR of 3 to 8 mm from slice to slice, with gaps; research protocols mix a
3D FLAIR with T1w and T2w of thick slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

AXIAL = (0.1, 0.05, 0.85)  # how often slices lie across the first, second and third axis
FLAIR_2D = (3, 4, 5, 6, 7, 8)  # mm from slice to slice
OTHERS_2D = (2, 3, 4, 5, 6)
UNEVEN = 0.04  # most, standard deviation of the log of the slices' gains
HALF = 0.5  # share of a slice from which on a lesion is drawn in it, as in any averaged mask
UNCERTAIN_SHARE = 0.15  # share above which what no rater draws is left out of the loss


@dataclass(frozen=True)
class Slices:
    """Slices of one channel, in voxels of 1 mm.

    Attributes
    ----------
    axis : across which they lie.
    spacing : from slice to slice.
    thickness : of one slice, at most the spacing; the rest is gap.
    first : voxels of the patch that belong to a slice cut off before its begin.
    """

    axis: int
    spacing: int
    thickness: float
    first: int

    def profile(self) -> np.ndarray:
        """(spacing,), share that each voxel has in the slice's mean; sum 1."""
        centres = np.arange(self.spacing) - (self.spacing - 1) / 2
        weights = np.clip(self.thickness / 2 - np.abs(centres) + 0.5, 0, 1)
        return weights / weights.sum()


def draw_slices(
    channels: Sequence[str],
    random: np.random.Generator,
    *,
    clinical: float,
    mixed: float,
    reformatted: float,
) -> dict[str, Slices | None]:
    """Draw the slices of all channels of a sample; None for a channel with 1 mm voxels.

    Parameters
    ----------
    clinical : share of samples in which every channel is 2D.
    mixed : share in which FLAIR is 3D and every other channel 2D.
    reformatted : of the other samples, share of the channels with 2 to 4 mm along some axis.
    """
    kind = random.random()
    axis = int(random.choice(3, p=AXIAL))
    found: dict[str, Slices | None] = {}
    for channel in channels:
        choices = FLAIR_2D if channel == 'FLAIR' else OTHERS_2D
        spacing = int(random.choice(choices))
        one = Slices(
            axis, spacing, spacing * random.uniform(0.7, 1), int(random.integers(spacing))
        )
        other, short = int(random.integers(3)), int(random.integers(2, 5))
        rare = random.random() < reformatted
        if kind < clinical or (kind < clinical + mixed and channel != 'FLAIR'):
            found[channel] = one
        elif kind >= clinical + mixed and rare:
            found[channel] = Slices(other, short, float(short), int(random.integers(short)))
        else:
            found[channel] = None
    return found


def average_slices(image: Tensor, slices: Slices, gains: Tensor | None = None) -> Tensor:
    """Average (D, H, W) within slices and interpolate linearly between their centres.

    Parameters
    ----------
    gains : (D + H + W,) or longer, factors of the slices in their order; None for ones.
    """
    means = slice_means(image, slices)
    if gains is not None:
        means = means * gains[: len(means), None, None]
    return between_slices(means, slices, image.shape)


def slice_means(image: Tensor, slices: Slices) -> Tensor:
    """(S, ...), the mean of each slice, its axis first; the patch's edge is continued."""
    turned = image.movedim(slices.axis, 0)
    after = -(turned.shape[0] + slices.first) % slices.spacing
    parts = [turned[:1].expand(slices.first, -1, -1), turned, turned[-1:].expand(after, -1, -1)]
    blocks = torch.cat(parts).unflatten(0, (-1, slices.spacing))
    weights = torch.as_tensor(slices.profile(), dtype=image.dtype, device=image.device)
    return torch.einsum('swhd,w->shd', blocks, weights)


def between_slices(means: Tensor, slices: Slices, shape: Sequence[int]) -> Tensor:
    """Linear interpolation of slices (S, ...) to voxels of 1 mm, (D, H, W) of ``shape``."""
    lines = means.flatten(1).T[None]
    fine = functional.interpolate(lines, scale_factor=float(slices.spacing), mode='linear')[0].T
    length = shape[slices.axis]
    fine = fine[slices.first : slices.first + length].unflatten(1, means.shape[1:])
    return fine.movedim(0, slices.axis).contiguous()


def drawn_in_slices(
    label: Tensor, slices: Slices, random: np.random.Generator, *, least: float = HALF
) -> tuple[Tensor, Tensor]:
    """The label that a rater draws on slices, brought to 1 mm, and where it is known.

    The label is averaged over each slice, without the gaps, and drawn where it fills half. A
    lesion that fills less is not drawn; there, nothing is known.

    Parameters
    ----------
    least : smallest share of a slice that a rater draws; the share of one rater is between it
        and half.

    Returns
    -------
    label, known : (D, H, W) float32, 0 or 1.
    """
    shares = slice_means(label, slices)
    drawn = (shares >= random.uniform(least, HALF)).float()
    uncertain = ((shares >= UNCERTAIN_SHARE) & (drawn == 0)).float()
    brought = (between_slices(drawn, slices, label.shape) >= 0.5).float()
    doubtful = between_slices(uncertain, slices, label.shape) >= 0.5
    return brought, 1 - doubtful.float() * (1 - brought)
