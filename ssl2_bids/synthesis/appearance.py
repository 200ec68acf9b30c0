"""How tissues, lesions and what resembles them look in each channel of the training engine.

Everything is relative to white matter = 1. A rule stands behind the ranges: whatever a lesion
can look like, something healthy must be able to look like as well, so that shape and place have
to decide (mimics and artefacts at least as variable as in reality).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssl2_bids.synthesis.heads import GROUP_NAMES

CHANNELS = ('FLAIR', 'T1w', 'T2w', 'T2starw')

# Range of each group's mean. T1w spans MPRAGE, MP2RAGE's UNIT1 and the flat contrast of a turbo
# spin echo; the others span 1.5T to 7T.
MEANS: dict[str, dict[str, tuple[float, float]]] = {
    'FLAIR': {
        'cortex': (0.95, 1.40), 'striatum': (0.95, 1.30), 'pallidum': (0.70, 1.10),
        'thalamus': (0.95, 1.20), 'limbic': (1.00, 1.55), 'cerebellar_cortex': (0.90, 1.30),
        'cerebellar_white': (0.85, 1.12), 'brainstem': (0.85, 1.18), 'ventricle': (0.05, 0.45),
        'outer_csf': (0.05, 0.60), 'plexus': (0.40, 1.60), 'vessel': (0.10, 1.50),
        'nerve': (0.60, 1.40), 'bone': (0.05, 1.20), 'extracerebral': (0.20, 1.80),
    },
    'T1w': {
        'cortex': (0.48, 0.90), 'striatum': (0.62, 0.95), 'pallidum': (0.82, 1.00),
        'thalamus': (0.72, 0.97), 'limbic': (0.50, 0.88), 'cerebellar_cortex': (0.50, 0.90),
        'cerebellar_white': (0.88, 1.06), 'brainstem': (0.82, 1.02), 'ventricle': (0.05, 0.45),
        'outer_csf': (0.05, 0.50), 'plexus': (0.25, 0.75), 'vessel': (0.15, 1.40),
        'nerve': (0.60, 1.05), 'bone': (0.05, 1.00), 'extracerebral': (0.15, 1.50),
    },
    'T2w': {
        'cortex': (1.10, 1.75), 'striatum': (0.90, 1.45), 'pallidum': (0.55, 1.05),
        'thalamus': (0.95, 1.35), 'limbic': (1.15, 1.80), 'cerebellar_cortex': (1.05, 1.70),
        'cerebellar_white': (0.85, 1.15), 'brainstem': (0.85, 1.25), 'ventricle': (1.90, 4.50),
        'outer_csf': (1.80, 4.50), 'plexus': (1.20, 3.00), 'vessel': (0.10, 1.40),
        'nerve': (0.80, 1.60), 'bone': (0.05, 1.20), 'extracerebral': (0.20, 2.00),
    },
    'T2starw': {
        'cortex': (1.05, 1.45), 'striatum': (0.65, 1.20), 'pallidum': (0.35, 0.90),
        'thalamus': (0.85, 1.25), 'limbic': (1.05, 1.50), 'cerebellar_cortex': (1.00, 1.40),
        'cerebellar_white': (0.85, 1.10), 'brainstem': (0.85, 1.15), 'ventricle': (1.20, 2.20),
        'outer_csf': (1.10, 2.20), 'plexus': (0.80, 1.60), 'vessel': (0.10, 0.90),
        'nerve': (0.60, 1.30), 'bone': (0.05, 0.60), 'extracerebral': (0.10, 1.50),
    },
}  # fmt: skip
WILD = 0.03  # share of samples whose tissue means have nothing to do with a sequence
ENHANCED = (
    0.1  # share of samples whose T1w follows a contrast agent: vessels and plexus are bright
)
ENHANCING = 0.5  # share of these in which lesions are bright in it too
TWO_FACED = 0.3  # share of channels whose contrast changes over the head, as B1+ makes it


@dataclass(frozen=True, eq=False)
class Appearance:
    """Contrast of one channel of one sample, relative to white matter = 1.

    Attributes
    ----------
    means : (2, G), mean of each group where the transmit field is low and where it is high.
    lesion : what a lesion of severity 1 adds.
    mimic : what a lesion mimic of strength 1 adds.
    flow : what CSF flow of strength 1 adds to CSF.
    space : what a perivascular space adds.
    """

    means: np.ndarray
    lesion: float
    mimic: float
    flow: float
    space: float


def draw_appearances(
    random: np.random.Generator, *, faintest: float = 0.32, brightest: float = 1.8
) -> dict[str, Appearance]:
    """Draw all channels of one sample together: a lesion is as severe in each of them.

    Parameters
    ----------
    faintest, brightest : what a lesion adds in FLAIR, white matter = 1.
    """
    severity = random.random()
    wild = random.random() < WILD
    lesion = {
        'FLAIR': faintest * (brightest / faintest) ** severity,
        'T1w': -0.02 - 0.5 * np.clip(severity + random.normal(0, 0.3), 0, 1),
        'T2w': 0.12 * (1.4 / 0.12) ** np.clip(severity + random.normal(0, 0.25), 0, 1),
        'T2starw': 0.05 + 0.6 * np.clip(severity + random.normal(0, 0.3), 0, 1),
    }
    # The strongest lesion mimic is as bright as a middling lesion, whatever lesions do here.
    glow = random.uniform(0.1, 0.6)
    mimic = {
        'FLAIR': glow,
        'T1w': -glow * random.uniform(0.0, 0.7),
        'T2w': glow * random.uniform(0.3, 1.5),
        'T2starw': glow * random.uniform(0.0, 1.0),
    }
    flow = {'FLAIR': random.uniform(0.2, 1.2), 'T1w': 0.1, 'T2w': -random.uniform(0.3, 1.5)}
    agent = random.random() < ENHANCED
    if agent and random.random() < ENHANCING:
        lesion['T1w'] = random.uniform(0.0, 0.6)
    space = {
        'FLAIR': random.uniform(-0.4, 0.15),
        'T1w': -random.uniform(0.1, 0.5),
        'T2w': random.uniform(0.3, 1.2),
        'T2starw': random.uniform(0.1, 0.5),
    }
    means = {channel: draw_means(channel, random, wild=wild) for channel in CHANNELS}
    if agent:
        for name in ('vessel', 'plexus'):
            means['T1w'][:, GROUP_NAMES.index(name)] = random.uniform(1.1, 2.2)
    return {
        channel: Appearance(
            means[channel],
            float(lesion[channel]),
            float(mimic[channel]),
            float(flow.get(channel, 0.0)),
            float(space[channel]),
        )
        for channel in CHANNELS
    }


def draw_means(channel: str, random: np.random.Generator, *, wild: bool) -> np.ndarray:
    """Means of all groups at low and at high transmit field, (2, G) float32."""
    ranges = MEANS[channel]
    means = np.zeros((2, len(GROUP_NAMES)), np.float32)
    # Grey matter of all kinds shifts together with the sequence, each kind a little apart.
    common = random.random()
    for index, name in enumerate(GROUP_NAMES):
        if name == 'outside':
            continue
        low, high = ranges.get(name, (1.0, 1.0))
        if name in ('bone', 'extracerebral', 'vessel', 'plexus'):
            place = random.random()
        else:
            place = np.clip(common + random.normal(0, 0.25), 0, 1)
        means[:, index] = low + place * (high - low)
        if wild and name != 'white':
            means[:, index] = random.uniform(0.1, 2.2)
    if random.random() < TWO_FACED:
        # Where the flip angle is off, grey matter and CSF move towards or past white matter.
        means[0] = 1 + (means[0] - 1) * random.uniform(0.5, 1.1)
        means[0, 0] = 0
    gamma = np.exp(random.uniform(-0.35, 0.35))
    return np.maximum(means, 0.0) ** gamma


# Which channels are there: the first sets are what sites have most often.
CONTRAST_SETS: tuple[tuple[tuple[str, ...], float], ...] = (
    (('FLAIR',), 0.27),
    (('FLAIR', 'T1w'), 0.30),
    (('FLAIR', 'T1w', 'T2w'), 0.11),
    (('T1w',), 0.10),
    (('FLAIR', 'T2w'), 0.06),
    (('FLAIR', 'T1w', 'T2w', 'T2starw'), 0.08),
    (('FLAIR', 'T1w', 'T2starw'), 0.04),
    (('T1w', 'T2w'), 0.02),
    (('T1w', 'T2starw'), 0.02),
)


def draw_present(random: np.random.Generator) -> tuple[str, ...]:
    """Draw which channels a sample has."""
    weights = [weight for _, weight in CONTRAST_SETS]
    return CONTRAST_SETS[int(random.choice(len(weights), p=weights))][0]
