"""What the report of a session is made from: figures, and one JSON that holds the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ssl2_bids.bids.given_datasets import program_of
from ssl2_bids.bids.outputs import find_summary
from ssl2_bids.bids.provenance import BRAIN_MASKS, software_versions
from ssl2_bids.errors import DataError
from ssl2_bids.files import write_json
from ssl2_bids.reports import viewer
from ssl2_bids.reports.figures import session as figures
from ssl2_bids.steps.lesions import doubts
from ssl2_bids.volume import Volume, read, read_grid, resample
from ssl2_bids.workflows.participant import sloppy
from ssl2_bids.workflows.participant.derivatives import Results
from ssl2_bids.workflows.participant.earlier import earlier_files, result_inputs
from ssl2_bids.workflows.participant.engine.task import read_json
from ssl2_bids.workflows.participant.plan import (
    Plan,
    described_inputs,
    field_strength,
    file_name,
)
from ssl2_bids.workflows.participant.planned_outputs import (
    Figure,
    planned_outputs,
    viewer_contrasts,
)
from ssl2_bids.workflows.participant.templates import by_template
from ssl2_bids.workflows.segmentation_files import (
    adaptation_facts,
    brain_volume,
    lesion_rows,
    volume_rows,
)

INTRODUCTION = (
    'Lesions were segmented with ssl2-bids [@wang2023], a BIDS App [@gorgolewski2017] that runs '
    'on nipype [@gorgolewski2011] and PyBIDS [@yarkoni2019].'
)
NIPREPS = ('fmriprep', 'smriprep')  # programs of one paper
STEPS = (
    'prepare',
    'find_brain',
    'correct_inhomogeneity',
    'register',
    'join_brains',
    'segment',
    'find_template',
    'find_lesions',
    'register_template',
    'measure_distortion',
    'measure_quality',
)  # in the order of the methods


def write_summary(plan: Plan, summary: dict[str, Any]) -> None:
    """Write the summary of a session to its place."""
    write_json(plan.names.path('report.summary'), summary)


def base_summary(plan: Plan, status: str, command: str) -> dict[str, Any]:
    """The facts of any session: done, failed or skipped."""
    session = plan.session
    reference = session.scans.get(session.reference)
    card = plan.card
    return {
        'subject': session.subject,
        'session': session.session,
        'status': status,
        'model': card.reference,
        'adaptation': adaptation_facts(card),
        'reference': {
            'Contrast': session.reference,
            'File': file_name(plan, reference.paths[0]),
            'VoxelSize': [round(s, 3) for s in reference.spacing],
            'Shape': _shape_of(reference.paths[0]),
            'MagneticFieldStrength': field_strength(plan, session.reference),
        }
        if reference and reference.spacing
        else {},
        'inputs': described_inputs(plan),
        'settings': {
            'threshold': plan.settings.threshold,
            'minimum lesion volume (mm^3)': plan.settings.min_lesion_volume,
            'overlap of windows': plan.settings.overlap,
            'skull strip': plan.settings.skull_strip,
            'mirrored average (tta)': plan.settings.tta,
            'low memory': plan.settings.low_mem,
            **sloppy.mark(plan.settings),
            'random seed': plan.settings.random_seed,
        },
        'notes': list(session.warnings),
        'warnings': [
            *([sloppy.WARNING] if plan.settings.sloppy else []),
            *([card.refusal] if card.refusal else []),
            *session.warnings,
        ],
        'unusable': {file_name(plan, path): why for path, why in session.unusable.items()},
        'methods': [],
        'figures': [],
        'viewer': None,
        'lesions': [],
        'volumes': [],
        'brain_volume_mm3': None,
        'brain_mask_flags': [],
        'quality': {},
        'image_quality': {},
        'outputs': [],
        'earlier': earlier_files(plan.names),
        # a failed run leaves the result of the one before, made from these
        'result_inputs': result_inputs(find_summary(plan.names) or {}),
        'provenance': {
            'command': command,
            'configuration': plan.configuration,
            'model sha256': card.sha256,
            **{f'version of {name}': version for name, version in software_versions().items()},
        },
        'error': None,
    }


def finished_summary(
    plan: Plan, results: Results, facts: list[dict[str, Any]], command: str
) -> dict[str, Any]:
    summary = base_summary(plan, 'done', command)
    volume = brain_volume(read(results.brain_mask, dtype=np.uint8))
    table = read_json(results.table)
    methods = methods_of(
        results.contrasts,
        facts,
        {c: field_strength(plan, c) for c in results.contrasts},
        before=[c for c in results.contrasts if plan.session.scans[c].corrected],
        taken=taken_results(plan),
        mask_of_user=has_mask_of_user(plan),
        is_sloppy=plan.settings.sloppy,
    )
    if summary['reference']['MagneticFieldStrength'] is None:
        summary['warnings'].append(
            f'the field strength of {plan.session.reference} is unknown: no '
            'MagneticFieldStrength in its sidecars and no --field-strength'
        )
    rows = volume_rows(table, volume)
    summary['warnings'] += [w for f in facts for w in f['warnings']]
    summary['warnings'] += doubts(rows[0]['lesion_load'])
    summary['settings'] |= {
        'device': results.device,
        'channels seen by the model': ', '.join(results.channels),
    }
    root = plan.names.root
    return summary | {
        'methods': list(dict.fromkeys(methods)),
        'lesions': lesion_rows(table),
        'volumes': rows,
        'brain_volume_mm3': round(volume, 1),
        'brain_mask_flags': results.brain_flags,
        'quality': {k: v for f in facts for k, v in f.get('quality', {}).items()},
        'image_quality': results.quality,
        'outputs': [p.relative_to(root).as_posix() for p in planned_outputs(plan)],
    }


def _shape_of(path: Path) -> list[int]:
    """Of the reference; empty where the file is gone, which the step that read it names."""
    try:
        return list(read_grid(path)[0])
    except DataError:
        return []


def has_mask_of_user(plan: Plan) -> bool:
    """Whether the brain mask was given with ``--brain-mask``."""
    return plan.brain_mask is not None and plan.brain_mask.dataset == BRAIN_MASKS


def taken_results(plan: Plan) -> list[str]:
    """A sentence for each dataset of ``-d`` on what was taken from it."""
    sentences = []
    for name, root in plan.settings.derivatives.items():
        scans = [s for s in plan.session.scans.values() if s.dataset == name]
        parts = [
            f'the {"bias-corrected " if s.corrected else ""}{s.contrast} image' for s in scans
        ]
        parts += [
            f'the {companion.role}'
            for scan in plan.session.scans.values()
            for companion in scan.companions
            if not scan.dataset and file_name(plan, companion.path).startswith(f'bids:{name}:')
        ]
        if plan.brain_mask and plan.brain_mask.dataset == name:
            parts.append('the brain mask')
        if parts:
            program = program_of(root)
            cited = ' [@esteban2019]' if program.lower().startswith(NIPREPS) else ''
            sentences.append(f'Results of {program}{cited} were used: {", ".join(parts)}.')
    return sentences


def in_order(facts: list[dict[str, Any]], contrasts: list[str]) -> list[dict[str, Any]]:
    """The sentences of the steps, in the order of processing, the reference's first."""

    def place(one: dict[str, Any]) -> tuple[int, int]:
        contrast = one.get('contrast')
        return STEPS.index(one['step']), contrasts.index(contrast) if contrast else 0

    return sorted(facts, key=place)


