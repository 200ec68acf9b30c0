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
from ssl2_bids.errors import about
from ssl2_bids.files import write_json
from ssl2_bids.steps import brain as brain_step
from ssl2_bids.steps import preprocess
from ssl2_bids.steps.inhomogeneity import ITERATIONS
from ssl2_bids.volume import read, reorient, resample, thin, write
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
    source = '' if made.brain_source is None else _here('brain_source.nii')
    facts = _facts('prepare', made.warnings, made.methods, contrast=scan.contrast)
    maps = {suffix: _here(f'{suffix}.nii') for suffix in made.maps}
    return {
        'image': _here('image.nii'),
        'brain_source': source,
        'maps': maps,
        'facts': facts,
    }


def find_brain(
    image: str,
    source: str,
    contrast: str,
    mode: str,
    stripped: bool | None,
    threads: int,
    given: str,
    working_voxel: float = 0.0,
) -> dict[str, str]:
    """The brain mask of one image; ``mode`` is auto, skip or force.

    Parameters
    ----------
    source : the image in which the brain is looked for instead; empty for none.
    given : the mask of the user on the same grid; empty for none.
    working_voxel : mm; what the image was thinned to, as the given mask is here.

    Raises
    ------
    DataError : there is no brain, or the given mask is empty.
    """
    volume = read(image, contrast=contrast)
    if given:
        with about(given):
            of_user = reorient(read(given))
            if working_voxel:
                of_user = thin(of_user, working_voxel)
            mask, brain_only, warnings = preprocess.given_mask(
                volume, of_user, mode=mode, stripped=stripped
            )
        write(mask, 'mask.nii', dtype=np.uint8)
        methods = [brain_step.GIVEN]
        facts = _facts('find_brain', warnings, methods, contrast=contrast, brain_only=brain_only)
        return {'mask': _here('mask.nii'), 'facts': facts}
    mask, brain_only, doubts = preprocess.brain_mask(
        volume,
        mode=mode,
        stripped=stripped,
        source=read(source, contrast='INV2') if source else None,
        threads=threads,
    )
    write(mask, 'mask.nii', dtype=np.uint8)
    methods = brain_step.methods(brain_only, in_inv2=bool(source))
    facts = _facts(  # the doubts become flags of the image
        'find_brain', [], methods, contrast=contrast, brain_only=brain_only, doubts=doubts
    )
    return {'mask': _here('mask.nii'), 'facts': facts}


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
    return {'image': _here('image.nii')}


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
    facts = _facts(
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
        'matrix': _here('matrix.npy'),
        'resampled': _here('resampled.nii'),
        'facts': facts,
    }


def join_brains(
    image: str, contrasts: list[str], masks: list[str], matrices: list[str], seed: int, given: str
) -> dict[str, str]:
    """The brain mask of the session, from those of its contrasts, and the reasons to doubt it.

    ``masks`` are in the order of ``contrasts``, the reference first; ``matrices`` belong to the
    others; ``image`` is the reference; the mask of the contrast ``given`` is the user's, and alone
    counts.
    """
    from ssl2_bids.steps import brain_check, brain_vote

    reference = contrasts[0]
    found = brain_vote.vote(
        read(image, contrast=reference),
        {c: read(path, dtype=np.uint8) for c, path in zip(contrasts, masks, strict=True)},
        {c: np.load(path) for c, path in zip(contrasts[1:], matrices, strict=True)},
        seed=seed,
        given=given,
    )
    write(found.mask, 'mask.nii', dtype=np.uint8)
    warnings = [flag.text for flag in found.flags]
    if any(flag.code not in brain_check.OF_IMAGE for flag in found.flags):
        warnings.append(brain_check.ADVICE)
    voters = [given] if given else [c for c in contrasts if c not in found.without_vote]
    facts = _facts(
        'join_brains',
        warnings,
        [brain_vote.methods(voters)],
        flags=[flag.as_json() for flag in found.flags],
        without_vote=found.without_vote,
        agreement=found.agreement,
        coverage=found.coverage,
        voters=voters,
    )
    if found.expected.is_reliable:
        np.save('template.npy', found.expected.matrix)
    start = _here('template.npy') if found.expected.is_reliable else ''
    return {'mask': _here('mask.nii'), 'template_start': start, 'facts': facts}


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
    voxel_size: float = 0.0,
) -> dict[str, Any]:
    """Lesion probability on the reference grid.

    ``matrices`` belong to all but the first image, which is the reference; ``voxel_size``, mm, is
    another one than the model's.
    """
    import torch

    from ssl2_bids.networks.weights import load_network, read_card
    from ssl2_bids.steps import segmentation

    torch.set_num_threads(threads)
    card = read_card(Path(model))
    if voxel_size:
        card = replace(card, voxel_size=(voxel_size,) * 3)
    volumes = {c: read(p, contrast=c) for c, p in zip(contrasts, images, strict=True)}
    transforms = {c: np.load(path) for c, path in zip(contrasts[1:], matrices, strict=True)}
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
    facts = _facts(
        'segment',
        [],
        [sentence],
        channels=list(result.channels),
        device=device.partition(':')[0],
    )
    return {
        'probability': _here('probability.nii'),
        'uncertainty': _here('uncertainty.nii') if result.uncertainty is not None else '',
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
    facts = _facts('find_template', warnings, methods, quality=agreement, dice=found.brain_dice)
    return {'matrix': _here('matrix.npy'), 'facts': facts}


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
    facts = _facts('find_lesions', [], methods)
    return {'instances': _here('instances.nii'), 'table': _here('table.json'), 'facts': facts}


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
    facts = _facts('register_template', warnings, methods, quality=quality)
    return {
        'deformation': _here('deformation.npz'),
        'warped': _here('warped.nii'),
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
    facts = _facts('register_template', warnings, methods, quality=quality)
    return {
        'deformation': _here('deformation.npz'),
        'warped': _here('warped.nii'),
        'facts': facts,
    }


def _here(name: str) -> str:
    return str(Path.cwd() / name)


def _facts(step: str, warnings: list[str], methods: list[str], **more: Any) -> str:
    content = {'step': step, 'warnings': list(warnings), 'methods': methods, **more}
    write_json('facts.json', content)
    return _here('facts.json')
