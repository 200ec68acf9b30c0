"""How the plan of a session is made: settings settled, what was given found, inputs hashed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl2_bids import __version__
from ssl2_bids.bids.brain_masks import SHOWN_NAME, given_brain_mask, unlike_masks
from ssl2_bids.bids.given_datasets import (
    GivenFileError,
    GivenTransforms,
    given_file_error,
    given_transforms,
)
from ssl2_bids.bids.inputs import Session
from ssl2_bids.bids.outputs import UnitNames
from ssl2_bids.bids.provenance import BRAIN_MASKS, configuration_hash
from ssl2_bids.bids.scan import Scan
from ssl2_bids.bids.sidecars import kept_metadata
from ssl2_bids.bids.template_spaces import Template, TemplateSpace
from ssl2_bids.errors import DataError, UnavailableError
from ssl2_bids.files import cannot_read, storage_failure
from ssl2_bids.networks.weights import Card
from ssl2_bids.settings import PREPROCESSING, SEGMENTATION, ParticipantSettings, deciding
from ssl2_bids.steps.inhomogeneity import is_strong
from ssl2_bids.workflows.participant.plan import (
    Plan,
    channels_of,
    field_strength,
    file_name,
    imaging_frequency,
    is_given,
    is_stripped,
)
from ssl2_bids.workflows.participant.planned_outputs import extra_spaces
from ssl2_bids.workflows.participant.templates import given_template

PARTIAL_FOURIER = ('PartialFourier', 'SlicePartialFourier')  # keys that decide a T1 map


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
    folders = {**({BRAIN_MASKS: folder} if folder else {}), **plan.settings.derivatives}
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
            return replace(plan, session=replace(session, problem=given_file_error(error)))
        except OSError as error:
            problem = cannot_read(error, error.filename or root)
            return replace(plan, session=replace(session, problem=problem))
        if found:
            return replace(plan, brain_mask=found)
    named = [f'-d {name}' for name in plan.settings.derivatives]
    where = ', '.join([*(['the folder of --brain-mask'] if folder else []), *named])
    used = [path for scan in session.scans.values() for path in scan.sources]
    if folder or any(is_given(plan, path) for path in used):
        note = f'no mask for this session in {where}: the brain is extracted'
        unlike = unlike_masks(folder, session.subject) if folder else []
        if unlike:
            note += f' ({unlike[0].name} is not named {SHOWN_NAME})'
    else:
        note = (
            f'nothing for this session in {where}: its raw images are used, results lie on the '
            'grid of the raw reference, and the brain is extracted'
        )
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
            except (DataError, OSError) as error:
                if name == own:
                    problem = (
                        given_file_error(error)
                        if isinstance(error, DataError)
                        else cannot_read(error, error.filename or root)
                    )
                    return replace(plan, session=replace(session, problem=problem))
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
        try:
            template = ways and given_template(
                space, ways, plan.settings.derivatives[ways.dataset]
            )
        except DataError as error:
            return replace(plan, session=replace(session, problem=given_file_error(error)))
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
            used = {path for scan in session.scans.values() for path in scan.sources}
            raw = {str(path) for path in used if not is_given(plan, path)}
            kind = DataError if str(error.filename) in raw else GivenFileError
            problem = storage_failure(error, error.filename) or kind(
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


def fingerprint(
    plan: Plan, paths: Iterable[Path], digest: Callable[[Path], str]
) -> list[tuple[str, str]]:
    """Names and contents of input files, by a function that gives a file's digest.

    Raises
    ------
    OSError : a file cannot be read.
    """
    return [(file_name(plan, path), digest(path)) for path in paths]
