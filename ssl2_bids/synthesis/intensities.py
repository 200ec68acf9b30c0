"""Intensities of a channel of the training engine: tissues, lesion mimics, the acquisition."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ssl2_bids.synthesis.appearance import Appearance
from ssl2_bids.synthesis.geometry import Prepared
from ssl2_bids.synthesis.heads import DISTANCE_SCALE, INDEX
from ssl2_bids.synthesis.patch_tensors import Fields, blur, lookup, members, shift
from ssl2_bids.synthesis.ranges import Randomisation
from ssl2_bids.synthesis.slices import UNEVEN, Slices, average_slices


def lesion_mimics(
    groups: Tensor,
    to_ventricle: Tensor,
    tract: Tensor,
    along: Tensor,
    ready: Prepared,
    random: np.random.Generator,
    fields: Fields,
) -> Tensor:
    """Strength, 0 to about 1.5, of what healthy people have that looks like a lesion.

    Caps of the horns, bands and a thin line along the ventricles, bright tracts, dirty white
    matter, uneven cortex; METHOD: normal FLAIR, Neuroradiology 1997;39:243.
    """
    white = members(groups, (INDEX['white'], INDEX['brainstem'], INDEX['cerebellar_white']))
    distance = to_ventricle.float() / DISTANCE_SCALE
    uneven = fields(16.0)
    band = torch.exp(-distance / random.uniform(0.7, 4.0)) * (0.6 + 0.4 * uneven).clamp(0, 1.4)
    ends = torch.exp(-(((along - ready.horns[0]) / random.uniform(5, 12)) ** 2))
    ends = ends + torch.exp(-(((along - ready.horns[1]) / random.uniform(6, 16)) ** 2))
    cap = torch.exp(-((distance / random.uniform(1.5, 6.0)) ** 2)) * ends
    total = random.uniform(0.1, 1.5) * band + random.uniform(0, 1.6) * cap
    total += (distance < random.uniform(0.8, 1.6)) * random.uniform(0, 1.0)
    if random.random() < 0.85:
        total += tract.float() / 255 * random.uniform(0.1, 1.2)
    dirty = (fields(9.0) - random.uniform(0.2, 1.2)).clamp(min=0)
    total = total + random.uniform(0, 0.5) * dirty
    grey = members(groups, (INDEX['cortex'], INDEX['limbic'], INDEX['cerebellar_cortex']))
    return total * white + grey * fields(11.0) * random.uniform(0, 0.35)


def flowing_fluid(groups: Tensor, random: np.random.Generator, fields: Fields) -> Tensor:
    """CSF that moves is bright in FLAIR and dark in T2w, in places; 0 elsewhere."""
    if random.random() > 0.6:
        return torch.zeros(fields.patch, device=fields.device)
    fluid = members(groups, (INDEX['ventricle'], INDEX['outer_csf']))
    return (fields(9.0) - random.uniform(0.3, 1.5)).clamp(0, 1.2) * fluid


def tissue(
    look: Appearance, groups: Tensor, random: np.random.Generator, fields: Fields
) -> Tensor:
    """Mean of each voxel's group; between two contrasts where the transmit field varies."""
    high = lookup(look.means[1], groups)
    if np.array_equal(look.means[0], look.means[1]):
        return high
    share = torch.sigmoid(2 * fields(60.0) + random.uniform(-1, 2))
    return high + (lookup(look.means[0], groups) - high) * share


def acquire(
    image: Tensor,
    groups: Tensor,
    brain: Tensor,
    ready: Prepared,
    random: np.random.Generator,
    randomisation: Randomisation,
    fields: Fields,
    slices: Slices | None,
    *,
    normalise: bool = True,
) -> Tensor:
    """A channel as scanned, stripped and normalised: zeros outside the brain.

    Without ``normalise`` white matter stays at about 1 and fluid above 0.
    """
    if random.random() < randomisation.misregistration:
        image = shift(image, random.uniform(-1.2, 1.2, 3))
    image = blur(image, random.uniform(0.3, 0.85))
    if slices is not None:
        uneven = random.uniform(0, UNEVEN) * random.standard_normal(sum(image.shape))
        gains = torch.as_tensor(np.exp(uneven), dtype=image.dtype, device=image.device)
        image = average_slices(image, slices, gains)
    spread = randomisation.bias * random.random()
    image = image * torch.exp(spread * fields(random.uniform(30, 70)) / 1.5)
    noise = randomisation.noise * random.random() ** 2
    grain = fields.noise()
    if random.random() < 0.4:
        grain = blur(grain, 0.7) * 2.0
    image += noise * grain
    if not normalise:
        return image.clamp(min=0) * brain
    middle, scatter = brain_statistics(image, groups, brain, ready, random)
    middle += scatter * random.uniform(-0.2, 0.2)
    scatter = max(scatter * np.exp(random.uniform(-0.2, 0.2)), 0.02)
    return ((image - float(middle)) / float(scatter)).clamp_(-6, 8) / 3 * brain


def brain_statistics(
    image: Tensor, groups: Tensor, brain: Tensor, ready: Prepared, random: np.random.Generator
) -> tuple[float, float]:
    """Median and scaled MAD that the whole brain would have, from a patch of it.

    Voxels of the patch are weighted so that each tissue has its share of the whole brain.
    """
    chosen = torch.from_numpy(random.integers(0, image.numel(), 20000)).to(image.device)
    inside = brain.ravel()[chosen].cpu().numpy()
    values = image.ravel()[chosen].cpu().numpy()[inside]
    kinds = groups.ravel()[chosen].cpu().numpy()[inside]
    here = np.bincount(kinds, minlength=len(INDEX))
    weights = (ready.shares / np.maximum(here, 1))[kinds] + 1e-9
    if not len(values):
        return 0.0, 1.0
    middle = weighted_median(values, weights)
    return middle, 1.4826 * weighted_median(np.abs(values - middle), weights)


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """The value below which half of the weight lies."""
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(below, below[-1] / 2)])
