"""The training engine: heads of any contrast with lesions, new ones at every step.

Domain randomisation after SynthSeg (Billot et al. 2023, doi 10.1016/j.media.2023.102789) with
what it lacks for lesions: everything healthy that looks like one, in every channel. A sample is
a pure function of its seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl2_bids.synthesis.appearance import (
    CHANNELS,
    Appearance,
    draw_appearances,
    draw_present,
)
from ssl2_bids.synthesis.heads import BRAIN, DISTANCE_SCALE, INDEX, TISSUE, Head
from ssl2_bids.synthesis.lesions import (
    CONFLUENT_SHARE,
    FADING_SHARE,
    LESION_FREE,
    Painted,
    confluent_lesions,
    draw_lesions,
    real_lesions,
)
from ssl2_bids.synthesis.patch_tensors import Fields, blur, lookup, members, shift
from ssl2_bids.synthesis.slices import UNEVEN, Slices, average_slices, draw_slices, drawn_in_slices

ON_LESION = 0.6  # share of the patches with real lesions that are centred near one
WHITE_T1W = 160.0  # of the real T1w that a head may carry


@dataclass(frozen=True)
class Randomisation:
    """How far samples differ. Lengths in mm, angles in degrees, shares of 1."""

    rotation: float = 15.0  # about each axis
    scaling: float = 0.12  # of each axis
    elastic: float = 3.0  # standard deviation, knots 24 mm apart
    misregistration: float = 0.35  # share of channels moved against the others
    clinical: float = 0.3  # share of samples in which every channel has thick slices
    mixed: float = 0.15  # share in which every channel but FLAIR has
    thick_slices: float = 0.2  # share of the channels of other samples
    infratentorial: float = 0.12  # share of patches around brain stem or cerebellar white matter
    noise: float = 0.10  # most, standard deviation relative to white matter
    bias: float = 0.3  # most, standard deviation of the log
    faintest: float = 0.32  # a lesion in FLAIR, more than white matter
    brightest: float = 1.8
    real_t1w: float = 0.7  # share of samples that use a head's real T1w, where it has one


class Patches(NamedTuple):
    """A batch: image (N, C, D, H, W) float32 as the network wants it, zeros where absent or
    outside the brain; present (N, C) bool; brain, label, known (N, 1, D, H, W) float32.
    """

    image: Tensor
    present: Tensor
    brain: Tensor
    label: Tensor
    known: Tensor


@dataclass(frozen=True, eq=False)
class Prepared:
    """A head as tensors.

    Attributes
    ----------
    packed : flat int32: group, distance to ventricle, to cortex, tract, 8 bits each.
    white, below : (V, 3), voxels of cerebral white matter, and of brain stem and cerebellar white
        matter, that can be a patch's centre.
    shares : (G,) share of each group in the brain.
    horns : front and back end of the lateral ventricles, voxels.
    """

    packed: Tensor
    t1w: Tensor | None
    white: np.ndarray
    below: np.ndarray
    shares: np.ndarray
    horns: tuple[float, float]


@lru_cache(maxsize=64)
def prepare(head: Head, device: str) -> Prepared:
    """Move a head to a device, once."""
    parts = (head.groups, head.to_ventricle, head.to_cortex, head.tract)
    packed = sum(part.astype(np.int64) << (8 * place) for place, part in enumerate(parts))
    packed = np.asarray(packed).astype(np.uint32).view(np.int32).ravel()
    white = np.argwhere(head.groups == INDEX['white'])
    below = np.argwhere(np.isin(head.groups, (INDEX['brainstem'], INDEX['cerebellar_white'])))
    below = below if len(below) else white
    chosen = np.random.default_rng(0)
    fluid = (head.groups != INDEX['outer_csf']) | (head.to_cortex < 4 * DISTANCE_SCALE)
    inside = head.groups[np.isin(head.groups, BRAIN) & fluid]
    ventricle = np.argwhere(head.groups == INDEX['ventricle'])[:, 1]
    horns = np.percentile(ventricle, (99.5, 0.5)) if len(ventricle) else (1e4, -1e4)
    return Prepared(
        torch.from_numpy(packed).to(device),
        None if head.t1w is None else torch.from_numpy(head.t1w.ravel()).to(device),
        white[chosen.integers(0, len(white), 20000)],
        below[chosen.integers(0, len(below), 5000)],
        np.bincount(inside, minlength=len(INDEX)) / len(inside),
        (float(horns[0]), float(horns[1])),
    )


def draw(
    heads: Sequence[Head],
    randomisation: Randomisation,
    *,
    seed: tuple[int, ...],
    batch: int,
    patch: tuple[int, int, int],
    device: str | torch.device = 'cpu',
    contrasts: tuple[str, ...] | None = None,
) -> Patches:
    """Draw a batch of patches.

    Parameters
    ----------
    seed : same seed, same batch (on one kind of device).
    patch : voxels of 1 mm; as large as a head for a whole brain.
    contrasts : the channels that are there; drawn for each sample where None.
    """
    samples = []
    for number in range(batch):
        random = np.random.default_rng([*seed, number])
        head = heads[int(random.integers(len(heads)))]
        samples.append(draw_one(head, randomisation, random, patch, str(device), contrasts))
    return Patches(*(torch.stack(parts) for parts in zip(*samples, strict=True)))


def draw_one(
    head: Head,
    randomisation: Randomisation,
    random: np.random.Generator,
    patch: tuple[int, int, int],
    device: str,
    contrasts: tuple[str, ...] | None,
) -> Patches:
    """One sample of :func:`draw`, without the batch axis."""
    generator = torch.Generator(device).manual_seed(int(random.integers(2**62)))
    fields = Fields(patch, generator, device)
    ready = prepare(head, device)
    real = real_lesions(head, random)
    centre = ready.white[int(random.integers(len(ready.white)))]
    if real is not None and random.random() < ON_LESION:
        centre = real[1]
    if random.random() < randomisation.infratentorial:
        centre = ready.below[int(random.integers(len(ready.below)))]
    where, along = positions(head, centre, randomisation, random, patch, fields)
    packed = ready.packed[where]
    groups = packed & 255
    to_ventricle, to_cortex, tract = (packed >> shift & 255 for shift in (8, 16, 24))
    brain = brain_mask(groups, to_cortex, random)
    real_strength = None if real is None else real[0].to(device)[where].float() / 200
    painted = paint_lesions(real_strength, groups, to_ventricle, to_cortex, random, fields)
    soft = blur(fade(painted.strength, random), random.uniform(0.35, 0.65))
    label = lesion_label(painted.strength, random)
    halo = blur(painted.strength, random.uniform(1.2, 2.5)) * random.uniform(0, 0.3)
    patchy = (1 + random.uniform(0, 0.5) * fields(5.0)).clamp(min=0.3)
    glow = torch.maximum(soft, halo) * patchy + painted.specks
    mimics = lesion_mimics(groups, to_ventricle, tract, along, ready, random, fields)
    flow = flowing_fluid(groups, random, fields)
    appearances = draw_appearances(
        random, faintest=randomisation.faintest, brightest=randomisation.brightest
    )
    present = contrasts or draw_present(random)
    slices = draw_slices(
        CHANNELS,
        random,
        clinical=randomisation.clinical,
        mixed=randomisation.mixed,
        reformatted=randomisation.thick_slices,
    )
    texture = random.uniform(0.0, 0.05) * fields(2.5) + random.uniform(0.0, 0.05) * fields(7.0)
    channels = []
    for channel in CHANNELS:
        look = appearances[channel]
        # Each channel has a stream of its own: it does not depend on which others are there.
        own = np.random.default_rng(random.integers(2**62))
        if channel not in present:
            channels.append(torch.zeros(patch, device=device))
            continue
        base = tissue(look, groups, own, fields)
        if channel == 'T1w' and ready.t1w is not None and own.random() < randomisation.real_t1w:
            base = ready.t1w[where].to(torch.float32) / WHITE_T1W
        image = base * (1 + texture) + glow * look.lesion + mimics * look.mimic
        image += flow * look.flow + painted.spaces * look.space
        channels.append(
            acquire(
                image.clamp(min=0),
                groups,
                brain,
                ready,
                own,
                randomisation,
                fields,
                slices[channel],
            )
        )
    known = 1 - (blur(painted.specks, 0.8) > 0.15).float() * (1 - label)
    read = slices[present[0]] if 'FLAIR' not in present else slices['FLAIR']
    if read is not None:
        label, certain = drawn_in_slices(label, read, random)
        known = known * certain
    return Patches(
        torch.stack(channels),
        torch.tensor([name in present for name in CHANNELS], device=device),
        brain[None].float(),
        (label * brain)[None],
        known[None],
    )


def positions(
    head: Head,
    drawn: np.ndarray,
    randomisation: Randomisation,
    random: np.random.Generator,
    patch: tuple[int, int, int],
    fields: Fields,
) -> tuple[Tensor, Tensor]:
    """Where in the head each voxel of a patch lies.

    Returns
    -------
    Flat indices (D, H, W) of the nearest voxels, and their coordinate from back to front.
    """
    shape = head.groups.shape
    angles = np.deg2rad(random.uniform(-1, 1, 3) * randomisation.rotation)
    matrix = rotation(angles) @ np.diag(1 + random.uniform(-1, 1, 3) * randomisation.scaling)
    if random.random() < 0.5:
        matrix[:, 0] *= -1
    centre = np.array(shape) / 2 + random.uniform(-4, 4, 3)
    if any(size < extent for size, extent in zip(patch, shape, strict=True)):
        drawn = drawn + random.uniform(-16, 16, 3)
        # A patch that covers an axis stays in its middle; else it does not leave the head by far.
        margin = np.minimum(np.array(patch) / 2 - 8, np.array(shape) / 2)
        centre = np.clip(drawn, margin, np.array(shape) - margin)
    matrix, device = matrix.astype(np.float32), fields.device
    steps = [torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2 for n in patch]
    x, y, z = steps[0][:, None, None], steps[1][None, :, None], steps[2][None, None, :]
    bend = fields(24.0, 3) * (randomisation.elastic * random.random() / 1.5)
    coordinates = []
    for axis in range(3):
        row = matrix[axis]
        at = bend[axis] + (row[0] * x + (row[1] * y + (row[2] * z + float(centre[axis]))))
        coordinates.append(at.round_().clamp_(0, shape[axis] - 1).to(torch.int32))
    i, j, k = coordinates
    return (i * shape[1] + j) * shape[2] + k, j


def rotation(angles: np.ndarray) -> np.ndarray:
    """(3, 3) rotation about the three axes one after the other, angles in radians."""
    a, b, c = angles
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def brain_mask(groups: Tensor, to_cortex: Tensor, random: np.random.Generator) -> Tensor:
    """A brain mask from tight to generous, as skull-stripping gives it; bool."""
    near = to_cortex < random.uniform(1.0, 7.0) * DISTANCE_SCALE
    deep = members(groups, (*TISSUE, INDEX['ventricle'], INDEX['plexus'])) > 0
    fluid = groups == INDEX['outer_csf']
    mask = deep | (fluid & near)
    if random.random() < 0.3:  # rests of dura and skull
        mask |= (to_cortex < random.uniform(1.0, 4.0) * DISTANCE_SCALE) & (groups > 0)
    return mask


def paint_lesions(
    real: Tensor | None,
    groups: Tensor,
    to_ventricle: Tensor,
    to_cortex: Tensor,
    random: np.random.Generator,
    fields: Fields,
) -> Painted:
    """Real and drawn lesions of a patch, on tissue alone."""
    group, ventricle, cortex = (
        m.to('cpu', torch.uint8) for m in (groups, to_ventricle, to_cortex)
    )
    drawn = draw_lesions(group, ventricle, cortex, random)
    strength, specks, spaces = (m.to(fields.device) for m in drawn)
    if real is not None:
        strength = torch.maximum(strength, real * members(groups, TISSUE))
    if random.random() < CONFLUENT_SHARE:
        large = confluent_lesions(groups, to_ventricle, random, fields)
        strength = torch.maximum(strength, large)
    if random.random() < LESION_FREE:
        strength = torch.zeros_like(strength)
    return Painted(strength, specks, spaces)


def fade(strength: Tensor, random: np.random.Generator) -> Tensor:
    """Lesions that, in some samples, are fainter at their border, which a rater includes."""
    if random.random() > FADING_SHARE:
        return strength
    core = blur((strength > 0).float(), random.uniform(0.8, 2.0))
    least = random.uniform(0.3, 0.85)
    return strength * (least + (1 - least) * (1.4 * core).clamp(max=1))


def lesion_label(strength: Tensor, random: np.random.Generator) -> Tensor:
    """What a rater outlines: tight in some, with the faint border in others; float32."""
    sharp = (strength > 0).float()
    return (blur(sharp, 0.6) > random.uniform(0.25, 0.5)).float()


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
) -> Tensor:
    """A channel as scanned, stripped and normalised: zeros outside the brain."""
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
