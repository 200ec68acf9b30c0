"""Results in template spaces: their templates, names, images, tables and transforms."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl2_bids.bids.absent import absent_content, is_absent
from ssl2_bids.bids.columns import TEMPLATE_LESION_COLUMNS
from ssl2_bids.bids.given_datasets import GivenTransforms
from ssl2_bids.bids.outputs import UnitNames, sidecar_path, table_path, write_table
from ssl2_bids.bids.provenance import bids_uri
from ssl2_bids.bids.sidecars import segmentation_sidecar
from ssl2_bids.bids.template_spaces import (
    Template,
    TemplateSpace,
    client_version,
    command_that_gets,
    find_templates,
    missing_templates,
    parse_space,
    templateflow_home,
)
from ssl2_bids.contrasts import SUFFIXES
from ssl2_bids.errors import DataError, UnavailableError, UsageError
from ssl2_bids.files import write_json
from ssl2_bids.settings import ATLAS_SPACE
from ssl2_bids.volume import Volume, read, read_grid, reorient, write
from ssl2_bids.voxel_grid import same_grid
from ssl2_bids.workflows.segmentation_files import lesion_mask, lesion_rows

if TYPE_CHECKING:
    from ssl2_bids.steps.deformation import Deformation

MNI = 4  # NIfTI code of a template's space
WITHOUT_TEMPLATE = ('anat', *SUFFIXES, ATLAS_SPACE)  # output spaces that are always known


def output_templates(
    output_spaces: Iterable[str],
    digest: Callable[[Path], str] | None = None,
    missing: dict[TemplateSpace, UnavailableError] | None = None,
) -> tuple[Template, ...]:
    """The templates of the asked output spaces, with files that can be used.

    Parameters
    ----------
    digest : gives the SHA-256 of a file; None where nothing is compared with a former run.
    missing : takes the errors of templates that are not on this machine.

    Raises
    ------
    UsageError : an unknown modifier.
    UnavailableError : a template is not on this machine, and ``missing`` is None.
    DataError : a file of a template is damaged.
    """
    spaces: dict[TemplateSpace, None] = {}
    for text in output_spaces:
        name, _, modifier = text.partition(':')
        if name not in WITHOUT_TEMPLATE:
            spaces[parse_space(text)] = None
        elif modifier and (name, modifier) != (ATLAS_SPACE, 'res-1'):
            raise UsageError(f'the output space "{text}" has an unknown modifier')
    found = []
    absent = {} if missing is None else missing
    for space in spaces:
        try:
            found += find_templates([space])
        except UnavailableError as error:
            absent[space] = error
    if absent and missing is None:
        raise missing_templates(list(absent))
    for template in found:
        _check(template)
    if digest is None:
        return tuple(found)
    return tuple(
        replace(template, digests=(digest(template.image), digest(template.mask)))
        for template in found
    )


def given_template(space: TemplateSpace, given: GivenTransforms, root: Path) -> Template | None:
    """A template of which a dataset of ``-d`` has the transforms, by its images on that grid.

    Parameters
    ----------
    root : of the dataset.

    Returns
    -------
    None where the dataset has no T1w and brain mask in this space.

    Raises
    ------
    DataError : the content of one of them is absent.
    """
    cohort = '' if space.cohort is None else f'_cohort-{space.cohort}'
    number = '' if space.resolution is None else f'_res-0*{space.resolution}'
    parts = []
    for suffix in ('desc-preproc_T1w', 'desc-brain_mask'):
        name = re.compile(rf'sub-.*_space-{space.name}{cohort}{number}_{suffix}\.nii(\.gz)?')
        parts.append([p for p in sorted(given.forward.parent.iterdir()) if name.fullmatch(p.name)])
    images, masks = parts
    if not images or not masks:
        return None
    for path in (images[0], masks[0]):
        if is_absent(path):
            raise absent_content(path, root)
    uri = bids_uri(images[0], root, given.dataset)
    return Template(space, images[0], masks[0], uri)


def _check(template: Template) -> None:
    """Read the files of a template once: better now than after hours."""
    advice = f'Remove the file, then: {command_that_gets([template.space], templateflow_home())}'
    for path in (template.image, template.mask):
        try:
            volume = read(path)
        except DataError as error:
            raise DataError(error.message, path=path, advice=advice) from None
        values = volume.data
        if not np.isfinite(values).all() or not values.max() > values.min():
            problem = 'the file of the template is constant or has values that are not finite'
            raise DataError(problem, path=path, advice=advice)
    shape, affine = read_grid(template.image)
    if not same_grid(read(template.mask), Volume(np.empty(shape, bool), affine)):
        problem = 'the brain mask is not on the grid of the T1w image of the template'
        raise DataError(problem, path=template.mask, advice=advice)


def checked_transforms(
    template: Template, given: GivenTransforms, mask: str | Path
) -> tuple[Deformation, tuple[float, float]]:
    """Given transforms, and how well they fit the brain; see ``deformation.check_deformation``.

    Parameters
    ----------
    mask : brain mask in the space of the T1w that the transforms belong to.

    Raises
    ------
    DataError : they cannot be read, or belong to another brain.
    """
    from ssl2_bids.itk import read_transform
    from ssl2_bids.steps import deformation

    model = read(template.mask, dtype=np.uint8)
    found = deformation.given_deformation(
        read_transform(given.forward), read_transform(given.backward), model
    )
    try:
        fit = deformation.check_deformation(
            found, image_mask=reorient(read(mask, dtype=np.uint8)), template_mask=model
        )
    except DataError as error:
        advice = f'{error.advice} Without -d {given.dataset} it is not needed.'
        raise DataError(error.message, path=given.forward, advice=advice) from None
    return found, fit


@dataclass(frozen=True)
class TemplateResults:
    """What the nodes made for one template: paths.

    Attributes
    ----------
    sources : BIDS URIs of the transforms that were given.
    """

    deformation: str
    warped: str
    sources: tuple[str, ...] = ()


def by_template(templates: Iterable[Template]) -> dict[str, Template]:
    """The file with which each template (and cohort) is registered: the finest that was asked."""
    found: dict[str, Template] = {}
    for template in sorted(templates, key=lambda t: float(np.prod(read_grid(t.image)[0])) * -1):
        found.setdefault(template.space.label, template)
    return dict(sorted(found.items()))


def template_outputs(names: UnitNames, templates: Iterable[Template]) -> list[Path]:
    """What is written for templates, without sidecars, in the order of writing."""
    found: list[Path] = []
    for label in dict.fromkeys(t.space.label for t in templates):
        found += transform_paths(names, label)
    for template in templates:
        entities = template.space.entities
        instances = names.path('anat.instances', **entities)
        found += [names.path('anat.probability', **entities), instances, table_path(instances)]
        found.append(names.path('anat.mask', **entities))
    return found


def transform_paths(names: UnitNames, label: str) -> tuple[Path, Path]:
    """The transforms from the reference to a template, and back."""
    return (
        names.path('anat.composite', source=names.reference, target=label),
        names.path('anat.composite', source=label, target=names.reference),
    )


@dataclass(frozen=True)
class Reference:
    """What is brought to templates, on the grid of the reference.

    Attributes
    ----------
    table : one row per lesion, fields of :class:`ssl2_bids.steps.lesions.Lesion`.
    image, mask, probability, instances : BIDS URIs of the written files.
    mark : keys of every sidecar, of a run that is not a usual one.
    model : keys of the sidecars of masks, probabilities and lesions.
    """

    names: UnitNames
    lesions: Volume
    probabilities: Volume
    table: list[dict[str, Any]]
    image: str
    mask: str
    probability: str
    instances: str
    mark: Mapping[str, bool] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)


def write_in_templates(
    reference: Reference, templates: Iterable[Template], results: dict[str, TemplateResults]
) -> None:
    """Write transforms, masks, probabilities and lesions of all template spaces.

    Parameters
    ----------
    results : by the label of the template.
    """
    from ssl2_bids.steps.deformation import read_deformation

    templates = list(templates)
    for label, result in results.items():
        found = read_deformation(result.deformation)
        _write_transforms(reference, by_template(templates)[label], found, result.sources)
        for template in templates:
            if template.space.label == label:
                _write_segmentation(reference, template, found)


def _write_transforms(
    reference: Reference, template: Template, found: Deformation, given: Sequence[str]
) -> None:
    from ssl2_bids.itk import write_composite

    forth, back = transform_paths(reference.names, template.space.label)
    # an ITK transform pulls: the one from A to B maps points of B to points of A
    write_composite(forth, found.matrix, found.forward, found.affine, linear_first=False)
    inverse = np.linalg.inv(found.matrix)
    write_composite(back, inverse, found.backward, found.affine, linear_first=True)
    name, image = template.space.label, reference.names.reference
    made = [reference.image, template.uri, reference.mask]  # its lesions were filled
    of = ', sampled every 2 mm from that of Sources' if given else ''
    for path, source, target, uri, sources in (
        (forth, image, name, template.uri, given[:1] or made),
        (back, name, image, reference.image, given[1:] or made),
    ):
        sidecar = {
            'Description': f'ITK composite transform (affine and field) that resamples images '
            f'in the space of {source} onto {target}{of}.',
            'Sources': list(sources),
            'SpatialReference': uri,
        }
        write_json(sidecar_path(path), sidecar | dict(reference.mark))


def _write_segmentation(reference: Reference, template: Template, found: Deformation) -> None:
    from ssl2_bids.steps import deformation

    names, entities = reference.names, template.space.entities
    shape, affine = read_grid(template.image)
    grid = Volume(np.empty(shape, bool), affine)
    probability = deformation.to_template(reference.probabilities, found, grid)
    instances = deformation.lesions_to_template(reference.lesions, found, grid)
    path = names.path('anat.probability', **entities)
    write(probability, path, code=MNI)
    _write_sidecar(reference, template, path, 'Lesion probability', reference.probability)
    path = names.path('anat.instances', **entities)
    write(instances, path, dtype=np.uint16, code=MNI)
    rows = deformation.lesions_in_template(reference.table, instances, found)
    write_table(table_path(path), lesion_rows(rows), TEMPLATE_LESION_COLUMNS)
    text = 'Lesions with the numbers that they have on the grid of the reference'
    _write_sidecar(reference, template, path, text, reference.instances, TEMPLATE_LESION_COLUMNS)
    path = names.path('anat.mask', **entities)
    write(lesion_mask(instances), path, dtype=np.uint8, code=MNI)
    _write_sidecar(reference, template, path, 'Lesion mask', reference.mask)


def _write_sidecar(
    reference: Reference,
    template: Template,
    path: Path,
    what: str,
    source: str,
    more: dict[str, Any] | None = None,
) -> None:
    sidecar = segmentation_sidecar(
        'Lesion',
        description=f'{what}, brought to {template.space} by a non-linear transform.',
        sources=[source],
        spatial_reference=template.uri,
        model=reference.model,
    )
    if template.space.resolution is not None:
        _, affine = read_grid(template.image)
        edges = ' x '.join(f'{e:.3g}' for e in np.linalg.norm(affine[:3, :3], axis=0))
        of = f'from TemplateFlow (client {client_version()})'
        if template.uri.startswith('bids:'):
            of = f'the grid of {template.uri}'
        sidecar['Resolution'] = (
            f'{template.space.name}, res-{template.space.resolution} ({edges} mm), {of}'
        )
    write_json(sidecar_path(path), sidecar | dict(reference.mark) | (more or {}))
