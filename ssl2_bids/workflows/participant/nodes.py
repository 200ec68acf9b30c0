"""The nodes of the participant workflow: files in, one step, files out in the node's folder.

Each function runs in a folder of its own, reads what it is given, calls steps and returns the
paths that it wrote. ``facts`` is a JSON with ``step``, ``warnings``, ``methods``, the ``contrast``
of steps that there are several of, and what else a report needs.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ssl2_bids.bids.given_datasets import GivenTransforms
from ssl2_bids.bids.scan import Scan
from ssl2_bids.bids.template_spaces import Template
from ssl2_bids.files import write_json
from ssl2_bids.steps import preprocess
from ssl2_bids.steps.inhomogeneity import ITERATIONS
from ssl2_bids.volume import read, resample, write
from ssl2_bids.workflows.participant.node_files import here, write_facts
from ssl2_bids.workflows.participant.templates import checked_transforms
from ssl2_bids.workflows.raw_scan import read_scan

SAME_SPACE = 'MNI152'  # templates whose brains lie where that of the App's own template lies


def prepare(scan: Scan, digests: list[str], working_voxel: float = 0.0) -> dict[str, Any]:
    """One contrast as one checked image with RAS+ voxel axes; echoes averaged, UNIT1 denoised, and
    its maps by suffix.

    Parameters
    ----------
    digests : SHA-256 of each of the scan's sources, as they were when the run was planned.
    working_voxel : mm; some voxels are left out, so that edges are at least about that long.

    Raises
    ------
    DataError : a file cannot be used, or has changed since.
    """
    made = read_scan(scan, digests, working_voxel=working_voxel)
    write(made.image, 'image.nii')
    for suffix, volume in made.maps.items():
        write(volume, f'{suffix}.nii')
    if made.brain_source is not None:
        write(made.brain_source, 'brain_source.nii')
    source = '' if made.brain_source is None else here('brain_source.nii')
    facts = write_facts(
        'prepare',
        made.warnings,
        made.methods,
        contrast=scan.contrast,
        description=made.description,
    )
    maps = {suffix: here(f'{suffix}.nii') for suffix in made.maps}
    return {
        'image': here('image.nii'),
        'brain_source': source,
        'maps': maps,
        'facts': facts,
    }


def correct_inhomogeneity(
    image: str,
    mask: str,
    contrast: str,
    field_strength: float | None,
    corrected: bool,
    iterations: int = ITERATIONS,
) -> dict[str, str]:
    """N4, where the contrast shows the fields of the coils; ``field_strength`` in T.

    An image that is ``corrected`` stays as it is.
    """
    volume, brain_mask = read(image, contrast=contrast), read(mask, dtype=np.uint8)
    if not corrected:
        volume = preprocess.without_inhomogeneity(
            volume, brain_mask, field_strength=field_strength, iterations=iterations
        )
    write(volume, 'image.nii')
    return {'image': here('image.nii')}


def register(
    fixed: str,
    fixed_mask: str,
    moving: str,
    moving_mask: str,
    contrast: str,
    seed: int,
    levels: int | None = None,
    candidates: int | None = None,
) -> dict[str, str]:
    """Rigid registration of one contrast to the reference; the matrix as ``.npy``.

    ``levels`` and ``candidates`` limit the search.
    """
    from ssl2_bids.steps import registration

    fixed_image, moving_image = read(fixed), read(moving, contrast=contrast)
    fixed_brain = read(fixed_mask, dtype=np.uint8)
    found = registration.register_rigid(
        fixed_image,
        moving_image,
        fixed_mask=fixed_brain,
        moving_mask=read(moving_mask, dtype=np.uint8),
        seed=seed,
        levels=levels,
        candidates=candidates,
    )
    np.save('matrix.npy', found.matrix)
    write(
        resample(moving_image, fixed_image.affine, fixed_image.shape, transform=found.matrix),
        'resampled.nii',
    )
    warnings = []
    if found.kept_identity:
        warnings.append(
            f'{contrast}: registration was not better than the scanner coordinates; the scanner '
            'coordinates are used'
        )
    shift, angle = registration.displacement(found.matrix, registration.centre_of(fixed_brain))
    facts = write_facts(
        'register',
        warnings,
        [],
        contrast=contrast,
        registration={
            'nmi': found.after.normalised,
            'nmi_before': found.before.normalised,
            'shift': shift,
            'rotation': angle,
        },
    )
    return {
        'matrix': here('matrix.npy'),
        'resampled': here('resampled.nii'),
        'facts': facts,
    }


def segment(
    images: list[str],
    contrasts: list[str],
    matrices: list[str],
    mask: str,
    *,
    model: str,
    device: str,
    threads: int,
    overlap: float,
    tta: bool,
    uncertainty: bool,
    low_memory: bool,
    raw: list[str],
    voxel_size: float = 0.0,
) -> dict[str, Any]:
    """Lesion probability on the reference grid.

    ``matrices`` belong to all but the first image, which is the reference; ``raw`` are the files
    of the images, which errors name; ``voxel_size``, mm, is another one than the model's.
    """
    import torch

    from ssl2_bids.networks.weights import load_network, read_card
    from ssl2_bids.steps import segmentation
    from ssl2_bids.steps.network_input import UnusableContrastError

    torch.set_num_threads(threads)
    card = read_card(Path(model))
    if voxel_size:
        card = replace(card, voxel_size=(voxel_size,) * 3)
    volumes = {c: read(p, contrast=c) for c, p in zip(contrasts, images, strict=True)}
    transforms = {c: np.load(path) for c, path in zip(contrasts[1:], matrices, strict=True)}
    try:
        result = segmentation.segment(
            volumes,
            transforms,
            read(mask, dtype=np.uint8),
            card,
            load_network(card, device),
            device=device,
            overlap=overlap,
            mirror=tta,
            uncertainty=uncertainty,
            low_memory=low_memory,
        )
    except UnusableContrastError as error:
        error.path = raw[contrasts.index(error.contrast)]
        raise
    write(result.probability, 'probability.nii')
    if result.uncertainty is not None:
        write(result.uncertainty, 'uncertainty.nii')
    sentence = segmentation.methods(
        card,
        result.contrasts,
        overlap=overlap,
        mirror=tta,
        uncertainty=uncertainty,
        low_memory=low_memory,
    )
    facts = write_facts(
        'segment',
        [],
        [sentence],
        channels=list(result.channels),
        device=device.partition(':')[0],
    )
    return {
        'probability': here('probability.nii'),
        'uncertainty': here('uncertainty.nii') if result.uncertainty is not None else '',
        'facts': facts,
    }


def find_template(
    image: str, mask: str, start: str, contrast: str, seed: int, levels: int | None = None
) -> dict[str, str]:
    """Affine transform between template and reference, as ``.npy``.

    ``start`` is the matrix of a coarse fit, at which the search begins; empty for none.
    ``levels`` limits the search.
    """
    from ssl2_bids.steps import template

    found = template.register_to_template(
        read(image, contrast=contrast),
        read(mask, dtype=np.uint8),
        seed=seed,
        start=np.load(start) if start else None,
        levels=levels,
    )
    np.save('matrix.npy', found.matrix)
    warnings = [f'regions are uncertain: {found.warning}'] if found.warning else []
    agreement = {'brain and template, Dice of the masks': round(found.brain_dice, 3)}
    methods = [template.methods(contrast)]
    facts = write_facts(
        'find_template', warnings, methods, quality=agreement, dice=found.brain_dice
    )
    return {'matrix': here('matrix.npy'), 'facts': facts}


def find_lesions(
    probability: str, image: str, mask: str, matrix: str, threshold: float, minimum_volume: float
) -> dict[str, str]:
    """Instances and table from the probability; regions by the template's transform."""
    from ssl2_bids.steps import lesions, regions

    found = lesions.find_lesions(
        read(probability), threshold=threshold, minimum_volume=minimum_volume
    )
    names = regions.find_regions(
        found.instances,
        np.load(matrix),
        image=read(image),
        brain_mask=read(mask, dtype=np.uint8),
    )
    found = lesions.with_regions(found, names)
    write(found.instances, 'instances.nii', dtype=np.uint16)
    write_json('table.json', [asdict(lesion) for lesion in found.table])
    methods = [lesions.methods(threshold, minimum_volume), regions.methods()]
    facts = write_facts('find_lesions', [], methods)
    return {'instances': here('instances.nii'), 'table': here('table.json'), 'facts': facts}


