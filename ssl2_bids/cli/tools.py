"""``ssl2``: the commands beside the BIDS App, one ``add_`` and one ``run_`` function each.

Nothing heavy is imported until a command runs, so that help and usage errors are instant.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ssl2_bids import __version__
from ssl2_bids.cli import values
from ssl2_bids.cli.parser import Parser
from ssl2_bids.errors import SOME_FAILED, SUCCESS, DataError, Ssl2Error, UsageError

if TYPE_CHECKING:
    from ssl2_bids.workflows.evaluate import Evaluation

DESCRIPTION = 'Tools around the BIDS App ssl2-bids (which segments; see ssl2-bids --help).'

EVALUATE = """\
Compare lesion masks of ssl2-bids with manual labels.

Prints one row per participant and session that has both, and their mean. Nothing is resampled:
label and mask must lie on one grid, in any voxel orientation. Several raters are joined by
majority vote."""

EVALUATE_EPILOG = """\
example:
  ssl2-bids /data /out participant
  ssl2 evaluate /out /data/derivatives/manual --output scores.tsv

labels: sub-01/anat/sub-01_label-L_mask.nii.gz (0 and 1) and other usual names; the JSON beside
it may say that only some slices were annotated: {"AnnotatedSlices": {"Axis": "k",
"Indices": [88, 96]}}; then voxels are compared there alone.

columns: Dice, PPV and sensitivity of voxels; volumes; F1, sensitivity and precision of lesions
where one shared voxel suffices; F1 of lesions by the rule of the MSSEG challenge; 95th
percentile Hausdorff distance. n/a: undefined, left out of the mean.

exit codes: 0 done; 1 some cases failed; 64 wrong usage; 65 all failed; 66 nothing to compare;
73 cannot write"""


def add_evaluate(subparsers: argparse._SubParsersAction) -> None:
    """The options of ``ssl2 evaluate``."""
    parser = subparsers.add_parser(
        'evaluate',
        help='compare lesion masks with manual labels',
        description=EVALUATE,
        epilog=EVALUATE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        'predictions', type=Path, metavar='PRED_DATASET', help='output folder of ssl2-bids'
    )
    parser.add_argument(
        'labels', type=Path, metavar='LABEL_DATASET', help='dataset of manual lesion masks'
    )
    parser.add_argument(
        '--model',
        metavar='LABEL',
        help='compare the masks of this model, the desc- in their names (default: the masks '
        'without desc-, of the default bundled model)',
    )
    parser.add_argument(
        '--output',
        type=Path,
        metavar='FILE.tsv',
        help='also write the cases (not the mean) with more columns to a table, and what the '
        'columns mean to the JSON beside it',
    )
    parser.add_argument(
        '--min-lesion-volume',
        '--min_lesion_volume',
        type=values.not_negative,
        default=3.0,
        metavar='MM3',
        help='leave smaller lesions out of the lesion-wise scores, in mm^3 (default: 3)',
    )
    parser.add_argument(
        '--participant-label',
        '--participant_label',
        nargs='+',
        action='extend',
        metavar='LABEL',
        help='compare these only, with or without "sub-" (default: all)',
    )
    parser.set_defaults(run=run_evaluate)


def run_evaluate(args: argparse.Namespace) -> int:
    """Run ``ssl2 evaluate`` and return its exit code."""
    if args.output and args.output.suffix != '.tsv':
        raise UsageError('the output is a table, its name must end in .tsv', path=args.output)
    participants = values.strip_prefix(args.participant_label, 'sub')
    from ssl2_bids.bids.outputs import write_table
    from ssl2_bids.workflows.evaluate import evaluate, table, unit_name

    result = evaluate(
        args.predictions,
        args.labels,
        model=args.model.removeprefix('desc-') if args.model else None,
        participants=participants,
        minimum_volume=args.min_lesion_volume,
    )
    if result.cases:
        _show(result)
        if args.output:
            write_table(args.output, *table(result.cases))
    for note in result.notes:
        _say(f'note: {note}')
    for failure in result.failures:
        _say(f'{unit_name(failure.subject, failure.session)}: {failure.error}')
    if not result.failures:
        return SUCCESS
    names = ', '.join(unit_name(f.subject, f.session) for f in result.failures)
    count = len(result.cases) + len(result.failures)
    _say(f'{len(result.failures)} of {count} cases failed: {names}')
    return SOME_FAILED if result.cases else DataError.exit_code


SIMULATE = """\
Make a small simulated BIDS dataset with lesions of known truth.

