"""The node that measures the quality of an image; what it found as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ssl2_bids.files import write_json
from ssl2_bids.steps import image_checks
from ssl2_bids.steps.image_quality import ImageQuality, measure_image
from ssl2_bids.volume import read
from ssl2_bids.workflows.participant.engine.task import read_json

REFERENCE = 'the image is the reference'
OTHER = 'the image is not the reference'
ALONE = 'the session has one image'
NO_FIT = 'the template does not fit the reference'
NOT_7T = 'it is measured at 7T'
OF_THE_MASK = {'brain-mask', 'contrast', 'contrast-to-noise'}  # flags that a wrong mask gives too
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
    try:
        found = measure_image(
            read(acquired, contrast=contrast),
            read(corrected, contrast=contrast),
            read(brain_mask, dtype=np.uint8),
            to_reference=back,
            to_template=np.linalg.inv(np.load(template_matrix)) @ back,
            brain_only=read_json(brain_facts)['brain_only'],
            is_corrected=is_corrected,
            t1_map=read(t1_map) if t1_map else None,
        )
    except (ValueError, ArithmeticError, IndexError) as error:
        # measures of an odd image must not cost its segmentation
        found = ImageQuality()
        found.not_available['all'] = f'the image could not be measured ({error})'
    joint = read_json(joint_facts)
    _add_session(found, contrast, joint)
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
    content = {
        'Flags': [flag.as_json() for flag in flags],
        'NotAvailable': found.not_available,
        'Metrics': {name: _rounded(value) for name, value in found.metrics.items()},
    }
    write_json('quality.json', content)
    # what other steps report of the same fault is not reported twice; the tissues that contrasts
    # are measured in are wrong where the brain mask is
    elsewhere = {'coverage'} | (OF_THE_MASK if joint['flags'] else set())
    texts = [flag.text for flag in flags if flag.code not in elsewhere]
    facts = {
        'step': 'measure_quality',
        'contrast': contrast,
        'warnings': [f'{contrast}: {text}' for text in texts],
        'methods': [image_checks.METHODS],
    }
    write_json('facts.json', facts)
    return {
        'quality': str(Path.cwd() / 'quality.json'),
        'facts': str(Path.cwd() / 'facts.json'),
    }


def _add_session(found: ImageQuality, contrast: str, joint: dict[str, Any]) -> None:
    """Field of view and mask, in comparison with the session."""
    found.add('coverage', joint['coverage'].get(contrast), NO_FIT)
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