def register_template(
    image: str,
    mask: str,
    instances: str,
    start: str,
    contrast: str,
    template: Template,
    seed: int,
) -> dict[str, str]:
    """Non-linear transform between a template of TemplateFlow and the reference, as ``.npz``.

    ``start`` is the matrix of the symmetric MNI152, at which the affine search begins.
    """
    from ssl2_bids.steps import deformation
    from ssl2_bids.steps.template import register_to_template

    reference, brain = read(image, contrast=contrast), read(mask, dtype=np.uint8)
    model = read(template.image, contrast='T1w')
    model_mask = read(template.mask, dtype=np.uint8)
    label = template.space.label
    linear = register_to_template(
        reference,
        brain,
        seed=seed,
        template_of=(model, model_mask),
        start=np.load(start),
    )
    found = deformation.register_deformation(
        model,
        reference,
        linear.matrix,
        template_mask=model_mask,
        image_mask=brain,
        lesions=read(instances, dtype=np.uint16),
    )
    deformation.write_deformation(found, 'deformation.npz')
    write(deformation.to_template(reference, found, model), 'warped.nii')
    warnings = [f'{label} is uncertain: {linear.warning}'] if linear.warning else []
    quality = {
        f'{label}, Dice of the masks after the affine transform': round(linear.brain_dice, 3),
        f'{label}, local correlation with the affine transform': round(found.before, 3),
        f'{label}, local correlation with the non-linear transform': round(found.after, 3),
    }
    methods = [deformation.methods(contrast, label)]
    facts = write_facts('register_template', warnings, methods, quality=quality)
    return {
        'deformation': here('deformation.npz'),
        'warped': here('warped.nii'),
        'facts': facts,
    }


