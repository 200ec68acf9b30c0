"""The options of the BIDS App, grouped as `--help` shows them; nothing heavy is imported."""

from __future__ import annotations

import argparse
from pathlib import Path

from ssl2_bids import __version__
from ssl2_bids.cli import values
from ssl2_bids.cli.parsing import Formatter, Parser, add_option
from ssl2_bids.errors import UnknownLevelError
from ssl2_bids.settings import LEVELS

CONTRASTS = ('unit1', 't1w', 'flair', 't2w', 't2starw')

DESCRIPTION = """\
Segment the white-matter lesions of multiple sclerosis at 7T and 3T.

Reads a BIDS dataset with FLAIR, T1w or UNIT1 (MP2RAGE), T2w and T2starw images, at least FLAIR
or a T1w-like one per session, and writes BIDS derivatives: lesion masks, probabilities, volumes
and a report for each participant; a table, a lesion-frequency map and a report for the cohort.

For research use only: not a medical device."""

EXAMPLES = """\
examples:
  ssl2-bids /data /out participant                        everybody
  ssl2-bids /data /out participant --participant-label 01 02 --nprocs 4
  ssl2-bids /data /out participant --dry-run              what would be used and written
  ssl2-bids /data /out group                              tables, map and page of the cohort
  ssl2-bids /data /out group --labels /masks              adapt the model to your scans
  ssl2-bids /data /out participant --model adapted        use it for later scans

exit codes: 0 done; 1 some participants failed; 16 not a BIDS dataset; 17 unknown level;
18 nothing selected; 64 wrong usage; 65 unusable data; 66 missing input; 69 device or model
not there; 70 internal error; 73 cannot write; 74 disk full; 75 busy; 130, 138, 143 interrupted"""


