"""From the nodes' files to BIDS derivatives: names, sidecars, order of writing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl2_bids.bids.given_datasets import program_of
from ssl2_bids.bids.outputs import (
    UnitNames,
    join_entities,
    sidecar_if_any,
    sidecar_path,
)
from ssl2_bids.bids.provenance import BRAIN_MASKS, bids_uri
from ssl2_bids.bids.sidecars import image_sidecar, map_keys, segmentation_sidecar
from ssl2_bids.files import write_json, write_text
from ssl2_bids.raw_grid import RawGrid, read_raw_grid, write_on
from ssl2_bids.settings import ATLAS_SPACE, ATLAS_URI
from ssl2_bids.volume import Volume, read, resample, write
from ssl2_bids.voxel_grid import Grid
from ssl2_bids.workflows.participant import sloppy
from ssl2_bids.workflows.participant.engine.task import read_json
from ssl2_bids.workflows.participant.plan import (
    Plan,
    channels_of,
    field_strength,
    input_uri,
    needs_correction,
)
from ssl2_bids.workflows.participant.planned_outputs import (
    extra_spaces,
    is_denoised,
    map_paths,
    preproc_path,
    quality_path,
)
from ssl2_bids.workflows.participant.quality import quality_sidecar
from ssl2_bids.workflows.participant.templates import (
    MNI,
    Reference,
    TemplateResults,
    write_in_templates,
)
from ssl2_bids.workflows.segmentation_files import (
    SegmentationFiles,
    keys_of_model,
    lesion_mask,
    model_keys,
    read_transform,
    write_segmentation,
)


@dataclass(frozen=True)
class Results:
    """What the nodes made for one session: paths, and the order of contrasts (reference first)."""

    contrasts: list[str]
    prepared: list[str]
    maps: dict[str, dict[str, str]]  # by contrast and suffix
    description_of_unit1: str  # empty without UNIT1
    corrected: list[str]
    resampled: list[str]  # all but the reference
    matrices: list[str]  # all but the reference
    distortions: dict[str, str]  # by contrast, where measured
    brain_mask: str
    brain_flags: list[dict[str, Any]]  # why it cannot be right, as in the sidecar
    brain_voters: list[str]  # the contrasts whose masks were joined
    brain_only: list[bool]
    quality: dict[str, dict[str, Any]]  # by contrast: flags, metrics, why there are none
    probability: str
    uncertainty: str
    instances: str
    table: str
    template_matrix: str
    templates: dict[str, TemplateResults]  # by the label of the template
    channels: list[str]
    device: str


def write_derivatives(plan: Plan, results: Results) -> dict[str, Any]:
    """Write all outputs of a session but the mask's sidecar, whose content is returned.

    That sidecar is the done marker: the caller writes it when everything else stands, and has
    taken away those of former runs, so that a stop in between leaves no mixture that looks
    finished.
    """
    grid = raw_grid(plan, plan.session.reference)
    brain_mask = read(results.brain_mask, dtype=np.uint8)
    _write_brain_mask(plan, results, brain_mask, grid)
    _write_images(plan, results, grid)
    _write_transforms(plan, results)
    _write_quality(plan, results)
    channels = channels_of(plan.session)
    found = SegmentationFiles(
        names=plan.names,
        grid=grid,
        images=[preproc_path(plan, c) for c in results.contrasts if c in channels],
        brain_mask=brain_mask,
        probability=read(results.probability),
        uncertainty=read(results.uncertainty) if results.uncertainty else None,
        is_committee=plan.card.is_committee,
        instances=read(results.instances, dtype=np.uint16),
        table=read_json(results.table),
        model=model_keys(
            plan.card,
            threshold=plan.settings.threshold,
            minimum_volume=plan.settings.min_lesion_volume,
            channels=results.channels,
            device=results.device,
        )
        | sloppy.mark(plan.settings)
        | {'PreprocessingHash': plan.preprocessing, 'ConfigurationHash': plan.configuration},
    )
    sidecar = write_segmentation(found)
    for space in extra_spaces(plan):
        _write_mask_elsewhere(plan, results, found, space)
    write_in_templates(_for_templates(plan, found), plan.templates, results.templates)
    return sidecar


def _for_templates(plan: Plan, found: SegmentationFiles) -> Reference:
    names = plan.names
    return Reference(
        names=names,
        lesions=found.instances,
        probabilities=found.probability,
        table=list(found.table),
        image=_reference_uri(plan),
        mask=_own(names, names.path('anat.mask')),
        probability=_own(names, names.path('anat.probability')),
        instances=_own(names, names.path('anat.instances')),
        mark=sloppy.mark(plan.settings),
        model=keys_of_model(found.model),
    )


def _own(names: UnitNames, path: Path) -> str:
    return bids_uri(path, names.root)


def _raw(plan: Plan, contrast: str) -> list[str]:
    sources = plan.session.scans[contrast].sources
    return [input_uri(plan, path) for path in sources]


def _reference_uri(plan: Plan) -> str:
    return _own(plan.names, preproc_path(plan, plan.session.reference))


def _write_brain_mask(plan: Plan, results: Results, mask: Volume, grid: RawGrid) -> None:
    path = plan.names.path('anat.brain_mask')
    write_on(grid, mask, path, dtype=np.uint8)
    if given := plan.brain_mask:
        of = 'the user' if given.dataset == BRAIN_MASKS else program_of(given.root)
        description = f'Brain mask of {of}, given on the grid of {given.contrast}.'
        sources = [bids_uri(given.path, given.root, given.dataset)]
    else:
        description = f'Brain mask of the session, from {", ".join(results.brain_voters)}.'
        sources = [uri for contrast in results.brain_voters for uri in _raw(plan, contrast)]
    sidecar = segmentation_sidecar(
        'Brain',
        description=description,
        sources=sources,
        spatial_reference=_reference_uri(plan),
    )
    if given:
        del sidecar['Manual']
        stated = sidecar_if_any(given.path).get('Manual')
        sidecar |= {'Manual': stated} if isinstance(stated, bool) else {}
    more = {'BrainMaskFlags': results.brain_flags, 'PreprocessingHash': plan.preprocessing}
    _write_sidecar(plan, path, sidecar | more)


def _write_images(plan: Plan, results: Results, grid: RawGrid) -> None:
    session = plan.session
    images = [results.corrected[0], *results.resampled]
    for number, (contrast, file) in enumerate(zip(results.contrasts, images, strict=True)):
        path = preproc_path(plan, contrast)
        write_on(grid, read(file), path)
        moved = '' if number == 0 else ', rigidly aligned and resampled to the reference'
        corrected = ', corrected for inhomogeneity' if needs_correction(plan, contrast) else ''
        if session.scans[contrast].corrected:
            maker = program_of(plan.settings.derivatives[session.scans[contrast].dataset])
            corrected = f', corrected for inhomogeneity by {maker}'
        sidecar = image_sidecar(
            session.scans[contrast].metadata,
            description=f'{contrast} image{corrected}{moved}.',
            sources=_raw(plan, contrast),
            spatial_reference=_reference_uri(plan),
            skull_stripped=results.brain_only[number],
        )
        _write_sidecar(plan, path, sidecar)
    if 'UNIT1' in session.scans and is_denoised(session.scans['UNIT1']):
        _write_denoised(plan, results)
    for contrast in results.contrasts:
        _write_maps(plan, results, contrast)


def _write_denoised(plan: Plan, results: Results) -> None:
    number = results.contrasts.index('UNIT1')
    entities = join_entities(plan.session.scans['UNIT1'].entities)
    path = plan.names.path('anat.denoised', entities=entities)
    write_on(raw_grid(plan, 'UNIT1'), read(results.prepared[number]), path)
    sidecar = image_sidecar(
        plan.session.scans['UNIT1'].metadata,
        description=results.description_of_unit1,
        sources=_raw(plan, 'UNIT1'),
        spatial_reference=_own(plan.names, path),
        skull_stripped=results.brain_only[number],
    )
    _write_sidecar(plan, path, sidecar)


def _write_maps(plan: Plan, results: Results, contrast: str) -> None:
    scan = plan.session.scans[contrast]
    number = results.contrasts.index(contrast)
    for suffix, path in map_paths(plan, contrast).items():
        write_on(raw_grid(plan, contrast), read(results.maps[contrast][suffix]), path)
        sidecar = image_sidecar(
            scan.metadata,
            description=f'{suffix.removesuffix("map")} in s; 0 in air.',
            sources=_raw(plan, contrast),
            spatial_reference=_own(plan.names, path),
            skull_stripped=results.brain_only[number],
        )
        _write_sidecar(plan, path, sidecar | map_keys(scan.maps[suffix]))


def _write_quality(plan: Plan, results: Results) -> None:
    for contrast, content in results.quality.items():
        sidecar = quality_sidecar(
            content,
            description=f'Quality of the {contrast} image.',
            sources=_raw(plan, contrast),
            contrast=contrast,
            field_strength=field_strength(plan, contrast),
        )
        _write_sidecar(plan, quality_path(plan, contrast), sidecar)


def _write_sidecar(plan: Plan, path: Path, content: Mapping[str, Any]) -> None:
    """The JSON beside an image or table, with the mark of a sloppy run."""
    write_json(sidecar_path(path), {**content, **sloppy.mark(plan.settings)})


def _write_transforms(plan: Plan, results: Results) -> None:
    from ssl2_bids.itk import to_itk

    names, reference = plan.names, plan.session.reference
    for contrast, file in zip(results.contrasts[1:], results.matrices, strict=True):
        path = names.path('anat.transform', source=contrast, target=reference)
        write_text(path, to_itk(np.load(file)))
    matrix = np.load(results.template_matrix)
    pairs = ((ATLAS_SPACE, reference, np.linalg.inv(matrix)), (reference, ATLAS_SPACE, matrix))
    for source, target, pull in pairs:
        # an ITK transform pulls: the one from A to B maps points of B to points of A
        path = names.path('anat.transform', source=source, target=target)
        write_text(path, to_itk(pull))


def template_transform(names: UnitNames) -> np.ndarray:
    """The transform of a session's reference and the template, as it was written.

    Returns
    -------
    Matrix (4, 4): points of the template to points of the reference, RAS+ mm.

    Raises
    ------
    DataError : it is missing or cannot be read.
    """
    path = names.path('anat.transform', source=names.reference, target=ATLAS_SPACE)
    return read_transform(path)


def _write_mask_elsewhere(
    plan: Plan, results: Results, found: SegmentationFiles, space: str
) -> None:
    mask = lesion_mask(found.instances)
    path = plan.names.path('anat.mask', space=space)
    if space == ATLAS_SPACE:
        from ssl2_bids.steps.template import template

        there = _move(mask, template(), np.load(results.template_matrix))
        write(there, path, dtype=np.uint8, code=MNI)
    else:
        grid = raw_grid(plan, space)
        matrix = np.load(results.matrices[results.contrasts.index(space) - 1])
        there = _move(mask, grid, np.linalg.inv(matrix))
        write_on(grid, there, path, dtype=np.uint8)
    sidecar = segmentation_sidecar(
        'Lesion',
        description=f'Lesion mask on the grid of {space}.',
        sources=[_own(plan.names, plan.names.path('anat.mask'))],
        spatial_reference=ATLAS_URI if space == ATLAS_SPACE else _raw(plan, space)[0],
        model=keys_of_model(found.model),
    )
    _write_sidecar(plan, path, sidecar)


def _move(mask: Volume, grid: Grid, transform: np.ndarray) -> Volume:
    """A mask on another grid: voxels of which it fills half; ``transform`` pulls."""
    share = resample(mask, grid.affine, grid.shape, transform=transform)
    return Volume((share.data >= 0.5).astype(np.uint8), grid.affine)


def raw_grid(plan: Plan, contrast: str) -> RawGrid:
    """The grid of the scan of a contrast; of its first echo."""
    return read_raw_grid(plan.session.scans[contrast].paths[0])
