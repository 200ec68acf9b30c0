"""The section of a participant's page about a session segmented again with a site's model.

What does not change with the model (inputs, quality, preprocessing) is taken from the summary of
the first result; lesions, figures and viewer are made again.
"""

from __future__ import annotations

from typing import Any

from ssl2_bids.bids.outputs import find_summaries, sidecar_path, table_path
from ssl2_bids.files import write_json
from ssl2_bids.networks.cards import Card
from ssl2_bids.reports import viewer
from ssl2_bids.settings import LAST_LAYERS, RECALIBRATED
from ssl2_bids.steps.lesions import doubts
from ssl2_bids.volume import Volume
from ssl2_bids.wording import uncited
from ssl2_bids.workflows.adaptation.cases import Case
from ssl2_bids.workflows.participant.earlier import earlier_files, take_away_section
from ssl2_bids.workflows.participant.planned_outputs import (
    VIEWED,
    Figure,
)
from ssl2_bids.workflows.participant.summary import Shown, draw
from ssl2_bids.workflows.segmentation_files import (
    SegmentationFiles,
    adaptation_facts,
    brain_volume,
    lesion_rows,
    volume_rows,
)

BELOW = 'Lesions below {:g} mm³ were left out.'


def write_section(
    case: Case, card: Card, images: dict[str, Volume], found: SegmentationFiles, command: str = ''
) -> None:
    """Write the summary of a second result, its figures and the volumes of its viewer.

    Nothing is written where the first result has no summary; one of a former result is removed.

    Parameters
    ----------
    images : what the model saw, by contrast.
    command : of this run; without it that of the first result stays.
    """
    names, brain = found.names, found.brain_mask
    root = names.root
    first = [
        summary
        for summary in find_summaries(root, names.subject)
        if summary.get('status') == 'done'
        and summary['session'] == names.session
        and summary['model']['Label'] == case.result.names.desc
    ]
    if not first:
        take_away_section(names)
        return
    reference = names.reference
    shown = Shown({reference: images[reference]} | images, found.instances, brain)
    seen = list(dict.fromkeys(c for c in (reference, 'FLAIR') if c in images))
    figures = [
        Figure(
            kind, contrast, names.path('report.figure', step=names.desc + kind, suffix=contrast)
        )
        for kind, contrast in [*(('lesions', c) for c in seen), ('mosaic', seen[-1])]
    ]
    script = names.path('report.viewer')
    resampled = viewer.write_volumes(
        script,
        [images[c] for c in dict.fromkeys((reference, *VIEWED)) if c in images][:2],
        found.instances,
        brain,
    )
    outputs = [
        names.path('anat.probability'),
        names.path('anat.instances'),
        table_path(names.path('anat.instances')),
        names.path('anat.volumes'),
        names.path('anat.mask'),
    ]
    (base,) = first[:1]
    rows = volume_rows(found.table, brain_volume(brain))
    of_minimum = _of_minimum(card, float(found.model['MinimumLesionVolume']))
    of_first = [text for row in base['volumes'][:1] for text in doubts(row['lesion_load'])]
    content: dict[str, Any] = base | {
        'model': card.reference,
        'adaptation': adaptation_facts(card),
        'settings': base['settings']
        | {
            'threshold': found.model['Threshold'],
            'minimum lesion volume (mm^3)': found.model['MinimumLesionVolume'],
        },
        'methods': [
            *(_without_minimum(base['methods']) if of_minimum else base['methods']),
            *_sentences(card, float(found.model['Threshold']), base['model']['Name']),
            *of_minimum,
        ],
        'lesions': lesion_rows(found.table),
        'volumes': rows,
        'warnings': [w for w in base['warnings'] if w not in of_first]
        + doubts(rows[0]['lesion_load']),
        'figures': draw(figures, shown, root),
        'viewer': base['viewer']
        and base['viewer']
        | {'Volumes': script.relative_to(root).as_posix(), 'Resampled': resampled},
        'outputs': [path.relative_to(root).as_posix() for path in outputs],
        'earlier': earlier_files(
            names,
            [*outputs, *map(sidecar_path, outputs), *(f.path for f in figures), script],
        ),
        'provenance': base['provenance']
        | {'configuration': found.model['ConfigurationHash'], 'model sha256': card.sha256}
        | ({'command': command} if command else {}),
    }
    write_json(names.path('report.summary'), content)