def build_parser() -> Parser:
    """The parser of ``ssl2-bids BIDS_DIR OUTPUT_DIR LEVEL [options]``."""
    parser = Parser(
        prog='ssl2-bids',
        description=DESCRIPTION,
        usage='ssl2-bids BIDS_DIR OUTPUT_DIR {participant,group} [options]',
        epilog=EXAMPLES,
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.add_argument('bids_dir', type=Path, help='folder of the BIDS dataset (only read)')
    parser.add_argument('output_dir', type=Path, help='folder for the derivatives')
    parser.add_argument(
        'analysis_level',
        metavar='{participant,group}',
        help='what to do: each scan, or the cohort',
    )
    _add_selection(parser)
    _add_segmentation(parser)
    _add_preprocessing(parser)
    _add_outputs(parser)
    _add_adaptation(parser)
    _add_resources(parser)
    _add_other(parser)
    return parser


def _add_selection(parser: Parser) -> None:
    group = parser.add_argument_group('which participants and images')
    add_option(
        group,
        '--participant-label',
        '--participant-labels',
        '--subject-label',
        nargs='+',
        action='extend',
        metavar='LABEL',
        help='participants to process, with or without "sub-", or a file with one per line '
        '(default: all)',
    )
    add_option(
        group,
        '--exclude-participant-label',
        nargs='+',
        action='extend',
        metavar='LABEL',
        help='participants to leave out',
    )
    add_option(
        group,
        '--session-label',
        '--session-id',
        nargs='+',
        action='extend',
        metavar='LABEL',
        help='sessions to process, with or without "ses-" (default: all)',
    )
    add_option(
        group,
        '--bids-filter-file',
        type=Path,
        metavar='FILE',
        help='JSON that narrows the choice of images, e.g. '
        '{"t1w": {"acquisition": "mprage"}}, or of manual masks (key "labels"); null: the entity '
        'must be absent, "*": any value',
    )
    add_option(
        group,
        '--contrasts',
        nargs='+',
        choices=CONTRASTS,
        metavar='KEY',
        help=f'use these contrasts only: {", ".join(CONTRASTS)} (default: all that the model '
        'takes)',
    )
    add_option(
        group,
        '--reference',
        choices=CONTRASTS,
        metavar='KEY',
        help='contrast whose grid the results lie on (default: unit1, else t1w, else flair; '
        'flair where the T1w has thick slices)',
    )
    add_option(
        group,
        '--skip-bids-validation',
        '--skip-bids-validator',
        action='store_true',
        help='do not check the dataset (its description file) before starting',
    )


def _add_segmentation(parser: Parser) -> None:
    group = parser.add_argument_group('segmentation')
    add_option(
        group,
        '--model',
        metavar='NAME|LABEL|PATH',
        help='a bundled model, a label below OUTPUT_DIR/models, or a model folder '
        '(default: the bundled one); at group level, the one to start the adaptation from',
    )
    add_option(
        group,
        '--threshold',
        type=values.open_unit,
        metavar='X',
        help="lesion where the probability is at least X, 0 < X < 1 (default: the model's own)",
    )
    add_option(
        group,
        '--min-lesion-volume',
        type=values.not_negative,
        metavar='MM3',
        help="drop lesions smaller than this, in mm^3 (default: the model's own)",
    )
    add_option(
        group,
        '--overlap',
        type=values.overlap,
        metavar='X',
        help="overlap of neighbouring windows, 0 <= X < 1 (default: the model's own)",
    )
    add_option(
        group,
        '--tta',
        action='store_true',
        help='also segment the mirrored brain and average: steadier, twice the time',
    )
    add_option(
        group,
        '--uncertainty',
        action='store_true',
        help='write a map of the uncertainty (normalised entropy of the probability)',
    )
    add_option(
        group,
        '--device',
        type=values.device,
        default='auto',
        metavar='{auto,cpu,cuda,cuda:N}',
        help='where the network runs; cuda without a GPU is an error, auto says what it took '
        '(default: auto)',
    )


def _add_preprocessing(parser: Parser) -> None:
    group = parser.add_argument_group('preprocessing')
    add_option(
        group,
        '--skull-strip',
        '--skull-strip-t1w',
        '--skull-strip-mode',
        choices=('auto', 'skip', 'force'),
        default='auto',
        help='auto: images that are brain only already are left so; skip: all are; force: strip '
        'all (default: auto)',
    )
    add_option(
        group,
        '--field-strength',
        type=values.positive,
        metavar='T',
        help='field strength in tesla for the report where the sidecars do not say it',
    )
    add_option(
        group,
        '--random-seed',
        type=values.seed,
        default=0,
        metavar='N',
        help='seed of all that is drawn by chance: sampling in registration, folds and training '
        '(default: 0)',
    )


def _add_outputs(parser: Parser) -> None:
    group = parser.add_argument_group('outputs')
    add_option(
        group,
        '--output-spaces',
        nargs='+',
        action='extend',
        metavar='SPACE',
        default=[],
        help='more grids for the lesion mask: a contrast suffix used (FLAIR, T1w, ...: its own '
        'raw grid) or MNI152NLin2009aSym (affine); "anat", the reference, is always written',
    )
    add_option(
        group,
        '--overwrite',
        action='store_true',
        help='process participants again that are finished with equal settings',
    )
    add_option(
        group,
        '--reports-only',
        action='store_true',
        help='make the HTML pages again from finished results',
    )
    add_option(
        group,
        '--dry-run',
        action='store_true',
        help='print which files would be used and written, and stop',
    )


def _add_adaptation(parser: Parser) -> None:
    group = parser.add_argument_group(
        'adapting the model to your site (group level)',
        'Draw the lesions of a few participants by hand, and the group level trains a model on\n'
        'them and on all your other scans, tests it on people that it has not seen, and segments\n'
        'everybody again if it is better. It prints how long that will take, and goes on where\n'
        'it was stopped.',
    )
    add_option(
        group,
        '--labels',
        nargs='+',
        type=Path,
        action='extend',
        metavar='PATH',
        help='folders with manual lesion masks, named as in BIDS '
        '(sub-01/anat/sub-01_label-lesion_mask.nii.gz), whole or only some slices '
        '(default with any other of these options: labels, manual_masks, lesion_masks or manual '
        'in BIDS_DIR/derivatives)',
    )
    add_option(
        group,
        '--strategy',
        metavar='NAME',
        help='how scans without labels are used: supervised (not at all), mean_teacher, fixmatch, '
        'bcp, ...; self_training needs no labels; none: only tables, no training '
        '(default: mean_teacher below 10 labelled participants, else supervised; none without '
        'labels)',
    )
    add_option(
        group,
        '--label',
        type=values.model_label,
        default='adapted',
        metavar='NAME',
        help='name of the new model, letters and digits: OUTPUT_DIR/models/NAME, and desc-NAME '
        'in the names of its results (default: adapted)',
    )
    add_option(
        group,
        '--folds',
        type=values.folds,
        metavar='{K,slices}',
        help='how often the labelled participants are split to test the adaptation: in each of K '
        'rounds some are left out and then segmented; slices: leave slices out, for a single '
        'labelled participant (default: 5, or as many as are labelled)',
    )
    add_option(
        group,
        '--holdout-label',
        nargs='+',
        action='extend',
        metavar='LABEL',
        help='labelled participants that are never trained on, only tested',
    )
    add_option(
        group,
        '--steps',
        type=values.positive_int,
        metavar='N',
        help='steps of each training (default: 200 on a CPU, 400 on a GPU)',
    )
    add_option(
        group,
        '--max-time',
        type=values.positive,
        metavar='MIN',
        help='minutes that all trainings may take together: fewer steps where it would be longer',
    )
    add_option(
        group,
        '--empty-labels',
        choices=('ignore', 'negative'),
        default='ignore',
        help='what a mask without any lesion means: not drawn yet (ignore), or looked at and free '
        'of lesions (negative); "Manual": true in its JSON means the latter (default: ignore)',
    )
    add_option(
        group,
        '--accept',
        choices=('auto', 'always'),
        default='auto',
        help='auto: the adapted model is kept only if it is better on people that it has not '
        'seen, else nothing is segmented again; always: kept in any case (default: auto)',
    )
    add_option(
        group,
        '--no-resegment',
        action='store_true',
        help='train and test, but do not segment everybody again',
    )


def _add_resources(parser: Parser) -> None:
    group = parser.add_argument_group('resources', 'For both levels.')
    add_option(
        group,
        '-w',
        '--work-dir',
        type=Path,
        metavar='PATH',
        help='folder for intermediate files, the cache of a rerun '
        '(default: a folder below $TMPDIR or /tmp, the same for the same dataset and output)',
    )
    add_option(
        group,
        '--clean-workdir',
        action='store_true',
        help='empty the work folder of this dataset before starting',
    )
    add_option(
        group,
        '--nprocs',
        '--nthreads',
        '--n-cpus',
        '--ncpus',
        '--n-procs',
        type=values.positive_int,
        metavar='N',
        help='processor cores to use in all (default: those that the job may use)',
    )
    add_option(
        group,
        '--omp-nthreads',
        '--ants-nthreads',
        type=values.positive_int,
        metavar='N',
        help='threads of one segmentation (default: nprocs, at most 8)',
    )
    add_option(
        group,
        '--mem',
        '--mem-mb',
        dest='mem',
        type=values.memory_mb,
        metavar='MB',
        help='memory to plan with, in MB, or with a suffix as 16G (default: what the job may use)',
    )
    add_option(
        group, '--mem-gb', dest='mem', type=values.memory_gb, metavar='GB', help='the same in GB'
    )
    add_option(
        group, '--low-mem', action='store_true', help='smaller windows and one task at a time'
    )
    add_option(
        group,
        '--use-plugin',
        '--nipype-plugin-file',
        type=Path,
        metavar='FILE',
        help='nipype plugin and its arguments as YAML (plugin: SLURM, plugin_args: {...})',
    )
    add_option(
        group,
        '--stop-on-first-crash',
        action='store_true',
        help='stop at the first failed participant instead of going on with the others',
    )
    add_option(
        group,
        '--resource-monitor',
        '--profile',
        action='store_true',
        help='print seconds and peak memory of each stage; also written to logs/',
    )


def _add_other(parser: Parser) -> None:
    group = parser.add_argument_group('other')
    add_option(
        group,
        '--config-file',
        type=Path,
        metavar='FILE',
        help='settings of a former run (logs/*.toml); the command line wins over it',
    )
    add_option(
        group, '-v', '--verbose', action='count', default=0, help='say more; repeat for more'
    )
    add_option(
        group, '--debug', action='store_true', help='full tracebacks instead of one-line errors'
    )
    add_option(group, '--notrack', action='store_true', help=argparse.SUPPRESS)
    add_option(group, '-t', '--task-id', help=argparse.SUPPRESS)
    group.add_argument('--version', action='version', version=f'ssl2-bids v{__version__}')


def check_level(level: str) -> str:
    """Return the analysis level.

    Raises
    ------
    UnknownLevelError : it is neither participant nor group.
    """
    if level not in LEVELS:
        raise UnknownLevelError(
            f'unknown analysis level "{level}"', advice=f'Choose one of: {", ".join(LEVELS)}.'
        )
    return level
