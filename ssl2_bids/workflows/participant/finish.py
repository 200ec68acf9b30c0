"""The last node of a session: all that it writes into the output folder, the done marker last."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ssl2_bids.files import write_json
from ssl2_bids.workflows.participant import sloppy
from ssl2_bids.workflows.participant.derivatives import Results, write_derivatives
from ssl2_bids.workflows.participant.distortion import distorted_contrasts
from ssl2_bids.workflows.participant.earlier import earlier_files, take_away, withdraw
from ssl2_bids.workflows.participant.engine.server import is_serial
from ssl2_bids.workflows.participant.engine.task import read_json
from ssl2_bids.workflows.participant.plan import (
    Plan,
    given_sources,
)
from ssl2_bids.workflows.participant.planned_outputs import (
    all_paths,
    planned_figures,
)
from ssl2_bids.workflows.participant.summary import (
    draw,
    finished_summary,
    in_order,
    read_shown,
    write_summary,
    write_viewer,
)
from ssl2_bids.workflows.participant.templates import TemplateResults
from ssl2_bids.workflows.participant.thinned import on_all_voxels

# where the stage was finished by a version that did not describe it
UNIT1_OF_FORMER_VERSIONS = 'UNIT1 prepared with its inversion images, 0 to 4095.'


def finish(
    plan: Plan,
    command: str,
    contrasts: list[str],
    prepared: list[str],
    maps: list[dict[str, str]],
    corrected: list[str],
    resampled: list[str],
    matrices: list[str],
    distortions: list[str],
    brain_mask: str,
    probability: str,
    uncertainty: str,
    instances: str,
    table: str,
    template_matrix: str,
    templates: list[str],
    deformations: list[str],
    warped: list[str],
    quality: list[str],
    facts: list[str],
) -> dict[str, str]:
    """The last node of a session: derivatives, figures, summary, and the done marker at the end.

    Figures are drawn in a thread beside the writing of images.

    Parameters
    ----------
    command : the command line, with the user's folders named instead of spelled out.
    contrasts : the reference first.
    prepared, corrected : the image of each contrast, before and after N4.
    maps : quantitative maps of each contrast, by suffix.
    resampled, matrices : of all contrasts but the reference.
    distortions : lengths in mm, of the contrasts of which they were measured.
    templates, deformations, warped : labels of templates, and what was found for each.
    quality : metrics of the image of each contrast, JSON.
    facts : the nodes' JSON files, in any order: each has the name of its step.
    """
    found = in_order([read_json(path) for path in facts], contrasts)
    stripped = {f['contrast']: f['brain_only'] for f in found if f['step'] == 'find_brain'}
    prepared_as = {f['contrast']: f.get('description') for f in found if f['step'] == 'prepare'}
    (segmented,) = [f for f in found if f['step'] == 'segment']
    (joined,) = [f for f in found if f['step'] == 'join_brains']
    results = Results(
        contrasts=contrasts,
        prepared=prepared,
        maps=dict(zip(contrasts, maps, strict=True)),
        description_of_unit1=prepared_as.get('UNIT1') or UNIT1_OF_FORMER_VERSIONS,
        corrected=corrected,
        resampled=resampled,
        matrices=matrices,
        distortions=dict(zip(distorted_contrasts(plan), distortions, strict=True)),
        brain_only=[stripped[contrast] for contrast in contrasts],
        brain_mask=brain_mask,
        brain_flags=joined['flags'],
        brain_voters=joined['voters'],
        quality={c: read_json(path) for c, path in zip(contrasts, quality, strict=True)},
        probability=probability,
        uncertainty=uncertainty,
        instances=instances,
        table=table,
        template_matrix=template_matrix,
        templates={
            label: TemplateResults(deformation, image, given_sources(plan, label))
            for label, deformation, image in zip(templates, deformations, warped, strict=True)
        },
        channels=segmented['channels'],
        device=segmented['device'],
    )
    shown = read_shown(plan, results)
    if plan.settings.sloppy:
        results = on_all_voxels(plan, results, sloppy.WORKING_VOXEL)
    earlier = earlier_files(plan.names, all_paths(plan))
    withdraw(plan.names)

    def write_pictures() -> dict[str, Any]:
        figures = draw(planned_figures(plan), shown, plan.names.root)
        return {'figures': figures, 'viewer': write_viewer(plan, shown)}

    if is_serial(plan.settings):  # a signal does not have to wait for a thread
        marker, pictures = write_derivatives(plan, results), write_pictures()
    else:
        with ThreadPoolExecutor(1) as aside:  # compression lets another thread work
            drawn = aside.submit(write_pictures)
            marker = write_derivatives(plan, results)
        pictures = drawn.result()
    summary = finished_summary(plan, results, found, command) | {'earlier': earlier} | pictures
    write_summary(plan, summary)
    write_json(plan.names.done_marker, marker)
    take_away(plan.names)
    return {'marker': str(plan.names.done_marker)}