def methods_of(
    contrasts: list[str],
    facts: list[dict[str, Any]],
    fields: Mapping[str, float | None],
    *,
    before: Sequence[str] = (),
    taken: Sequence[str] = (),
    mask_of_user: bool = True,
    is_sloppy: bool = False,
) -> list[str]:
    """The sentences of all steps, in the order of processing.

    Parameters
    ----------
    contrasts : the reference first.
    facts : of the nodes, in order.
    fields : field strength of each contrast, T, None if unknown.
    before : contrasts that were corrected for inhomogeneity before.
    taken : sentences on what was taken from other programs.
    mask_of_user : whether a brain mask that was given is of ``--brain-mask``; one of ``-d`` is
        in ``taken``.
    is_sloppy : the run has the settings of ``--sloppy``.
    """
    from ssl2_bids.steps import brain, inhomogeneity, preprocess, registration

    corrected = [c for c in contrasts if preprocess.needs_n4(c, fields.get(c)) and c not in before]
    sentences = {step: [m for f in facts if f['step'] == step for m in f['methods']]
                 for step in STEPS}  # fmt: skip
    if not mask_of_user:
        sentences['find_brain'] = [m for m in sentences['find_brain'] if m != brain.GIVEN]
    sentences['correct_inhomogeneity'] = [inhomogeneity.methods(corrected)] if corrected else []
    sentences['register'] = [registration.methods(contrasts[1:], contrasts[0])]
    before_all = [INTRODUCTION, *([sloppy.METHODS] if is_sloppy else [])]
    return [*before_all, *taken, *(m for step in STEPS for m in sentences[step] if m)]


