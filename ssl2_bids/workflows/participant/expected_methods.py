"""The methods text of a session before it is processed, from its plan.

What only voxels show is described as in most sessions: images without ``SkullStripped`` have a
skull (``--skull-strip auto``), the background of their UNIT1 is noise, every brain mask counts.
"""

from __future__ import annotations

from typing import Any

from ssl2_bids.bids.given_datasets import program_of
from ssl2_bids.workflows.participant import sloppy
from ssl2_bids.workflows.participant.distortion import distorted_contrasts
from ssl2_bids.workflows.participant.plan import Plan, channels_of, field_strength, is_stripped
from ssl2_bids.workflows.participant.summary import (
    has_mask_of_user,
    in_order,
    methods_of,
    taken_results,
)
from ssl2_bids.workflows.participant.templates import by_template


def expected_methods(plan: Plan) -> list[str]:
    """The sentences that the summary of a session will have, in order."""
    scans, reference = plan.session.scans, plan.session.reference
    contrasts = [reference, *(c for c in scans if c != reference)]
    facts = [*_of_contrasts(plan, contrasts), *_of_session(plan, contrasts)]
    sentences = methods_of(
        contrasts,
        in_order(facts, contrasts),
        {c: field_strength(plan, c) for c in contrasts},
        before=[c for c in contrasts if scans[c].corrected],
        taken=taken_results(plan),
        mask_of_user=has_mask_of_user(plan),
        is_sloppy=plan.settings.sloppy,
    )
    return list(dict.fromkeys(sentences))


def _of_contrasts(plan: Plan, contrasts: list[str]) -> list[dict[str, Any]]:
    from ssl2_bids.steps import image_checks, residual_distortion

    facts = []
    for contrast in contrasts:
        for step, sentences in (
            ('prepare', _prepared(plan, contrast)),
            ('find_brain', _brain(plan, contrast)),
            ('measure_quality', [image_checks.METHODS]),
        ):
            facts.append({'step': step, 'contrast': contrast, 'methods': sentences})
    facts += [
        {
            'step': 'measure_distortion',
            'contrast': contrast,
            'methods': [residual_distortion.METHODS],
        }
        for contrast in distorted_contrasts(plan)
    ]
    return facts


def _prepared(plan: Plan, contrast: str) -> list[str]:
    from ssl2_bids.steps import preprocess, t1_mapping, transmit_field

    scan = plan.session.scans[contrast]
    if not scan.has_inversions:
        return preprocess.echo_methods(len(scan.paths), has_map=bool(scan.maps))
    roles = {companion.role for companion in scan.companions}
    sa2rage = [scan.metadata_of(f'SA2RAGE {number}') for number in (1, 2)]
    measured = 'SA2RAGE 1' in roles and transmit_field.sa2rage_protocol(sa2rage)
    return preprocess.mp2rage_methods(
        is_computed=scan.is_computed,
        noise_level=0.0 if _is_brain_only(plan, contrast) else 1.0,
        has_map=t1_mapping.protocol_of(*scan.inversion_metadata) is not None,
        has_transmit='TB1map' in roles or bool(measured),
    )


def _brain(plan: Plan, contrast: str) -> list[str]:
    from ssl2_bids.steps import brain

    if plan.brain_mask and plan.brain_mask.contrast == contrast:
        return [brain.GIVEN]
    in_inv2 = plan.session.scans[contrast].has_inversions
    return brain.methods(_is_brain_only(plan, contrast), contrast, in_inv2=in_inv2)


def _is_brain_only(plan: Plan, contrast: str) -> bool:
    mode = plan.settings.skull_strip
    return bool(is_stripped(plan, contrast)) if mode == 'auto' else mode == 'skip'


def _of_session(plan: Plan, contrasts: list[str]) -> list[dict[str, Any]]:
    from ssl2_bids.steps import brain_vote, lesions, regions, segmentation, template
    from ssl2_bids.steps.network_input import choose_contrasts

    settings = plan.settings
    chosen = choose_contrasts(dict.fromkeys(channels_of(plan.session)), plan.card)
    segmented = segmentation.methods(
        sloppy.card_of(plan.card, settings),
        tuple(contrast for contrast in chosen if contrast is not None),
        overlap=settings.overlap,
        mirror=settings.tta,
        uncertainty=settings.uncertainty,
        low_memory=settings.low_mem,
    )
    assert settings.threshold is not None
    assert settings.min_lesion_volume is not None
    found = lesions.methods(settings.threshold, settings.min_lesion_volume)
    voters = [plan.brain_mask.contrast] if plan.brain_mask else contrasts
    return [
        {'step': step, 'methods': sentences}
        for step, sentences in (
            ('join_brains', [brain_vote.methods(voters)]),
            ('segment', [segmented]),
            ('find_template', [template.methods(contrasts[0])]),
            ('find_lesions', [found, regions.methods()]),
            ('register_template', _templates(plan, contrasts[0])),
        )
    ]


def _templates(plan: Plan, reference: str) -> list[str]:
    from ssl2_bids.steps import deformation

    sentences = []
    for label in by_template(plan.templates):
        if given := plan.transforms.get(label):
            program = program_of(plan.settings.derivatives[given.dataset])
            sentences.append(deformation.given_methods(program, label))
        else:
            sentences.append(deformation.methods(reference, label))
    return sentences
