"""The node that measures the quality of an image; what it found as files."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssl2_bids.files import write_json
from ssl2_bids.steps import image_checks
from ssl2_bids.steps.brain_check import MIN_AGREEMENT, Flag
from ssl2_bids.steps.expected_brain import inside_grid
from ssl2_bids.steps.image_quality import ImageQuality, measure_image
from ssl2_bids.volume import Volume, read
from ssl2_bids.workflows.participant.engine.task import read_json
from ssl2_bids.workflows.participant.node_files import here, write_facts

REFERENCE = 'the image is the reference'
OTHER = 'the image is not the reference'
ALONE = 'the session has one image'
NO_FIT = 'the template does not fit the reference'
NOT_7T = 'it is measured at 7T'
COARSE = 3.0  # mm between the voxels of the mask whose place in the image is looked up
DIGITS = 6  # significant ones: equal on machines whose sums differ in the last bits


def measure_quality(
    acquired: str,
    corrected: str,
    maps: dict[str, str],
    brain_facts: str,
    brain_mask: str,
    joint_facts: str,
    matrix: str,
    register_facts: str,
    distortion_facts: str,
    template_matrix: str,
    template_facts: str,
    *,
    contrast: str,
    field_strength: float | None,
    frequency: float | None,
    is_corrected: bool,
) -> dict[str, str]:
    """Metrics of one image, and the reasons to doubt it.

    Parameters
    ----------
    acquired, corrected : before and after N4, on the image's own grid.
    maps : quantitative maps on that grid, by suffix.
    brain_mask : of the session, on the grid of the reference.
    matrix, register_facts : of the registration to the reference; empty for the reference.
    distortion_facts : of what the registration leaves over; empty where it was not measured.
    template_matrix : RAS+ mm of the template to RAS+ mm of the reference.
    field_strength, frequency : T and MHz of the sidecar; None if unknown.
    is_corrected : whether N4 changed the image here.
    """
    to_image = np.load(matrix) if matrix else np.eye(4)
    back = np.linalg.inv(to_image)
    t1_map = maps.get('T1map')
    image, mask = read(acquired, contrast=contrast), read(brain_mask, dtype=np.uint8)
    of_brain = read_json(brain_facts)
    try:
        found = measure_image(
            image,
            read(corrected, contrast=contrast),
            mask,
            to_reference=back,
            to_template=np.linalg.inv(np.load(template_matrix)) @ back,
            brain_only=of_brain['brain_only'],
            is_corrected=is_corrected,
            t1_map=read(t1_map) if t1_map else None,
        )
    except (ValueError, ArithmeticError, IndexError) as error:
        # measures of an odd image must not cost its segmentation
        found = ImageQuality()
        found.not_available['all'] = f'the image could not be measured ({error})'
    joint = read_json(joint_facts)
    share = _share_inside(mask, image, to_image) if register_facts else None
    _add_session(found, contrast, joint, share)
    if register_facts:
        _add_registration(found, read_json(register_facts)['registration'])
        found.add('template_dice', None, OTHER)
    else:
        _add_registration(found, {})
        dice = read_json(template_facts)['dice']
        found.add('template_dice', dice, NO_FIT)
    _add_distortion(found, distortion_facts, is_reference=not register_facts)
    flags = image_checks.check_image(
        found.metrics,
        contrast,
        field_strength=field_strength,
        frequency=frequency,
        is_reference=not register_facts,
    )
    flags = _of_brain_mask(flags, found, of_brain, joint['without_vote'].get(contrast, ''))
    content = {
        'Flags': [flag.as_json() for flag in flags],
        'NotAvailable': found.not_available,
        'Metrics': {name: _rounded(value) for name, value in found.metrics.items()},
    }
    write_json('quality.json', content)
    warnings = [f'{contrast}: {flag.text}' for flag in flags]
    facts = write_facts('measure_quality', warnings, [image_checks.METHODS], contrast=contrast)
    return {'quality': here('quality.json'), 'facts': facts}


def _of_brain_mask(
    flags: list[Flag], found: ImageQuality, of_brain: dict[str, Any], not_used: str
) -> list[Flag]:
    """The flags with what other steps found in the image's own brain mask, each reason once.

    Parameters
    ----------
    not_used : why it has no part in the mask of the session; empty where it has.
    """
    doubts = [Flag('zero-air', 1.0, 0.0, text) for text in of_brain.get('doubts', ())]
    if not not_used:
        return [*flags, *doubts]
    dice, text = (
        found.metrics['brain_mask_dice'] or 0.0,
        f'its brain mask was not used: {not_used}',
    )
    others = [flag for flag in flags if flag.code != 'brain-mask']
    return [*others, Flag('brain-mask', dice, MIN_AGREEMENT, text), *doubts]


def _share_inside(mask: Volume, image: Volume, to_image: np.ndarray) -> float:
    """Share of a mask in the field of view of an image, by the matrix to the image."""
    steps = np.maximum(1, np.rint(COARSE / mask.spacing)).astype(int)
    thin = mask.data[tuple(slice(None, None, step) for step in steps)] > 0
    if not thin.any():
        return 1.0
    grid = Volume(thin, mask.affine @ np.diag([*steps, 1.0]))
    return float(inside_grid(image, grid, to_image)[thin].mean())


def _add_session(
    found: ImageQuality, contrast: str, joint: dict[str, Any], share: float | None
) -> None:
    """Field of view and mask, in comparison with the session.

    Parameters
    ----------
    share : of the brain mask in the field of view; None for the reference, where the mask lies.
    """
    seen = [part for part in (joint['coverage'].get(contrast), share) if part is not None]
    found.add('coverage', min(seen) if seen else None, NO_FIT)
    found.add('brain_mask_dice', joint['agreement'].get(contrast), ALONE)


def _add_registration(found: ImageQuality, registration: dict[str, float]) -> None:
    for name in ('nmi', 'nmi_before', 'shift', 'rotation'):
        found.add(f'registration_{name}', registration.get(name), REFERENCE)


def _add_distortion(found: ImageQuality, facts: str, *, is_reference: bool) -> None:
    distortion = read_json(facts)['distortion'] if facts else {}
    why = REFERENCE if is_reference else distortion.get('reason', NOT_7T)
    found.add('distortion_median', distortion.get('median'), why)
    found.add('distortion_high', distortion.get('high'), why)


def _rounded(value: float | None) -> float | None:
    """A number with six significant digits; whole ones stay whole."""
    return value if value is None or isinstance(value, int) else float(f'{value:.{DIGITS}g}')


def quality_sidecar(
    content: dict[str, Any], *, description: str, sources: list[str], contrast: str,
    field_strength: float | None,
) -> dict[str, Any]:  # fmt: skip
    """The JSON of an image's quality: metrics at the top level, as MRIQC has them."""
    return {
        'Description': description,
        'Sources': sources,
        'Contrast': contrast,
        'MagneticFieldStrength': field_strength,
        'Flags': content['Flags'],
        'NotAvailable': content['NotAvailable'],
        **content['Metrics'],
    }
