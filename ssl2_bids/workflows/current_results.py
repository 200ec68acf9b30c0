"""Which of the results in an output folder count: those that no later run has put out of date."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ssl2_bids.bids.outputs import Result, find_summary, sidecar_if_any

OUT_OF_DATE = 'the result is from an earlier choice of images or settings'
AGAIN = 'run the participant level again'


def current_results(results: Sequence[Result]) -> tuple[list[Result], list[tuple[Result, str]]]:
    """One result for each participant, session and model; the others with the reason.

    A result counts if it is the one that the session's summary speaks of, and if the images
    beside it are those that it was made from: all models share them, and another model may have
    replaced them. One that was segmented again from the images of another counts as long as that
    one does.
    """
    units: dict[tuple[str, str | None, str], list[Result]] = defaultdict(list)
    for result in results:
        units[result.names.subject, result.names.session, result.names.desc].append(result)
    kept: list[Result] = []
    left_out: list[tuple[Result, str]] = []
    for group in units.values():
        chosen = _chosen(group)
        if chosen and not is_second(chosen) and not _has_its_images(chosen):
            chosen = None
        kept += [r for r in group if r is chosen]
        left_out += [(r, f'{OUT_OF_DATE}; {AGAIN}') for r in group if r is not chosen]
    images = {_images_of(r) for r in kept if not is_second(r)}
    for result in [r for r in kept if is_second(r) and _images_of(r) not in images]:
        kept.remove(result)
        left_out.append((result, f'{OUT_OF_DATE}; adapt again'))
    return kept, left_out


def _has_its_images(result: Result) -> bool:
    """Whether the images that all models share are those that a first result was made from."""
    mine = result.sidecar.get('PreprocessingHash')
    mask = sidecar_if_any(result.names.path('anat.brain_mask'))
    return bool(mask.get('PreprocessingHash', mine) == mine)


def is_second(result: Result) -> bool:
    """Whether a result was segmented from the preprocessed images of another model's."""
    return result.sidecar.get('FirstResult', result.names.desc) != result.names.desc


def _images_of(result: Result) -> tuple[str, str | None, str | None]:
    names = result.names
    return names.subject, names.session, result.sidecar.get('PreprocessingHash')


def _chosen(group: list[Result]) -> Result | None:
    """The result of a session and model that its summary speaks of; without one the newest."""
    summary = find_summary(group[0].names) or {}
    configuration = summary.get('provenance', {}).get('configuration')
    if configuration is None:
        return max(group, key=lambda r: r.names.done_marker.stat().st_mtime_ns)
    return next((r for r in group if r.sidecar['ConfigurationHash'] == configuration), None)
