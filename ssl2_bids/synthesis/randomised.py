"""The training engine: heads of any contrast with lesions, new ones at every step.

Domain randomisation after SynthSeg (Billot et al. 2023, doi 10.1016/j.media.2023.102789) with
what it lacks for lesions: everything healthy that looks like one, in every channel. A sample is
a pure function of its seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl2_bids.synthesis.appearance import CHANNELS, draw_appearances, draw_present
from ssl2_bids.synthesis.geometry import brain_mask, positions, prepare
from ssl2_bids.synthesis.heads import Head
from ssl2_bids.synthesis.intensities import acquire, flowing_fluid, lesion_mimics, tissue
from ssl2_bids.synthesis.lesions import fade, lesion_label, paint_lesions, real_lesions
from ssl2_bids.synthesis.patch_tensors import Fields, blur
from ssl2_bids.synthesis.ranges import Randomisation
from ssl2_bids.synthesis.slices import draw_slices, drawn_in_slices

ON_LESION = 0.6  # share of the patches with real lesions that are centred near one
WHITE_T1W = 160.0  # of the real T1w that a head may carry


class Patches(NamedTuple):
    """A batch: image (N, C, D, H, W) float32 as the network wants it, zeros where absent or
    outside the brain; present (N, C) bool; brain, label, known (N, 1, D, H, W) float32.
    """

    image: Tensor
    present: Tensor
    brain: Tensor
    label: Tensor
    known: Tensor


def draw(
    heads: Sequence[Head],
    randomisation: Randomisation,
    *,
    seed: tuple[int, ...],
    batch: int,
    patch: tuple[int, int, int],
    device: str | torch.device = 'cpu',
    contrasts: tuple[str, ...] | None = None,
    normalise: bool = True,
) -> Patches:
    """Draw a batch of patches.

    Parameters
    ----------
    seed : same seed, same batch (on one kind of device).
    patch : voxels of 1 mm; as large as a head for a whole brain.
    contrasts : the channels that are there; drawn for each sample where None.
    normalise : images as the network wants them; else as scanned, white matter about 1.
    """
    samples = []
    for number in range(batch):
        random = np.random.default_rng([*seed, number])
        head = heads[int(random.integers(len(heads)))]
        samples.append(
            draw_one(
                head, randomisation, random, patch, str(device), contrasts, normalise=normalise
            )
        )
    return Patches(*(torch.stack(parts) for parts in zip(*samples, strict=True)))


def draw_one(
    head: Head,
    randomisation: Randomisation,
    random: np.random.Generator,
    patch: tuple[int, int, int],
    device: str,
    contrasts: tuple[str, ...] | None,
    *,
    normalise: bool = True,
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
        # Each channel has numbers of its own; only its fields and its noise come from the one
        # generator of the sample, and depend on which channels before it are there.
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
                normalise=normalise,
            )
        )
    known = 1 - (blur(painted.specks, 0.8) > 0.15).float() * (1 - label)
    read = slices[present[0]] if 'FLAIR' not in present else slices['FLAIR']
    if read is not None:
        label, certain = drawn_in_slices(label, read, random, least=randomisation.rater_share)
        known = known * certain
    return Patches(
        torch.stack(channels),
        torch.tensor([name in present for name in CHANNELS], device=device),
        brain[None].float(),
        (label * brain)[None],
        known[None],
    )