@dataclass(frozen=True)
class Shown:
    """What the report shows, on the grid of the reference, which is the first image.

    Attributes
    ----------
    distortions : by contrast, mm, on grids of their own.
    templates : by label: the template, its brain mask, and the reference on their grid.
    """

    images: dict[str, Volume]  # by contrast
    instances: Volume
    mask: Volume
    distortions: dict[str, Volume] = field(default_factory=dict)
    templates: dict[str, tuple[Volume, Volume, Volume]] = field(default_factory=dict)


def read_shown(plan: Plan, results: Results) -> Shown:
    files = [results.corrected[0], *results.resampled]
    return Shown(
        images={c: read(f, contrast=c) for c, f in zip(results.contrasts, files, strict=True)},
        instances=read(results.instances, dtype=np.uint16),
        mask=read(results.brain_mask, dtype=np.uint8),
        distortions={c: read(path) for c, path in results.distortions.items()},
        templates={
            label: (
                read(template.image),
                read(template.mask, dtype=np.uint8),
                read(results.templates[label].warped),
            )
            for label, template in by_template(plan.templates).items()
        },
    )


def draw(planned: Sequence[Figure], shown: Shown, root: Path) -> list[dict[str, str]]:
    """Draw the figures of a session; their list, in the order of the page.

    Parameters
    ----------
    root : the output folder.
    """
    drawn = []
    for figure in planned:
        figure.path.parent.mkdir(parents=True, exist_ok=True)
        title, caption = _draw_one(figure, shown)
        file = figure.path.relative_to(root).as_posix()
        drawn.append({'File': file, 'Kind': figure.kind, 'Title': title, 'Caption': caption})
    return drawn


def write_viewer(plan: Plan, shown: Shown) -> dict[str, Any]:
    """Write the volumes of the interactive viewer; what the page must know of it."""
    path, root = plan.names.path('report.viewer'), plan.names.root
    images = [shown.images[contrast] for contrast in viewer_contrasts(plan)]
    resampled = viewer.write_volumes(path, images, shown.instances, shown.mask)
    return {
        'Volumes': path.relative_to(root).as_posix(),
        'Program': plan.names.path('report.viewer_program').relative_to(root).as_posix(),
        'Resampled': resampled,
    }


def _draw_one(figure: Figure, shown: Shown) -> tuple[str, str]:
    """Draw a figure; its title and caption."""
    contrast, path = figure.contrast, figure.path
    if figure.kind == 'template':
        return _draw_template(figure, shown)
    image, instances, mask = shown.images[contrast], shown.instances, shown.mask
    reference = next(iter(shown.images.values()))
    if figure.kind == 'lesions':
        title = f'Lesions on {contrast}'
        figures.draw_lesions(image, instances, path, title=title, brain=mask)
        return title, 'Three planes through the largest lesions.'
    if figure.kind == 'mosaic':
        title = f'The whole brain on {contrast}'
        figures.draw_mosaic(image, instances, path, title=title, brain=mask)
        return title, 'Axial slices at even distances, with the outlines of the lesions.'
    if figure.kind == 'brain':
        title = f'Brain mask on {contrast}'
        figures.draw_brain_mask(image, mask, path, title=title)
        return title, 'The outline should follow the surface of the brain.'
    if figure.kind == 'distortion':
        title = f'Distortion between {contrast} and {reference.contrast}'
        length = resample(shown.distortions[contrast], image.affine, image.shape)
        figures.draw_distortion(length, image, mask, path, title=title)
        return (
            title,
            'What the rigid registration leaves over; the images are not corrected for it.',
        )
    title = f'{contrast} aligned to {reference.contrast}'
    figures.draw_registration(
        reference,
        image,
        mask,
        path,
        title=title,
        fixed_name=reference.contrast,
        moving_name=contrast,
    )
    return title, 'The two images alternate: only the contrast should change.'


def _draw_template(figure: Figure, shown: Shown) -> tuple[str, str]:
    model, mask, warped = shown.templates[figure.contrast]
    reference = next(iter(shown.images))
    title = f'{reference} in the space of {figure.contrast}'
    figures.draw_registration(
        model,
        warped,
        mask,
        figure.path,
        title=title,
        fixed_name='template',
        moving_name=reference,
    )
    return title, 'Template and image alternate: ventricles and the large sulci should not move.'
