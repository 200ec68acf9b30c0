"""Results of an earlier choice of images or settings: taken away, or not counted.

What a session has written stands in its summary. When a later run writes other files (the
reference has changed, a contrast is gone, an output is no longer asked for), those of the earlier
one are taken away once the new ones stand, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ssl2_bids.bids.absent import how_to_get_each
from ssl2_bids.bids.dataset import unit_name
from ssl2_bids.bids.given_datasets import GivenFileError
from ssl2_bids.bids.outputs import (
    UnitNames,
    find_summaries,
    find_summary,
    results_beside,
    sidecar_if_any,
    sidecar_path,
    sources_of,
)
from ssl2_bids.bids.provenance import BRAIN_MASKS, bids_uri
from ssl2_bids.errors import NoInputError
from ssl2_bids.files import finished_files, write_json
from ssl2_bids.workflows.participant.plan import Plan, described_inputs, file_name

OF_A_RESULT = (  # of the names of a result's files
    r'_space-(?!within_)[0-9a-zA-Z+]+_(label-L|seg-lesions)_desc-{desc}'
    r'_(mask|probseg|dseg|morph)\.(nii\.gz|json|tsv)'
)


class KeptResultError(NoInputError):
    """A file that the present result was made from cannot be used now; the result stays."""


def files_of(summary: dict[str, Any]) -> list[str]:
    """What a session has written, relative to the output folder; what it found left as well."""
    outputs = list(summary.get('outputs') or ())
    sidecars = [sidecar_path(Path(name)).as_posix() for name in outputs]
    figures = [figure['File'] for figure in summary.get('figures') or ()]
    viewer = [summary['viewer']['Volumes']] if summary.get('viewer') else []
    found = [*outputs, *sidecars, *figures, *viewer, *summary.get('earlier', ())]
    return list(dict.fromkeys(found))


def earlier_files(names: UnitNames, planned: Iterable[Path] = ()) -> list[str]:
    """What former runs of a session and model have written and this one will not write."""
    former = find_summary(names)
    if former is None:
        return []
    again = {path.relative_to(names.root).as_posix() for path in planned}
    return [name for name in files_of(former) if name not in again]


def kept(plan: Plan) -> Plan:
    """The plan, or that a result stands which was made from more than can be used now.

    Content that is absent for a while, or a damaged copy of an image, is no choice of the user.
    """
    session = plan.session
    cannot = {**session.broken, **session.unusable}
    given = session.problem if isinstance(session.problem, GivenFileError) else None
    if plan.settings.overwrite or not (session.absent or cannot or given):
        return plan
    if not results_beside(plan.names):
        return plan
    summary = find_summary(plan.names) or {}
    if given and given.path:
        path = Path(given.path)
        reason = f'{path.name}: {given.message}'
        sources = _given_sources(plan, summary)
        if any(uri in sources for uri in _uris(plan, path)):
            return _stays(plan, reason, given.advice)
        if any(source.startswith(tuple(f'bids:{n}:' for n in _given(plan))) for source in sources):
            text = f'the result that is there stays: another one would need {reason}'
            problem = KeptResultError(text, advice=given.advice)
            return replace(plan, session=replace(session, problem=problem, skipped=''))
    made_from = result_inputs(summary)
    used = {row['File'] for row in made_from if row['Use'] != 'dropped'}
    lost = [p for p in session.absent if p.suffix == '.json' or file_name(plan, p) in used]
    reasons = [f'the content of {path.name} is absent' for path in lost]
    bad = {p: w for p, w in cannot.items() if file_name(plan, p) in used and p not in lost}
    reasons += [f'{path.name}: {why}' for path, why in bad.items()]
    if not reasons:
        return plan
    get = how_to_get_each(plan.settings.datasets, lost)
    more = 'Or segment without it: --overwrite.'
    return _stays(plan, '; '.join(reasons), f'{get}. {more}' if get else more)


def _stays(plan: Plan, reasons: str, advice: str) -> Plan:
    """The plan with the problem that its result stays."""
    problem = KeptResultError(
        f'the result that is there was made with what cannot be used now ({reasons}), and stays',
        advice=advice,
    )
    return replace(plan, session=replace(plan.session, problem=problem, skipped=''))


def _given_sources(plan: Plan, summary: dict[str, Any]) -> set[str]:
    """What a result was made from: its images, and the sources of its mask and transforms."""
    sources = {row['File'] for row in result_inputs(summary) if row['Use'] != 'dropped'}
    mask = plan.names.path('anat.brain_mask')
    unit = unit_name(plan.session.subject, plan.session.session)
    for output in (mask, *finished_files(mask.parent, f'{unit}_from-*_xfm.h5')):
        sources.update(sources_of(sidecar_if_any(output)))
    return sources


def _uris(plan: Plan, path: Path) -> list[str]:
    """The BIDS URIs that a file of ``-d`` or ``--brain-mask`` may have in the results."""
    around = {name: root for name, root in _given(plan).items() if path.is_relative_to(root)}
    return [bids_uri(path, root, name) for name, root in around.items()]


def _given(plan: Plan) -> dict[str, Path]:
    """The folders of ``-d`` and ``--brain-mask``, by the names that BIDS URIs have for them."""
    masks = plan.settings.brain_mask
    return {**plan.settings.derivatives, **({BRAIN_MASKS: masks} if masks else {})}


def result_inputs(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """What the result of a session was made from, though a later run has failed; or nothing."""
    key = 'inputs' if summary.get('status') == 'done' else 'result_inputs'
    return list(summary.get(key) or ())


def withdraw(names: UnitNames) -> None:
    """Take away the done markers of a session and model, on whatever grid the results lie."""
    for result in results_beside(names):
        result.names.done_marker.unlink(missing_ok=True)
    names.done_marker.unlink(missing_ok=True)


def renew(plan: Plan) -> None:
    """Bring what the summary of a finished session states beside its results up to date.

    They stay: another image that is not used, another field strength of it, or the remark on a
    model that was not accepted changes what the page lists, no voxel.
    """
    summary = find_summary(plan.names)
    if summary is None:
        return
    notes, former = list(plan.session.warnings), summary.get('notes', [])
    more = [text for text in summary.get('warnings', []) if text not in (*former, *notes)]
    if (remark := plan.card.refusal) and remark not in more:  # a result of an earlier version
        more.append(remark)
    now = {'inputs': described_inputs(plan), 'notes': notes, 'warnings': notes + more}
    if any(summary.get(key) != value for key, value in now.items()):
        write_json(plan.names.path('report.summary'), summary | now)


def take_away(names: UnitNames) -> None:
    """Take away what the summary of a finished session names as left by an earlier choice."""
    summary = find_summary(names)
    if not summary or summary.get('status') != 'done' or not summary.get('earlier'):
        return
    _unlink(names, summary['earlier'])
    write_json(names.path('report.summary'), summary | {'earlier': []})


def take_away_result(names: UnitNames) -> None:
    """Take away the second result of a session, by a model with a label."""
    withdraw(names)
    unit = unit_name(names.subject, names.session)
    own = re.compile(f'{re.escape(unit)}{OF_A_RESULT.format(desc=re.escape(names.desc))}')
    for path in finished_files(names.done_marker.parent, f'{unit}_space-*'):
        if own.fullmatch(path.name):
            path.unlink(missing_ok=True)
    take_away_section(names)


def take_away_section(names: UnitNames) -> None:
    """Take away the summary of a session and model, and the files that it names."""
    if summary := find_summary(names):
        _unlink(names, files_of(summary))
        names.path('report.viewer').unlink(missing_ok=True)
        names.path('report.summary').unlink()


def _unlink(names: UnitNames, files: Iterable[str]) -> None:
    """Delete files of a session, but for those of its results by other models."""
    others = [
        other
        for other in find_summaries(names.root, names.subject)
        if other['session'] == names.session and other['model']['Label'] != names.desc
    ]
    kept = {name for other in others for name in files_of(other)}
    for name in files:
        if name not in kept and _belongs_to(name, names.subject):
            (names.root / name).unlink(missing_ok=True)


def _belongs_to(name: str, subject: str) -> bool:
    parts = PurePosixPath(name).parts
    return len(parts) > 1 and parts[0] == f'sub-{subject}' and '..' not in parts
