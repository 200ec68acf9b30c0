"""The parser of the BIDS App, with the options on the run itself; nothing heavy is imported."""

from __future__ import annotations

import argparse
from pathlib import Path

from ssl2_bids import __version__
from ssl2_bids.cli import values
from ssl2_bids.cli.boutiques import PrintDescriptor
from ssl2_bids.cli.group_options import add_adaptation
from ssl2_bids.cli.parsing import Formatter, Parser, add_option
from ssl2_bids.cli.participant_options import add_outputs, add_preprocessing, add_segmentation
from ssl2_bids.contrasts import KEYS
from ssl2_bids.errors import UnknownLevelError
from ssl2_bids.settings import LEVELS

DESCRIPTION = """\
Segment the white-matter lesions of multiple sclerosis at 7T and 3T.

Reads a BIDS dataset with FLAIR, T1w or UNIT1 (MP2RAGE), T2w and T2starw images, at least FLAIR
or a T1w-like one per session, and writes BIDS derivatives: lesion masks, probabilities, volumes
and a report for each participant; a table, a lesion-frequency map and a report for the cohort.

For research use only: not a medical device."""

EXAMPLES = """\
examples:
  ssl2-bids /data /out participant                        all participants
  ssl2-bids /data /out participant --participant-label 01 02 --nprocs 4
  ssl2-bids /data /out participant --dry-run              list input and output files only
  ssl2-bids /data /out group                              tables, map and report of the cohort
  ssl2-bids /data /out group --labels /masks              adapt the model to your scans
  ssl2-bids /data /out participant --model adapted        use the adapted model

exit codes: 0 done; 1 some participants failed; 16 not a BIDS dataset; 17 unknown level;
18 nothing selected; 64 wrong usage; 65 unusable data; 66 missing input; 69 device or model
not available; 70 internal error; 73 cannot write; 74 disk full; 75 busy; 129, 130,
138, 140, 143, 152 interrupted"""


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
    parser.add_argument('bids_dir', type=Path, help='folder of the BIDS dataset (read only)')
    parser.add_argument('output_dir', type=Path, help='folder for the derivatives')
    parser.add_argument(
        'analysis_level',
        metavar='{participant,group}',
        help='participant: segment each scan; group: summarise the cohort, and adapt the '
        'model to the site where there are manual masks',
    )
    _add_selection(parser)
    add_segmentation(parser)
    add_preprocessing(parser)
    add_outputs(parser)
    add_adaptation(parser)
    _add_resources(parser)
    _add_other(parser)
    return parser


def _add_selection(parser: Parser) -> None:
    group = parser.add_argument_group('selection of participants and images')
    add_option(
        group,
        '--participant-label',
        '--participant-labels',
        '--subject-label',
        nargs='+',
        action='extend',
        metavar='LABEL',
        help='participants to process, with or without "sub-", or a file with one label per line '
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
        help='JSON file that restricts the selection of images, e.g. '
        '{"t1w": {"acquisition": "mprage"}}, or of manual masks (key "labels"); null: the entity '
        'must be absent, "*": any value',
    )
    add_option(
        group,
        '-d',
        '--derivatives',
        nargs='+',
        action='extend',
        metavar='NAME=PATH',
        help='results of fMRIPrep, sMRIPrep or other programs to use: the T1w (desc-preproc), the '
        'brain mask, transforms to templates, UNIT1 (desc-denoised), TB1map; "labels=PATH" at '
        'group level equals --labels PATH; a PATH without NAME is named by its folder',
    )
    add_option(
        group,
        '--contrasts',
        nargs='+',
        action='extend',
        choices=KEYS,
        metavar='KEY',
        help=f'use these contrasts only: {", ".join(KEYS)} (default: all channels of the model)',
    )
    add_option(
        group,
        '--require',
        nargs='+',
        action='extend',
        choices=KEYS,
        metavar='KEY',
        help='a session where one of these contrasts cannot be used fails; by default it is '
        'segmented with those that can',
    )
    add_option(
        group,
        '--reference',
        choices=KEYS,
        metavar='KEY',
        help='contrast that defines the voxel grid of the results (default: unit1, else t1w, else '
        'flair; flair if the T1w has thick slices)',
    )
    add_option(
        group,
        '--bids-database-dir',
        type=Path,
        metavar='PATH',
        help='folder with a database of pybids, from which the names of images are read instead '
        'of listing the folders; made if it does not exist; images that are added later are not '
        'in it',
    )
    add_option(
        group,
        '--skip-bids-validation',
        '--skip-bids-validator',
        action='store_true',
        help='do not check the content of dataset_description.json',
    )


def _add_resources(parser: Parser) -> None:
    group = parser.add_argument_group(
        'resources',
        'For both levels. Of the participant level only: --low-mem, --use-plugin,\n'
        '--stop-on-first-crash, --resource-monitor.',
    )
    add_option(
        group,
        '-w',
        '--work-dir',
        type=Path,
        metavar='PATH',
        help='folder for intermediate files, from which a run resumes '
        '(default: a folder below $TMPDIR or /tmp, the same for the same dataset and output)',
    )
    add_option(
        group,
        '--clean-workdir',
        action='store_true',
        help='empty the work folder of this dataset before the run (with --participant-label, of '
        'these participants), and remove the files of each session once its results are written',
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
        help='total number of processor cores (default: all cores available to the job)',
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
        help='memory limit in MB, or with a suffix such as 16G (default: 90 %% of the memory '
        'available to the job)',
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
        help='stop at the first failed participant',
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
        help='settings of an earlier run (logs/*.toml); values on the command line override them, '
        'and a switch that is on in the file stays on',
    )
    add_option(
        group,
        '-v',
        '--verbose',
        action='count',
        default=0,
        help='print all messages; -vv also those of nipype',
    )
    add_option(
        group,
        '--sloppy',
        '--testing',
        action='store_true',
        help='low quality, for quick tests of an installation only: coarse voxels, few '
        'iterations; the lesions are wrong, and results are marked',
    )
    add_option(
        group,
        '--debug',
        action='store_true',
        help='print full tracebacks beside one-line errors',
    )
    add_option(group, '--notrack', action='store_true', help=argparse.SUPPRESS)
    add_option(group, '-t', '--task-id', help=argparse.SUPPRESS)
    group.add_argument('--version', action='version', version=f'ssl2-bids v{__version__}')
    add_option(
        group,
        '--bids-exec-spec',
        action=PrintDescriptor,
        help='print the Boutiques descriptor of this command and exit',
    )


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
