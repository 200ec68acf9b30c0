"""What is to be done for one session: decided before anything runs, carried to every node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ssl2_bids import __version__
from ssl2_bids.bids.brain_masks import GivenMask, given_brain_mask
from ssl2_bids.bids.given_datasets import (
    GivenTransforms,
    given_transforms,
    program_of,
    shown_name,
)
from ssl2_bids.bids.inputs import Session
from ssl2_bids.bids.outputs import UnitNames, join_entities, sidecar_path, table_path
from ssl2_bids.bids.provenance import BRAIN_MASKS, bids_uri, configuration_hash
from ssl2_bids.bids.scan import Scan
from ssl2_bids.bids.sidecars import kept_metadata
from ssl2_bids.bids.template_spaces import Template, TemplateSpace
from ssl2_bids.contrasts import SUFFIXES
from ssl2_bids.errors import DataError, UnavailableError
from ssl2_bids.networks.weights import Card
from ssl2_bids.settings import (
    ATLAS_SPACE,
    PREPROCESSING,
    SEGMENTATION,
    ParticipantSettings,
    deciding,
)
from ssl2_bids.steps.inhomogeneity import is_strong
from ssl2_bids.workflows.participant.templates import given_template, template_outputs

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
    sources : by contrast, names (of raw files below ``bids_dir``, of others BIDS URIs) and SHA-256
        of the files it is made from.
    preprocessing : hash of all that decides the preprocessed images and the brain mask.
    configuration : hash of all that decides the result; both are empty where no digest was asked.
    brain_mask : the brain mask that was given for the session, ``brain_mask_sha256`` its content.
    transforms : to templates that were given for the reference, by the label of the template.
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
    transforms: Mapping[str, GivenTransforms] = field(default_factory=dict)


def make_plan(
    session: Session,
    card: Card,
    settings: ParticipantSettings,
    digest: Callable[[Path], str] | None = None,
    templates: tuple[Template, ...] = (),
    missing: Mapping[TemplateSpace, UnavailableError] | None = None,
) -> Plan:
    """Settle names and settings of one session.

    Parameters
    ----------
    digest : gives the SHA-256 of a file; None where nothing will be compared with a former run.
    missing : templates that are not on this machine, with the error.
    """
    names = UnitNames(
        settings.output_dir, session.subject, session.session, session.reference, card.label
    )
    settled = replace(
        settings,
        threshold=_first(settings.threshold, card.threshold_for(channels_of(session))),
        min_lesion_volume=_first(settings.min_lesion_volume, card.minimum_lesion_volume),
        overlap=_first(settings.overlap, card.overlap),
    )
    plan = _with_brain_mask(Plan(session, names, card, settled, templates))
    plan = _with_transforms(plan, missing or {})
    return plan if digest is None else _identify(plan, digest)


def _with_brain_mask(plan: Plan) -> Plan:
    """The plan with the brain mask that was given for it, or with why that cannot be used."""
    session, folder = plan.session, plan.settings.brain_mask
    folders = {BRAIN_MASKS: folder} if folder else plan.settings.derivatives
    if not folders or session.problem or session.skipped:
        return plan
    contrasts = sorted(session.scans, key=lambda contrast: contrast != session.reference)
    images = {contrast: session.scans[contrast].paths[0] for contrast in contrasts}
    within = {c: session.scans[c].dataset for c in contrasts if session.scans[c].within}
    for name, root in folders.items():
        try:
            found = given_brain_mask(
                root, session.subject, session.session, images, dataset=name, within=within
            )
        except DataError as error:
            return replace(plan, session=replace(session, problem=error))
        if found:
            return replace(plan, brain_mask=found)
    where = 'the folder of --brain-mask' if folder else ', '.join(f'-d {name}' for name in folders)
    note = f'no mask for this session in {where}: the brain is extracted'
    return replace(plan, session=replace(session, warnings=(*session.warnings, note)))


def _with_transforms(plan: Plan, missing: Mapping[TemplateSpace, UnavailableError]) -> Plan:
    """The plan with the transforms to templates that were given for its reference.

    Those of another image's space are not used; the reason is a remark. The grid of a template
    that is not on this machine is that of the images that were given with its transforms.
    """
    session = plan.session
    if session.problem or session.skipped:
        return plan
    reference = session.scans[session.reference]
    own = reference.dataset if reference.contrast == 'T1w' else ''
    found: dict[str, GivenTransforms] = {}
    notes: list[str] = []
    labels = [*(t.space.label for t in plan.templates), *(space.label for space in missing)]
    for label in dict.fromkeys(labels):
        for name, root in plan.settings.derivatives.items():
            try:
                given = given_transforms(name, root, session.subject, session.session, label)
            except DataError as error:
                if name == own:
                    return replace(plan, session=replace(session, problem=error))
                continue
            if given and name == own and given.within == reference.within:
                found[label] = given
            elif given:
                notes.append(
                    f'the transform to {label} of {name} is not used: it is one of the T1w of '
                    f'{name}, and the reference is another image'
                )
    session = replace(session, warnings=(*session.warnings, *notes))
    templates = list(plan.templates)
    for space, unavailable in missing.items():
        ways = found.get(space.label)
        template = ways and given_template(space, ways, plan.settings.derivatives[ways.dataset])
        if not template:
            return replace(plan, session=replace(session, problem=unavailable))
        templates.append(template)
    return replace(plan, session=session, transforms=found, templates=tuple(templates))


def _first(asked: float | None, own: float) -> float:
    return own if asked is None else asked


def _identify(plan: Plan, digest: Callable[[Path], str]) -> Plan:
    """The plan with the hashes of what decides its results."""
    session = plan.session
    sources: dict[str, list[tuple[str, str]]] = {}
    unusable: list[tuple[str, str]] = []
    mask = ''
    transforms = dict(plan.transforms)
    templates = plan.templates
    if not session.problem:
        try:
            for contrast, scan in session.scans.items():
                sources[contrast] = fingerprint(plan, scan.sources, digest)
            unusable = fingerprint(plan, session.unusable, digest)
            mask = digest(plan.brain_mask.path) if plan.brain_mask else ''
            for label, given in plan.transforms.items():
                digests = (digest(given.forward), digest(given.backward))
                transforms[label] = replace(given, digests=digests)
            templates = tuple(
                t if any(t.digests) else replace(t, digests=(digest(t.image), digest(t.mask)))
                for t in templates
            )
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
            'corrected': [c for c in sources if session.scans[c].corrected],
            'channels': list(channels_of(session)),
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
            'templates': {str(t.space): t.digests for t in templates},
            'transforms': {label: given.digests for label, given in transforms.items()},
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
        transforms=transforms,
        templates=templates,
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


def channels_of(session: Session) -> tuple[str, ...]:
    """The contrasts that are inputs of the model; further ones carry a brain mask."""
    return tuple(contrast for contrast, scan in session.scans.items() if scan.channel)


def needs_correction(plan: Plan, contrast: str) -> bool:
    """Whether N4 is for an image: its contrast shows fields, and it was not corrected before."""
    from ssl2_bids.steps.preprocess import needs_n4

    corrected = plan.session.scans[contrast].corrected
    return not corrected and needs_n4(contrast, field_strength(plan, contrast))


def file_name(plan: Plan, path: Path) -> str:
    """An input file relative to the raw dataset, or its BIDS URI in a dataset of ``-d``."""
    return shown_name(path, plan.settings.derivatives, plan.settings.bids_dir)


def input_uri(plan: Plan, path: Path) -> str:
    """The BIDS URI of an input file."""
    name = file_name(plan, path)
    return name if name.startswith('bids:') else bids_uri(path, plan.settings.bids_dir, 'raw')


def given_sources(plan: Plan, label: str) -> tuple[str, ...]:
    """BIDS URIs of the transforms that were given for a template, to it and back."""
    given = plan.transforms.get(label)
    return tuple(input_uri(plan, p) for p in (given.forward, given.backward)) if given else ()


def fingerprint(
    plan: Plan, paths: Iterable[Path], digest: Callable[[Path], str]
) -> list[tuple[str, str]]:
    """Names and contents of input files, by a function that gives a file's digest.

    Raises
    ------
    OSError : a file cannot be read.
    """
    return [(file_name(plan, path), digest(path)) for path in paths]


def imaging_frequency(plan: Plan, contrast: str) -> float | None:
    """MHz, as dcm2niix writes it into the sidecar; None if unknown."""
    value = plan.session.scans[contrast].metadata.get('ImagingFrequency')
    return value if isinstance(value, int | float) and value > 0 else None


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
            elif not scan.channel:
                role, why = 'auxiliary', 'the brain mask is brought to the reference with it'
            if scan.dataset:
                why += f'; from {program_of(plan.settings.derivatives[scan.dataset])}'
            rows.append(
                {
                    'Contrast': contrast,
                    'File': file_name(plan, path),
                    'Use': role,
                    'Why': why,
                    'VoxelSize': [round(s, 3) for s in scan.spacing],
                    'MagneticFieldStrength': field_strength(plan, contrast),
                }
            )
    rows += [
        {'Contrast': '', 'File': file_name(plan, path), 'Use': 'dropped', 'Why': why}
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
