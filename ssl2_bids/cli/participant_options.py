"""The groups of options on what happens to the images of a participant."""

from __future__ import annotations

from pathlib import Path

from ssl2_bids.cli import values
from ssl2_bids.cli.parsing import Parser, add_option
from ssl2_bids.settings import ParticipantSettings


def add_segmentation(parser: Parser) -> None:
    """Options of the model and of its use."""
    group = parser.add_argument_group(
        'segmentation (participant level)', '--model and --device are for both levels.'
    )
    add_option(
        group,
        '--model',
        metavar='NAME|LABEL|PATH',
        help='a bundled model, a model name below OUTPUT_DIR/models, or a model folder '
        '(default: the default bundled model); at group level, the start of the adaptation',
    )
    add_option(
        group,
        '--threshold',
        type=values.open_unit,
        metavar='X',
        help="lesion probability threshold, 0 < X < 1 (default: the model's)",
    )
    add_option(
        group,
        '--min-lesion-volume',
        type=values.not_negative,
        metavar='MM3',
        help="remove lesions smaller than MM3 mm^3 (default: the model's)",
    )
    add_option(
        group,
        '--calibrate-from',
        nargs='+',
        type=Path,
        action='extend',
        metavar='PATH',
        help='folders with manual lesion masks of one or a few participants, named as for '
        '--labels: the model is recalibrated on them (scale and shift of the probabilities, '
        'threshold and minimum lesion volume; seconds, no training) and gives each session a '
        'second result, '
        'desc-calibrated; the labelled participants are segmented in the same run, or before',
    )
    add_option(
        group,
        '--overlap',
        type=values.overlap,
        metavar='X',
        help="overlap of neighbouring sliding windows, 0 <= X < 1 (default: the model's)",
    )
    add_option(
        group,
        '--tta',
        action='store_true',
        help='test-time augmentation: average with the left-right mirrored brain; doubles the '
        'time',
    )
    add_option(
        group,
        '--uncertainty',
        action='store_true',
        help='write an uncertainty map: entropy of the probability; of a committee, disagreement '
        'of its members',
    )
    add_option(
        group,
        '--device',
        type=values.device,
        metavar='{auto,cpu,cuda,cuda:N}',
        help='device of the network; cuda without a GPU is an error, auto prints the device used '
        f'(default: {ParticipantSettings.device})',
    )


def add_preprocessing(parser: Parser) -> None:
    """Options of the steps before the segmentation."""
    group = parser.add_argument_group(
        'preprocessing (participant level)', '--random-seed is for both levels.'
    )
    add_option(
        group,
        '--skull-strip',
        '--skull-strip-t1w',
        '--skull-strip-mode',
        choices=('auto', 'skip', 'force'),
        help='auto: strip all images except brain-only ones; skip: all images are brain-only; '
        f'force: strip all images (default: {ParticipantSettings.skull_strip})',
    )
    add_option(
        group,
        '--brain-mask',
        type=Path,
        metavar='PATH',
        help='folder with brain masks to use instead of those of ssl2-bids, named '
        'sub-*[_ses-*][_space-*]_desc-brain_mask.nii.gz, each on the grid of a raw image of its '
        'session; where there is none, those of -d are used, else the brain is extracted',
    )
    add_option(
        group,
        '--field-strength',
        type=values.positive,
        metavar='T',
        help='field strength in tesla where the sidecars have none: for the correction of '
        'inhomogeneity, the checks and the report',
    )
    add_option(
        group,
        '--random-seed',
        type=values.seed,
        metavar='N',
        help='random seed of registration, folds and training, at both levels '
        f'(default: {ParticipantSettings.random_seed})',
    )


def add_outputs(parser: Parser) -> None:
    """Options of what is written, and of what is made again."""
    group = parser.add_argument_group(
        'outputs (participant level)', '--dry-run is for both levels.'
    )
    add_option(
        group,
        '--output-spaces',
        nargs='+',
        action='extend',
        metavar='SPACE',
        help='additional grids for the lesions: suffix of a contrast used (FLAIR, T1w, ...: '
        'its raw grid), MNI152NLin2009aSym (affine), or a template of TemplateFlow in '
        'TEMPLATEFLOW_HOME (non-linear), NAME[:cohort-Y][:res-X], such as '
        'MNI152NLin2009cAsym:res-2; "anat", the reference, is always written',
    )
    add_option(
        group,
        '--longitudinal',
        action='store_true',
        help='compare the finished sessions of each participant that has two or more of them: '
        'lesions of all sessions decided together in a space between them, and which are new, '
        'enlarging, shrinking, resolved or stable',
    )
    add_option(
        group,
        '--overwrite',
        action='store_true',
        help='process participants again that are finished with the same settings',
    )
    add_option(
        group,
        '--reports-only',
        action='store_true',
        help='make the HTML pages again from finished results',
    )
    add_option(
        group,
        '--boilerplate-only',
        action='store_true',
        help='write only the methods text of the run, to OUTPUT_DIR/logs/CITATION.*, and stop',
    )
    add_option(
        group,
        '--dry-run',
        action='store_true',
        help='list the input and output files of the level, and stop',
    )
