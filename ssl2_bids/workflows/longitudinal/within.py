"""All visits of a participant on one grid between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise

import numpy as np
from scipy import ndimage

from ssl2_bids import sidecar_values
from ssl2_bids.steps import midpoint, visit_matching
from ssl2_bids.steps.lesion_states import NoiseBound
from ssl2_bids.volume import Volume, resample
from ssl2_bids.workflows.longitudinal.visits import Visit, image_within, read_findings

AROUND_LESIONS = 2.0  # mm; kept out of the comparison of intensities as well
# Where two visits are hardly of one head: correlation of their images, Dice of their brain masks,
# and mm between the registrations in the two directions. Simulated visits of one person have 0.99,
# 0.99 and 0.02 mm; those of two people 0.46, 0.90 and 4.8 mm (docs/evidence/longitudinal.md).
MIN_AGREEMENT = 0.7
MIN_OVERLAP = 0.9
MAX_ASYMMETRY = 2.0
UNLIKE = 1.2  # times as long a voxel edge, or a time of the sequence: another protocol
TIMES = ('EchoTime', 'InversionTime', 'RepetitionTime')


@dataclass(frozen=True, eq=False)
class WithinSpace:
    """The visits in the space between them.

    Attributes
    ----------
    grid : its voxels, cubic.
    middle : the transforms.
    brain : uint8, brain at all visits.
    images : of each visit by contrast, matched between the visits, float32.
    probabilities : float32 (V, I, J, K), of each visit by itself.
    noise : what two scans of an unchanged brain differ, with the voxels of these references.
    evidence : float32 (V - 1, I, J, K), see ``visit_matching.change_evidence``.
    misfits : pairs of visits that are hardly of one head.
    warnings : reasons to doubt that changes are real.
    facts : what the page states of the registration.
    """

    grid: Volume
    middle: midpoint.Midpoint
    brain: np.ndarray
    images: list[dict[str, np.ndarray]]
    probabilities: np.ndarray
    evidence: np.ndarray
    noise: NoiseBound
    misfits: list[tuple[int, int]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def edge(self) -> float:
        """Voxel edge in mm."""
        return float(self.grid.spacing[0])


def bring_together(visits: Sequence[Visit], *, seed: int = 0) -> WithinSpace:
    """Register the visits, and resample the raw images and the probabilities of each once.

    Raises
    ------
    DataError : a result is damaged, or a raw file has changed since.
    """
    found = [read_findings(visit) for visit in visits]
    masks = [one.brain for one in found]
    middle = midpoint.register_visits([one.image for one in found], masks, seed=seed)
    grid = midpoint.within_grid(masks, middle.poses)
    edge = float(grid.spacing[0])
    brain = np.ones(grid.shape, bool)
    probabilities = np.zeros((len(visits), *grid.shape), np.float32)
    for number, (one, pose) in enumerate(zip(found, middle.poses, strict=True)):
        share = resample(one.brain, grid.affine, grid.shape, transform=pose)
        brain &= share.data >= 0.5
        moved = resample(one.probability, grid.affine, grid.shape, transform=pose)
        probabilities[number] = moved.data
    images = [
        {c: image_within(v, c, one, grid, pose).data for c in v.contrasts}
        for v, one, pose in zip(visits, found, middle.poses, strict=True)
    ]
    thresholds = [visit.plan.settings.threshold or 0.5 for visit in visits]
    compared = brain & ~near_lesions(probabilities, thresholds, edge)
    _match(images, compared, edge)
    evidence = np.stack(
        [
            visit_matching.change_evidence(
                _without(a, same_images(one, other)), b, compared, spacing=edge
            )
            for (one, a), (other, b) in pairwise(zip(visits, images, strict=True))
        ]
    )
    facts, misfits, warnings = _doubts(visits, middle, images, brain)
    return WithinSpace(
        grid,
        middle,
        brain.astype(np.uint8),
        images,
        probabilities,
        evidence,
        NoiseBound(voxel=round(max(one.image.voxel_volume for one in found), 4)),
        misfits,
        warnings,
        facts,
    )


def same_images(one: Visit, other: Visit) -> set[str]:
    """Contrasts of which two visits have one image, as fMRIPrep makes it for all sessions."""
    scans, others = one.plan.session.scans, other.plan.session.scans
    return {c for c in one.contrasts if c in other.contrasts and scans[c].paths == others[c].paths}


def _without(images: dict[str, np.ndarray], left_out: set[str]) -> dict[str, np.ndarray]:
    return {contrast: image for contrast, image in images.items() if contrast not in left_out}


def near_lesions(
    probabilities: np.ndarray, thresholds: Sequence[float], edge: float
) -> np.ndarray:
    """Where a visit has a lesion, with two millimetres around.

    Parameters
    ----------
    probabilities : (V, I, J, K), with a threshold for each visit.
    edge : of the cubic voxels, mm.
    """
    mask = np.zeros(probabilities.shape[1:], bool)
    for probability, threshold in zip(probabilities, thresholds, strict=True):
        mask |= probability >= threshold
    reach = max(1, round(AROUND_LESIONS / edge))
    return ndimage.binary_dilation(mask, iterations=reach)


def _match(images: list[dict[str, np.ndarray]], compared: np.ndarray, edge: float) -> None:
    """Match the intensities of each contrast between the visits that have it, in place."""
    for contrast in dict.fromkeys(c for one in images for c in one):
        having = [one for one in images if contrast in one]
        matched = visit_matching.match_intensities(
            [one[contrast] for one in having], compared, spacing=edge
        )
        for one, image in zip(having, matched, strict=True):
            one[contrast] = image


def _doubts(
    visits: Sequence[Visit],
    middle: midpoint.Midpoint,
    images: list[dict[str, np.ndarray]],
    brain: np.ndarray,
) -> tuple[dict[str, float], list[tuple[int, int]], list[str]]:
    """How well the visits fit, those that do not, and why changes may be none."""
    misfits: list[tuple[int, int]] = []
    warnings: list[str] = []
    agreements: dict[str, float] = {}
    for i, j in combinations(range(len(visits)), 2):
        names = f'ses-{visits[i].label} and ses-{visits[j].label}'
        common = [c for c in images[i] if c in images[j]]
        values = [visit_matching.agreement(images[i][c], images[j][c], brain) for c in common]
        agreements |= {f'{names}, {c}': round(v, 3) for c, v in zip(common, values, strict=True)}
        overlap = middle.overlaps[i, j]
        agreements[f'{names}, overlap of the brains'] = round(overlap, 3)
        if (
            overlap < MIN_OVERLAP
            or middle.asymmetries[i, j] > MAX_ASYMMETRY
            or (values and max(values) < MIN_AGREEMENT)
        ):
            misfits.append((i, j))
        warnings += _differences(visits[i], visits[j], names)
    return {'asymmetry': round(middle.asymmetry, 3)} | agreements, misfits, warnings


def _differences(one: Visit, other: Visit, names: str) -> list[str]:
    """What differs between two visits apart from the patient."""
    found = []
    missing = sorted(set(one.contrasts) ^ set(other.contrasts))
    if missing:
        found.append(
            f'{names}: {", ".join(missing)} was used at one of them only: part of the change '
            'may come from that'
        )
    scanning: list[str] = []  # differences that make more noise than the bound allows
    same = sorted(same_images(one, other))
    if same:
        rest = 'the other contrasts show changes' if len(same) < len(one.contrasts) else ''
        found.append(
            f'{names} have one {", ".join(same)} image, made from both: '
            + (rest or 'there is nothing that could show a change')
        )
    for key, what in (
        ('ManufacturersModelName', 'scanners'),
        ('MagneticFieldStrength', 'field strengths'),
    ):
        values = [_stated(v, key) for v in (one, other)]
        if all(values) and _apart(*values):
            scanning.append(f'{names} have different {what}: changes between them are doubtful')
    for contrast in one.contrasts:
        if contrast in other.contrasts:
            edges = [v.plan.session.scans[contrast].spacing for v in (one, other)]
            apart = [max(pair) / min(pair) for pair in zip(*map(sorted, edges), strict=True)]
            if max(apart) > UNLIKE:
                sizes = ' and '.join(' x '.join(f'{e:.3g}' for e in edge) for edge in edges)
                scanning.append(
                    f'{names}: the voxels of {contrast} differ ({sizes} mm): changes of small '
                    'lesions are doubtful'
                )
            if unlike := _unlike_times(one, other, contrast):
                scanning.append(
                    f'{names}: the protocols of {contrast} differ ({unlike}): part of the change '
                    'may come from that'
                )
    if scanning:
        scanning.append(
            f'{names}: the noise bound was measured with one scanner and one protocol for both '
            'sessions; here it is too small, and some changes are noise'
        )
    return found + scanning


def _stated(visit: Visit, key: str) -> set[str] | set[float]:
    """What the sidecars of a visit state under a key; what cannot be meant is left out."""
    sidecars = [visit.plan.session.scans[c].metadata for c in visit.contrasts]
    if key in sidecar_values.LIMITS:
        numbers = (sidecar_values.known(one, key) for one in sidecars)
        return {number for number in numbers if number is not None}
    texts = (one.get(key) for one in sidecars)
    return {text.strip() for text in texts if isinstance(text, str) and text.strip()}


def _apart(one: set[str] | set[float], other: set[str] | set[float]) -> bool:
    """Whether texts differ; or a number of one visit has none of the other near it.

    Near is what converters round (3 and 2.89 T). The contrasts of one visit may differ.
    """
    first, second = ([v for v in values if isinstance(v, float)] for values in (one, other))
    if not first or not second:
        return one != other
    far = [[max(a, b) / min(a, b) > UNLIKE for b in second] for a in first]
    return any(map(all, far)) or any(map(all, zip(*far, strict=True)))


def _unlike_times(one: Visit, other: Visit, contrast: str) -> str:
    """The times of a sequence that differ, with their values."""
    found = []
    for key in TIMES:
        scans = [v.plan.session.scans[contrast] for v in (one, other)]
        values = [sidecar_values.known(scan.metadata, key) for scan in scans]
        if key == 'EchoTime':  # a mean of several echoes has their times alone
            values = [
                sum(scan.echo_times) / len(scan.echo_times) if scan.echo_times else value
                for scan, value in zip(scans, values, strict=True)
            ]
        known = [value for value in values if value is not None]
        if len(known) == len(values) and max(known) / min(known) > UNLIKE:
            found.append(f'{key} ' + ' and '.join(f'{v:.4g}' for v in known) + ' s')
    return ', '.join(found)