def _sentences(card: Card, threshold: float, first: str | None = None) -> list[str]:
    """What was done after the first segmentation, which was by the model ``first`` if given."""
    if card.content.get('Rung') == RECALIBRATED:
        return _of_recalibration(card, threshold, first)
    return [*_of_training(card), *_of_numbers(card, threshold)]


def _of_numbers(card: Card, threshold: float) -> list[str]:
    """The sentence on scale, shift and threshold of a trained model, and what has them fitted."""
    fitted = card.content.get('Recalibration')
    if not fitted:
        return []
    source = 'the same labels'
    if (twin := card.content.get('Twin')) and not card.content['Evidence']['Labelled']:
        count = twin.get('Fitted', 'a few')  # cards of before lack it
        source = f'the lesions of {count} other simulated people of this scanner'
    return [
        f'The logit of its probability was multiplied by {fitted["Scale"]:.2f} and changed by '
        f'{fitted["Shift"]:.2f} [@guo2017], fitted to {source}; voxels with a probability '
        f'of at least {threshold:.2f} were classified as lesion.'
    ]


def _of_training(card: Card) -> list[str]:
    parent = card.content['Parent']
    how = f'{card.content["Strategy"]}, {card.content["Steps"]} steps'
    if card.content.get('Rung') == LAST_LAYERS:
        how += ', normalisations and last layers alone'
    if 0 < (share := card.content.get('WeightShare', 1)) < 1:
        how += f'; its weights are {share:.0%} of the way from those of the latter'
    if twin := card.content.get('Twin'):
        everyone = twin['People']
        # without labels some are kept out of the trainings: cards of before lack how many
        former = everyone if card.content['Evidence']['Labelled'] else f'most of {everyone}'
        how += f'; trained with {_people_of(twin, twin.get("Trained", former))}'
    return [
        f'The preprocessed images were then segmented again with the model '
        f'{uncited(card.name)}, which was adapted to the site from {_named(parent)} ({how}).'
    ]


def _named(parent: dict[str, str]) -> str:
    return uncited(f'{parent["Name"]} {parent["Version"]}')


def _of_recalibration(card: Card, threshold: float, first: str | None) -> list[str]:
    parent, fitted = card.content['Parent'], card.content['Recalibration']
    count, twin = len(card.content['Evidence']['Labelled']), card.content.get('Twin')
    masks = f'manual lesion masks of {count} participant{"s" if count > 1 else ""}'
    of_twin = f'the lesions of {_people_of(twin, twin["People"])}' if twin else ''
    again = first is not None and first != parent['Name']  # the first result is of another model
    which = f'The probabilities of {_named(parent)} were then'
    if again:
        which = (
            f'The preprocessed images were then segmented again with {_named(parent)}, and its '
            'probabilities were'
        )
    sentences = [
        f'{which} recalibrated for the site (model {uncited(card.name)}; no training): '
        f'the logit was multiplied by '
        f'{fitted["Scale"]:.2f} and changed by {fitted["Shift"]:.2f} [@guo2017], fitted to '
        f'{masks if count else of_twin}.'
    ]
    if fitted['ThresholdMove']:
        also = f', and moved at least as far up as by {of_twin}' if count and twin else ''
        sentences.append(
            f'The threshold was fitted to the same lesions{also}: voxels with a recalibrated '
            f'probability of at least {threshold:.2f} were classified as lesion.'
        )
    elif again:
        sentences.append(
            f'The threshold of this model was kept: voxels with a recalibrated probability of at '
            f'least {threshold:.2f} were classified as lesion.'
        )
    else:
        sentences.append('The threshold of the first segmentation was kept.')
    return sentences


def _of_minimum(card: Card, least: float) -> list[str]:
    """The sentence on a minimum volume that was fitted at the site, by this model or before."""
    return [BELOW.format(least)] if card.fitted_minimum_volume else []


def _without_minimum(sentences: list[str]) -> list[str]:
    """Sentences on a result, without the one on its minimum volume: it is not that of the next."""
    first, last = BELOW.split('{:g}')
    return [s for s in sentences if not (s.startswith(first) and s.endswith(last))]


def _people_of(twin: dict[str, Any], count: int | str) -> str:
    return (
        f'{count} simulated people of a scanner whose protocol was fitted to unlabelled '
        f'scans of {twin["Measured"]} participants'
    )
