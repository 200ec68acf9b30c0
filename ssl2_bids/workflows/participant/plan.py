"""What is to be done for one session: decided before anything runs, carried to every node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ssl2_bids import __version__
from ssl2_bids.bids.brain_masks import GivenMask, given_brain_mask
from ssl2_bids.bids.inputs import Session
from ssl2_bids.bids.outputs import UnitNames, join_entities, sidecar_path, table_path
from ssl2_bids.bids.provenance import configuration_hash, fingerprint
from ssl2_bids.bids.scan import Scan
from ssl2_bids.bids.sidecars import kept_metadata
from ssl2_bids.bids.template_spaces import Template
from ssl2_bids.contrasts import SUFFIXES
from ssl2_bids.errors import DataError
from ssl2_bids.networks.weights import Card
from ssl2_bids.settings import (
    ATLAS_SPACE,
    PREPROCESSING,
    SEGMENTATION,
    ParticipantSettings,
    deciding,
)
from ssl2_bids.steps.inhomogeneity import is_strong
from ssl2_bids.workflows.participant.templates import template_outputs

PARTIAL_FOURIER = ('PartialFourier', 'SlicePartialFourier')  # keys that decide a T1 map
# beside the reference, the first that is there
VIEWED = tuple(sorted(SUFFIXES, key=lambda suffix: suffix != 'FLAIR'))


@dataclass(frozen=True)
class Plan:
    """One unit of work.

    Attributes
    ----------
    settings : of the run; threshold, minimum volume and overlap are those that will be used,
        the model's own where none was asked.
    templates : of the output spaces that were asked.
    sources : by contrast, names below ``bids_dir`` and SHA-256 of the files it is made from.
    preprocessing : hash of all that decides the preprocessed images and the brain mask.
    configuration : hash of all that decides the result; both are empty where no digest was asked.
    brain_mask : the brain mask that was given for the session, ``brain_mask_sha256`` its content.
    """

    session: Session
    names: UnitNames
    card: Card
    settings: ParticipantSettings
    templates: tuple[Template, ...] = ()
    sources: Mapping[str, list[tuple[str, str]]] = field(default_factory=dict)
    preprocessing: str = ''
    configuration: str = ''
    brain_mask: GivenMask | None = None
    brain_mask_sha256: str = ''


def make_plan(
    session: Session,
    card: Card,
    settings: ParticipantSettings,
    digest: Callable[[Path], str] | None = None,
    templates: tuple[Template, ...] = (),
) -> Plan:
    """Settle names and settings of one session.

    Parameters
    ----------
    digest : gives the SHA-256 of a file; None where nothing will be compared with a former run.
    """
    names = UnitNames(
        settings.output_dir, session.subject, session.session, session.reference, card.label
    )
    settled = replace(
        settings,
        threshold=_first(settings.threshold, card.threshold_for(session.scans)),
        min_lesion_volume=_first(settings.min_lesion_volume, card.minimum_lesion_volume),
        overlap=_first(settings.overlap, card.overlap),
    )
    plan = _with_brain_mask(Plan(session, names, card, settled, templates))
    return plan if digest is None else _identify(plan, digest)


def _with_brain_mask(plan: Plan) -> Plan:
    """The plan with the brain mask that was given for it, or with why that cannot be used."""
    session, folder = plan.session, plan.settings.brain_mask
    if folder is None or session.problem or session.skipped:
        return plan
    contrasts = sorted(session.scans, key=lambda contrast: contrast != session.reference)
    images = {contrast: session.scans[contrast].paths[0] for contrast in contrasts}
    try:
        found = given_brain_mask(folder, session.subject, session.session, images)
    except DataError as error:
        return replace(plan, session=replace(session, problem=error))
    if found is None:
        note = 'no mask for this session in the folder of --brain-mask: the brain is extracted'
        return replace(plan, session=replace(session, warnings=(*session.warnings, note)))
    return replace(plan, brain_mask=found)


def _first(asked: float | None, own: float) -> float:
    return own if asked is None else asked


def _identify(plan: Plan, digest: Callable[[Path], str]) -> Plan:
    """The plan with the hashes of what decides its results."""
    session = plan.session
    sources: dict[str, list[tuple[str, str]]] = {}
    unusable: list[tuple[str, str]] = []
    mask = ''
    if not session.problem:
        try:
            for contrast, scan in session.scans.items():
                sources[contrast] = fingerprint(scan.sources, plan.settings.bids_dir, digest)
            unusable = fingerprint(session.unusable, plan.settings.bids_dir, digest)
            mask = digest(plan.brain_mask.path) if plan.brain_mask else ''
        except OSError as error:
            problem = DataError(
                f'cannot be read ({error.strerror})',
                advice='Copy it again, or change its permissions.',
                path=error.filename,
            )
            return _identify(replace(plan, session=replace(session, problem=problem)), digest)
    preprocessing = configuration_hash(
        {
            'version': __version__,
            'sources': sources,
            'stripped': {c: is_stripped(plan, c) for c in sources},
            'strong_field': [c for c in sources if is_strong(field_strength(plan, c))],
            'maps': {c: map_settings(session.scans[c]) for c in sources},
            'unusable': unusable,
            'reference': session.reference,
            'brain_mask': [plan.brain_mask.contrast, mask] if plan.brain_mask else [],
            **deciding(plan.settings, PREPROCESSING),
        }
    )
    configuration = configuration_hash(
        {
            'preprocessing': preprocessing,
            'model': plan.card.identity,
            **deciding(plan.settings, SEGMENTATION),
            'output_spaces': extra_spaces(plan),
            'templates': {str(t.space): t.digests for t in plan.templates},
            'metadata': {c: kept_metadata(session.scans[c].metadata) for c in sources},
            'field_strength': {c: field_strength(plan, c) for c in sources},
            'frequency': {c: imaging_frequency(plan, c) for c in sources},
        }
    )
    return replace(
        plan,
        sources=sources,
        preprocessing=preprocessing,
        configuration=configuration,
        brain_mask_sha256=mask,
    )


def map_settings(scan: Scan) -> dict[str, Any]:
    """All metadata that decide the maps of a scan, and with a B1+ map the scan itself."""
    if not scan.maps:
        return {}
    return {
        'maps': scan.maps,
        'echo times': scan.echo_times,
        'settings': [[c.role, kept_metadata(c.metadata)] for c in scan.companions],
        'more': [
            {
                key: c.metadata[key]
                for key in ('EchoSpacing', *PARTIAL_FOURIER)
                if key in c.metadata
            }
            for c in scan.companions
        ],
    }


def is_stripped(plan: Plan, contrast: str) -> bool | None:
    """Whether an image is brain only, by its sidecar; None if the key is absent."""
    stripped = plan.session.scans[contrast].metadata.get('SkullStripped')
    return stripped if isinstance(stripped, bool) else None


def field_strength(plan: Plan, contrast: str) -> float | None:
    """Tesla, from the sidecar, else from the option, else unknown."""
    known = plan.session.scans[contrast].field_strength
    return plan.settings.field_strength if known is None else known


def imaging_frequency(plan: Plan, contrast: str) -> float | None:
    """MHz, as dcm2niix writes it into the sidecar; None if unknown."""
    value = plan.session.scans[contrast].metadata.get('ImagingFrequency')
    return value if isinstance(value, int | float) and value > 0 else None


def below_raw(plan: Plan, path: Path) -> str:
    """A file of the dataset relative to its root."""
    return path.relative_to(plan.settings.bids_dir).as_posix()


def described_inputs(plan: Plan) -> list[dict[str, Any]]:
    """The rows of the report on each image that was found: its use, or why it was left out."""
    session = plan.session
    rows: list[dict[str, Any]] = []
    for contrast, scan in session.scans.items():
        for path in scan.sources:
            role, why = 'channel', 'input of the model'
            if path not in scan.paths:
                role, why = 'auxiliary', _use_of(scan, path)
            elif contrast == session.reference:
                role, why = 'reference', 'grid of the results; also input of the model'
            rows.append(
                {
                    'Contrast': contrast,
                    'File': below_raw(plan, path),
                    'Use': role,
                    'Why': why,
                    'VoxelSize': [round(s, 3) for s in scan.spacing],
                    'MagneticFieldStrength': field_strength(plan, contrast),
                }
            )
    rows += [
        {'Contrast': '', 'File': below_raw(plan, path), 'Use': 'dropped', 'Why': why}
        for path, why in session.dropped
    ]
    return rows


def _use_of(scan: Scan, path: Path) -> str:
    """What a companion of an image is for."""
    role = next(companion.role for companion in scan.companions if companion.path == path)
    if role.startswith('INV'):
        return (
            'UNIT1 is computed from it' if scan.is_computed else 'for the noise removal of UNIT1'
        )
    if role == 'T1map':
        return 'T1 map of the scanner'
    return 'for the correction of UNIT1 and T1 for B1+'


def planned_outputs(plan: Plan) -> list[Path]:
    """The images and tables that a unit will write, in the order of writing."""
    names, session = plan.names, plan.session
    found = [names.path('anat.brain_mask')]
    for contrast in session.scans:
        found += [preproc_path(plan, contrast), *_extra_images(plan, contrast)]
        found.append(quality_path(plan, contrast))
        if contrast != session.reference:
            found.append(names.path('anat.transform', source=contrast, target=session.reference))
    found += [
        names.path('anat.transform', source=session.reference, target=ATLAS_SPACE),
        names.path('anat.transform', source=ATLAS_SPACE, target=session.reference),
        names.path('anat.probability'),
        names.path('anat.instances'),
        table_path(names.path('anat.instances')),
        names.path('anat.volumes'),
    ]
    if plan.settings.uncertainty:
        found.append(names.path('anat.uncertainty'))
    found += [names.path('anat.mask', space=s) for s in extra_spaces(plan)]
    found += template_outputs(names, plan.templates)
    return [*found, names.path('anat.mask')]


def preproc_path(plan: Plan, contrast: str) -> Path:
    """Where the preprocessed image of a contrast goes."""
    scan = plan.session.scans[contrast]
    several = len(scan.paths) > 1
    kind = 'anat.preproc_reference' if contrast == plan.session.reference else 'anat.preproc'
    if several and contrast != plan.session.reference:
        return plan.names.path('anat.meanecho')
    entities = '' if several else join_entities(scan.entities)
    return plan.names.path(kind, contrast=contrast, entities=entities)


def quality_path(plan: Plan, contrast: str) -> Path:
    """Where the metrics of the image of a contrast go."""
    scan = plan.session.scans[contrast]
    entities = '' if len(scan.paths) > 1 else join_entities(scan.entities)
    return plan.names.path('anat.quality', contrast=contrast, entities=entities)


def _extra_images(plan: Plan, contrast: str) -> list[Path]:
    scan = plan.session.scans[contrast]
    found = list(map_paths(plan, contrast).values())
    if is_denoised(scan):
        found.insert(0, plan.names.path('anat.denoised', entities=join_entities(scan.entities)))
    return found


def is_denoised(scan: Scan) -> bool:
    """Whether the background noise of a UNIT1 is removed with its inversion images."""
    return scan.contrast == 'UNIT1' and bool(scan.companions)


def map_paths(plan: Plan, contrast: str) -> dict[str, Path]:
    """Where the maps of a scan go, by suffix."""
    scan = plan.session.scans[contrast]
    entities = '' if len(scan.paths) > 1 else join_entities(scan.entities)
    return {
        suffix: plan.names.path('anat.map', entities=entities, desc=desc, suffix=suffix)
        for suffix, desc in scan.maps.items()
    }


def extra_spaces(plan: Plan) -> list[str]:
    """Grids other than the reference's on which the mask is asked for and possible."""
    wanted = [s.partition(':')[0] for s in plan.settings.output_spaces]
    known = [s for s in dict.fromkeys(wanted) if s not in ('anat', plan.session.reference)]
    return [s for s in known if s == ATLAS_SPACE or s in plan.session.scans]