def take_template_transform(
    image: str, mask: str, template: Template, given: GivenTransforms, program: str, start: str
) -> dict[str, str]:
    """The transforms of another program between a template and the reference, as ``.npz``.

    ``start`` is the affine transform that the App found to its own template of the same space.

    Raises
    ------
    DataError : they cannot be read, or do not fit the brain.
    """
    from ssl2_bids.steps import deformation

    label = template.space.label
    found, (dice, apart) = checked_transforms(template, given, mask)
    deformation.write_deformation(found, 'deformation.npz')
    model = read(template.image, contrast='T1w')
    write(deformation.to_template(read(image), found, model), 'warped.nii')
    quality = {
        f'{label}, Dice of the masks with the given transform': round(dice, 3),
        f'{label}, given transforms there and back, mm': round(apart, 3),
    }
    warnings: list[str] = []
    if label.startswith(SAME_SPACE):
        affine = deformation.overlap_by_affine(
            read(mask, dtype=np.uint8), read(template.mask, dtype=np.uint8), np.load(start)
        )
        quality[f'{label}, Dice of the masks with an affine transform'] = round(affine, 3)
        warnings = deformation.doubts(label, dice, affine)
    methods = [deformation.given_methods(program, label)]
    facts = write_facts('register_template', warnings, methods, quality=quality)
    return {
        'deformation': here('deformation.npz'),
        'warped': here('warped.nii'),
        'facts': facts,
    }
