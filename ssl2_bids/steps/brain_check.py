"""Whether a brain mask can be right: it is compared with the parts of the template's brain.

The volume of a mask is no test, and a registration of the mask rescales a wrong one. So the
template is where :mod:`ssl2_bids.steps.expected_brain` puts it, without the mask's help.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from ssl2_bids.steps.expected_brain import MIN_SCORE, ExpectedBrain, template_parts
from ssl2_bids.steps.quality import BRAIN_VOLUMES
from ssl2_bids.volume import Volume, resample

FAR = 8.0  # mm above the template's surface: more than a fitted brain reaches
OF_IMAGE = {'unlike', 'turned', 'cut'}  # codes of flags that another mask does not change
ADVICE = 'look at the outlines of the brain mask; --brain-mask takes a corrected one'
# ``python benchmarks/brain_flags.py`` prints the numbers of good and spoiled masks; each threshold
# lies between both on t1w-3t and simulated heads
MIN_COVERED = {
    'cerebellum': 0.8,  # good from 0.98; 0 where it is cut off
    'left temporal lobe': 0.8,  # good from 0.97; 0
    'right temporal lobe': 0.8,
    'vertex': 0.8,  # good from 0.97; 0.2 without the upper 40 mm
    'left hemisphere': 0.85,  # good from 0.97; 0
    'right hemisphere': 0.85,
}
MIN_INNER = 0.945  # of both hemispheres; good from 0.97, shrunk by 6 mm up to 0.94
ABOVE = (-4.0, 5.0)  # mm; good -1.8 to 3.5; shrunk by 6 mm -4 to -7, grown by 8 mm from 7.5
MAX_OUTSIDE = 0.05  # good up to 0.03; grown 0.04 to 0.1, a whole head from 0.2
MAX_ASYMMETRY = 0.06  # good up to 0.011; one hemisphere 1
MAX_TURNED = 1.1  # good 0.35 to 0.5; exchanged or flipped axes from 2.3
MAX_CUT = 0.02  # good up to 0.002; a slab of 25 mm that is missing 0.05 to 0.1
LIKE_TEMPLATE = ('T1w', 'UNIT1', 'FLAIR')  # good from 0.054; of T2w and T2starw of 7T from 0.02
MIN_AGREEMENT = 0.9  # good contrasts of one head from 0.93; shrunk 0.86, grown 0.83


@dataclass(frozen=True)
class Flag:
    """A reason to look at a brain mask.

    Attributes
    ----------
    code : short name.
    value, threshold : what was measured, and from where on it is flagged.
    text : the same in plain words.
    """

    code: str
    value: float
    threshold: float
    text: str

    def as_json(self) -> dict[str, Any]:
        """With the keys of a sidecar."""
        return {
            'Code': self.code,
            'Value': round(self.value, 3),
            'Threshold': self.threshold,
            'Text': self.text,
        }


def measure(mask: Volume, expected: ExpectedBrain) -> dict[str, float]:
    """Numbers of a brain mask, by the codes of the flags.

    Parameters
    ----------
    mask : on any grid in the space of the image of ``expected``.

    Returns
    -------
    For each part the share that the mask covers, of what is in the field of view; ``above``: mean
    distance in mm of the mask's surface above that of the template's brain; ``outside``: share of
    the mask more than 8 mm above; ``asymmetric``: volume at the right less that at the left, over
    both; ``volume``: mL.
    """
    parts = template_parts()
    there = resample(
        mask.with_data((mask.data > 0).astype(np.float32)),
        parts.grid.affine,
        parts.grid.shape,
        transform=expected.matrix,
        antialias=False,
    )
    found = there.data >= 0.5
    seen = expected.seen
    numbers = {'volume': float(np.count_nonzero(mask.data)) * mask.voxel_volume / 1000}
    for name, part in parts.parts.items():
        visible = part & seen
        if visible.sum() >= part.sum() / 2:
            numbers[name] = float(found[visible].mean())
    rim = found & ~ndimage.binary_erosion(found, border_value=1)
    rim &= ndimage.binary_erosion(seen)
    above = parts.above * expected.scale
    numbers['above'] = float(above[rim].mean()) if rim.any() else 0.0
    numbers['outside'] = float((above[found] > FAR).mean()) if found.any() else 1.0
    both = found & seen & seen[::-1]
    right, left = both[parts.x > 0].sum(), both[parts.x < 0].sum()
    numbers['asymmetric'] = float((right - left) / max(right + left, 1))
    return numbers


def check_mask(mask: Volume, expected: ExpectedBrain) -> list[Flag]:
    """Why a brain mask cannot be right; nothing where it can.

    Parameters
    ----------
    mask : on any grid in the space of the image of ``expected``.
    """
    numbers = measure(mask, expected)
    if not expected.is_reliable:
        return _check_volume(numbers['volume'])
    flags = [
        Flag(
            name.replace(' ', '-'),
            numbers[name],
            low,
            f'the brain mask covers only {numbers[name]:.0%} of the {name}',
        )
        for name, low in MIN_COVERED.items()
        if name in numbers and numbers[name] < low
    ]
    above = numbers['above']
    halves = [numbers[f'{side} hemisphere'] for side in ('left', 'right')
              if f'{side} hemisphere' in numbers]  # fmt: skip
    inner = float(np.mean(halves or [1.0]))
    if above < ABOVE[0]:
        text = f'the brain mask ends {-above:.1f} mm below the surface of the brain on average'
        flags.append(Flag('small', above, ABOVE[0], text))
    elif not flags and inner < MIN_INNER:
        text = f'the brain mask covers only {inner:.0%} of the inner brain'
        flags.append(Flag('small', inner, MIN_INNER, text))
    if above > ABOVE[1]:
        text = f'the brain mask ends {above:.1f} mm above the surface of the brain on average'
        flags.append(Flag('large', above, ABOVE[1], text))
    if numbers['outside'] > MAX_OUTSIDE:
        text = f'{numbers["outside"]:.0%} of the brain mask lie outside the brain'
        flags.append(Flag('outside', numbers['outside'], MAX_OUTSIDE, text))
    if abs(numbers['asymmetric']) > MAX_ASYMMETRY:
        side, other = ('right', 'left') if numbers['asymmetric'] > 0 else ('left', 'right')
        text = f'the brain mask is larger at the {side} than at the {other}'
        flags.append(Flag('asymmetric', numbers['asymmetric'], MAX_ASYMMETRY, text))
    return flags + _check_volume(numbers['volume'])


def _check_volume(millilitres: float) -> list[Flag]:
    low, high = BRAIN_VOLUMES
    if low <= millilitres <= high:
        return []
    text = f'the brain mask has {millilitres:.0f} mL, outside {low:.0f} to {high:.0f} mL'
    return [Flag('volume', millilitres, low if millilitres < low else high, text)]


def check_image(expected: ExpectedBrain) -> list[Flag]:
    """Why an image cannot show a whole brain upright, whatever its mask is."""
    flags: list[Flag] = []
    if not expected.is_reliable:
        if expected.contrast in LIKE_TEMPLATE:
            best = max(expected.score, expected.turned)
            text = (
                'nothing in the image is like the brain of the template: its axes may be '
                'exchanged or flipped in its header, or it is no image of a head'
            )
            flags.append(Flag('unlike', best, MIN_SCORE, text))
        return flags
    ratio = expected.turned / max(expected.score, 1e-6)
    if ratio > MAX_TURNED:
        text = 'the axes of the image are probably exchanged or flipped in its header'
        flags.append(Flag('turned', ratio, MAX_TURNED, text))
    missing = expected.missing
    if missing > MAX_CUT:
        text = f'the field of view cuts the brain: about {missing:.0%} of it are missing'
        flags.append(Flag('cut', missing, MAX_CUT, text))
    return flags