Brain-only images of deformed MNI152 anatomy with painted lesions; the true masks go to
OUT/derivatives/truth. For trying things out and for tests: simulated results say nothing about
the accuracy on patients."""

SIMULATE_EPILOG = """\
example:
  ssl2 simulate demo --subjects 3 --seed 1
  ssl2-bids demo demo-out participant
  ssl2 evaluate demo-out demo/derivatives/truth

The same seed gives the same bytes; a stopped simulation goes on where it stopped."""


def add_simulate(subparsers: argparse._SubParsersAction) -> None:
    """The options of ``ssl2 simulate``."""
    parser = subparsers.add_parser(
        'simulate',
        help='make a simulated dataset of known truth',
        description=SIMULATE,
        epilog=SIMULATE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument('output', type=Path, metavar='OUT', help='folder of the new dataset')
    parser.add_argument(
        '--subjects', type=int, default=3, metavar='N', help='participants (default: 3)'
    )
    parser.add_argument('--seed', type=int, default=1, metavar='N', help='default: 1')
    parser.add_argument(
        '--field',
        type=int,
        choices=(3, 7),
        default=3,
        help='3: T1w and FLAIR; 7: UNIT1 with INV1 and INV2, and FLAIR (default: 3)',
    )
    parser.set_defaults(run=run_simulate)


def run_simulate(args: argparse.Namespace) -> int:
    """Run ``ssl2 simulate`` and return its exit code."""
    from rich.console import Console
    from rich.progress import Progress

    from ssl2_bids.workflows.simulate import simulate

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task('simulating', total=args.subjects)
        simulate(
            args.output,
            subjects=args.subjects,
            seed=args.seed,
            field=args.field,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    _say(f'{args.subjects} simulated participants in {args.output}')
    return SUCCESS


# every subcommand stands here: add_<name>(subparsers) sets run=run_<name>(args) -> exit code
SUBCOMMANDS: tuple[Callable[[argparse._SubParsersAction], None], ...] = (
    add_evaluate,
    add_simulate,
)


def build_parser() -> Parser:
    """The parser of ``ssl2 COMMAND ...``."""
    parser = Parser(prog='ssl2', description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument('--version', action='version', version=f'ssl2 v{__version__}')
    subparsers = parser.add_subparsers(
        title='commands',
        metavar='COMMAND',
        dest='command',
        required=True,
        description='ssl2 COMMAND --help says more.',
    )
    for add in SUBCOMMANDS:
        add(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    try:
        args = build_parser().parse_args(argv)
        return args.run(args)
    except Ssl2Error as error:
        _say(f'error: {error}')
        return error.exit_code


def _say(text: str) -> None:
    sys.stderr.write(f'ssl2: {text}\n')


def _show(result: Evaluation) -> None:
    """Print the cases and their mean: ruled on a wide terminal, plainly aligned elsewhere."""
    from rich.console import Console
    from rich.table import Table

    from ssl2_bids.cli.terminal import aligned
    from ssl2_bids.workflows.evaluate import COLUMNS, mean_numbers

    headings = ['Participant', 'Session', 'Space', *(entry[0] for entry in COLUMNS.values())]
    rows = [
        [
            f'sub-{case.subject}',
            f'ses-{case.session}' if case.session else 'n/a',
            case.space,
            *_cells(case.numbers()),
        ]
        for case in result.cases
    ]
    mean = [f'mean of {len(rows)}', '', '', *_cells(mean_numbers(result.cases))]
    console = Console()
    ruled = Table(show_footer=True)
    for number, heading in enumerate(headings):
        ruled.add_column(
            heading.replace(' ', '\n'),
            footer=mean[number],
            justify='left' if number < 3 else 'right',
            no_wrap=True,
        )
    for row in rows:
        ruled.add_row(*row)
    # a narrow terminal would cut numbers off: there whole lines may wrap instead
    needed = console.measure(ruled, options=console.options.update(max_width=1000)).maximum
    if console.is_terminal and needed <= console.width:
        console.print(ruled)
    else:
        sys.stdout.write(aligned([headings, *rows, mean], text_columns=3) + '\n')


def _cells(numbers: dict[str, float]) -> list[str]:
    from ssl2_bids.workflows.evaluate import COLUMNS

    cells = []
    for name, (_, digits, _) in COLUMNS.items():
        value = numbers.get(name, math.nan)
        cells.append(f'{value:.{digits}f}' if math.isfinite(value) else 'n/a')
    return cells
