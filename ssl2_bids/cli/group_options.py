"""The group of options of the adaptation, at the group level."""

from __future__ import annotations

from pathlib import Path

from ssl2_bids.cli import values
from ssl2_bids.cli.parsing import Parser, add_option
from ssl2_bids.settings import ADAPTATION, RUNGS, GroupSettings


def add_adaptation(parser: Parser) -> None:
    """Options of the adaptation of a model to a site."""
    group = parser.add_argument_group(
        'adaptation of the model to a site (group level)',
        'Needs manual lesion masks of a few participants. The group level recalibrates the model\n'
        'on them, trains a model on them and on all other scans of the site, and tests both on\n'
        'participants left out. If one of them is better, all participants are segmented again.\n'
        'The estimated time of the training is printed before it. An interrupted run resumes\n'
        'with the same command.',
    )
    add_option(
        group,
        '--labels',
        nargs='+',
        type=Path,
        action='extend',
        metavar='PATH',
        help='folders with manual lesion masks, named as in BIDS '
        '(sub-01/anat/sub-01_label-lesion_mask.nii.gz), of all or some slices '
        '(if another option of this group is given, the default is labels, manual_masks, '
        'lesion_masks or manual in BIDS_DIR/derivatives); a dataset of -d with lesion masks '
        'counts too',
    )
    add_option(
        group,
        '--strategy',
        metavar='NAME',
        help='how scans without labels are used: supervised (not at all), mean_teacher, fixmatch, '
        'bcp, ... (all: docs/how-to/adapt.md); self_training and twin need no labels; none: '
        'tables without training '
        '(default: mean_teacher below 10 labelled participants where anything is not labelled, '
        'else supervised; none without labels)',
    )
    add_option(
        group,
        '--twin-heads',
        type=Path,
        metavar='PATH',
        help='for --strategy twin: folder of label maps with the numbers of FreeSurfer (or of '
        'ssl2 simulate --labels) that the simulated people are made from (default: the MNI152 '
        'tissue maps)',
    )
    add_option(
        group,
        '--label',
        type=values.model_label,
        metavar='NAME',
        help='name of the new model, letters and digits: OUTPUT_DIR/models/NAME, and desc-NAME '
        f'in the names of its results (default: {GroupSettings.label})',
    )
    add_option(
        group,
        '--folds',
        type=values.folds,
        metavar='{K,slices}',
        help='number of cross-validation folds of the labelled participants; slices: leave slices '
        'out, for a single labelled participant, in trainings too (default: 5, or the number of '
        'labelled participants if smaller; with a single one slices, without trainings)',
    )
    add_option(
        group,
        '--holdout-label',
        nargs='+',
        action='extend',
        metavar='LABEL',
        help='labelled participants in no training, for a further test of the model that is used',
    )
    add_option(
        group,
        '--steps',
        type=values.positive_int,
        metavar='N',
        help=f'steps of each training (default: {ADAPTATION["cpu"].steps} on a CPU, '
        f'{ADAPTATION["cuda"].steps} on a GPU)',
    )
    add_option(
        group,
        '--max-time',
        type=values.positive,
        metavar='MIN',
        help='maximum time of all trainings together, with their tests and second results, in '
        'minutes; reduces the steps if needed, and leaves the trainings out if it is too short '
        'for any (an error where --rung asks for one, or there are no labels)',
    )
    add_option(
        group,
        '--empty-labels',
        choices=('ignore', 'negative'),
        help='meaning of a mask without lesions: not drawn yet (ignore), or free of lesions '
        '(negative); "Manual": true in its JSON means negative '
        f'(default: {GroupSettings.empty_labels})',
    )
    add_option(
        group,
        '--accept',
        choices=('auto', 'always'),
        help='auto: use the adapted model only if it is better on participants left out of the '
        f'training; always: use it in any case (default: {GroupSettings.accept})',
    )
    add_option(
        group,
        '--rung',
        choices=RUNGS,
        help='test and use only this change of the model: none (bundled); scale and shift of the '
        'probabilities, threshold and minimum lesion volume (recalibrated: seconds, no '
        'training); a training of the normalisations and last layers (last-layers), half of the '
        'change of a training of all layers (half-way), or all of it (whole), each '
        'recalibrated (default: all are tested, and the smallest change is taken that is as good '
        'as the best)',
    )
    add_option(
        group,
        '--no-resegment',
        action='store_true',
        help='train and test, but do not segment all participants again',
    )