@dataclass(frozen=True)
class Figure:
    """A figure of the report: what it shows (``kind``), of which contrast, and where it goes.

    That of kind ``template`` has the label of the template for a contrast.
    """

    kind: str
    contrast: str
    path: Path


def planned_figures(plan: Plan) -> list[Figure]:
    """The figures of a session's report, in the order of the page."""
    reference, session = plan.session.reference, plan.session
    shown = [c for c in dict.fromkeys((reference, 'FLAIR')) if c in session.scans]
    others = [c for c in session.scans if c != reference]
    kinds = [('lesions', c) for c in shown] + [('mosaic', shown[-1])]
    kinds += [('brain', c) for c in (reference, *others)]
    kinds += [('registration', c) for c in others]
    found = [(kind, c, kind, c) for kind, c in kinds]
    found += [
        ('template', label, f'template{label.replace("+", "cohort")}', reference)
        for label in dict.fromkeys(t.space.label for t in plan.templates)
    ]
    return [
        Figure(kind, c, plan.names.path('report.figure', step=plan.names.desc + step, suffix=s))
        for kind, c, step, s in found
    ]


def viewer_contrasts(plan: Plan) -> list[str]:
    """The two contrasts (or the only one) of the interactive viewer: the reference and FLAIR."""
    wanted = dict.fromkeys((plan.session.reference, *VIEWED))
    return [c for c in wanted if c in plan.session.scans][:2]


def all_paths(plan: Plan) -> list[Path]:
    """Everything that a session writes: images, tables, sidecars, figures, viewer, summary."""
    outputs = planned_outputs(plan)
    with_sidecar = [p for p in outputs if p.suffix != '.txt']
    paths = [*outputs, *(sidecar_path(p) for p in with_sidecar)]
    paths += [figure.path for figure in planned_figures(plan)]
    paths += [plan.names.path('report.viewer'), plan.names.path('report.summary')]
    return list(dict.fromkeys(paths))
