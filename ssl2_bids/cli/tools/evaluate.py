"""``ssl2 evaluate``: its options, and how its results are printed."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl2_bids.cli import values
from ssl2_bids.errors import SOME_FAILED, SUCCESS, WRITING, DataError, DeniedError, UsageError
from ssl2_bids.files import reading
from ssl2_bids.settings import MINIMUM_LESION_VOLUME
from ssl2_bids.wording import counted

if TYPE_CHECKING:
    from ssl2_bids.workflows.evaluation.run import Evaluation, FailedCase

EVALUATE = """\
Compare lesion masks of ssl2-bids with manual labels.

Prints one row per participant and session with mask and label, and the mean. Nothing is
resampled: label and mask must be on the same grid, in any voxel orientation. Labels of several
raters are combined by majority vote."""

EVALUATE_EPILOG = """\
examples:
  ssl2-bids /data /out participant
  ssl2 evaluate /out /data/derivatives/manual --output scores.tsv
  ssl2 evaluate /out /labels --compare default adapted --figures pictures
  ssl2 evaluate /out --lesion-free

labels: sub-01/anat/sub-01_label-L_mask.nii.gz (0 and 1) and other usual names. If only some
slices are annotated, list them in the JSON of the label: {"AnnotatedSlices": {"Axis": "k",
"Indices": [88, 96]}}; then only voxels of these slices are compared.

columns: Dice, PPV and sensitivity of voxels; volumes; F1, sensitivity and precision of lesions
(detected: one shared voxel); F1 of lesions by the rule of the MSSEG challenge; 95th
percentile Hausdorff distance; with a probability map, expected calibration error and Brier
score in the brain within 5 mm of lesions. n/a: undefined, left out of the mean.

comparison: differences of means over participants (sessions averaged first) with 95 % bootstrap
interval, and p of a sign permutation test, adjusted by Holm for several models; for 6 or more
participants. p is not adjusted for several scores: choose the score before the comparison.

exit codes: 0 done; 1 some cases failed; 64 wrong usage; 65 all failed; 66 nothing to compare,
or no label may be read; 73 cannot write; 74 disk full"""


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
        'labels',
        type=Path,
        nargs='?',
        metavar='LABEL_DATASET',
        help='dataset of manual lesion masks',
    )
    parser.add_argument(
        '--model',
        nargs='+',
        action='extend',
        metavar='LABEL',
        help='models whose masks are compared with the labels: the desc- of the file names, or '
        '"default" for masks without desc-, of the default model (default: default)',
    )
    parser.add_argument(
        '--compare',
        nargs='+',
        action='extend',
        metavar='LABEL',
        help='compare the first of these models with each of the others',
    )
    parser.add_argument(
        '--lesion-free',
        '--lesion_free',
        action='store_true',
        help='without LABEL_DATASET, for participants without lesions: prints the false-positive '
        'volume of each brain, median and range',
    )
    parser.add_argument(
        '--output',
        type=Path,
        metavar='FILE.tsv',
        help='also write all cases (without the mean) with more columns to a table, and the '
        'meaning of the columns to FILE.json; a comparison goes to FILE_comparison.tsv',
    )
    parser.add_argument(
        '--figures',
        type=Path,
        metavar='FOLDER',
        help='write a figure of each case with the outlines of mask and label: the largest '
        'lesion, and the slice with most disagreement',
    )
    parser.add_argument(
        '--min-lesion-volume',
        '--min_lesion_volume',
        type=values.not_negative,
        default=MINIMUM_LESION_VOLUME,
        metavar='MM3',
        help='minimum lesion volume of the lesion-wise scores, in mm^3 '
        f'(default: {MINIMUM_LESION_VOLUME:g})',
    )
    parser.add_argument(
        '--participant-label',
        '--participant_label',
        nargs='+',
        action='extend',
        metavar='LABEL',
        help='participants to compare, with or without "sub-" (default: all)',
    )
    parser.set_defaults(run=run_evaluate)


def run_evaluate(args: argparse.Namespace) -> int:
    """Run ``ssl2 evaluate`` and return its exit code."""
    _check(args)
    participants = chosen_participants(args.participant_label, args.predictions)
    compared = _models(args.compare or [])
    models = tuple(dict.fromkeys((*_models(args.model or []), *compared))) or (None,)
    if args.lesion_free:
        return _run_lesion_free(args, models, participants)
    from ssl2_bids.bids.dataset import unit_name
    from ssl2_bids.bids.outputs import write_table
    from ssl2_bids.workflows.evaluation import scores
    from ssl2_bids.workflows.evaluation.run import evaluate

    result = evaluate(
        args.predictions,
        args.labels,
        model=models,
        participants=participants,
        minimum_volume=args.min_lesion_volume,
        figures=args.figures,
    )
    if result.cases:
        _show_cases(result, models)
        if args.output:
            write_table(args.output, *scores.table(result.cases))
    if result.cases and compared:
        rows = scores.compare(result.cases, compared)
        _show_comparison(rows)
        if args.output:
            path = args.output.with_name(f'{args.output.stem}_comparison.tsv')
            write_table(path, rows, scores.COMPARISON_COLUMNS)
    _show_notes(result.notes)
    for case in result.undrawn:
        show(f'{unit_name(case.subject, case.session)}: compared, without a figure: {case.error}')
    code = _show_failures(result.failures, len(result.cases))
    full = {case.error.exit_code for case in result.undrawn} & WRITING
    return max(full) if full else code or (SOME_FAILED if result.undrawn else SUCCESS)


def chosen_participants(labels: list[str] | None, results: Path) -> tuple[str, ...] | None:
    """The participants of an option; those of the results may have other labels than BIDS allows.

    Raises
    ------
    Ssl2Error : as :func:`~ssl2_bids.cli.values.strip_prefix`.
    """
    from ssl2_bids.bids.dataset import participant_labels

    with reading(results):
        return values.strip_prefix(labels, 'sub', participant_labels(results) if labels else ())


def _run_lesion_free(
    args: argparse.Namespace,
    models: Sequence[str | None],
    participants: Sequence[str] | None,
) -> int:
    from ssl2_bids.bids.outputs import write_table
    from ssl2_bids.workflows.evaluation import scores
    from ssl2_bids.workflows.evaluation.lesion_free import look_for_false_lesions, spread

    result = look_for_false_lesions(
        args.predictions,
        models=models,
        participants=participants,
        minimum_volume=args.min_lesion_volume,
    )
    columns = scores.LESION_FREE_COLUMNS
    rows = [[*_unit(b, models), *_cells(b.numbers(), columns)] for b in result.brains]
    for model in models:
        brains = [brain for brain in result.brains if brain.model == model]
        spreads = spread(brains)
        whose = [scores.model_name(model)] if len(models) > 1 else []
        for place, word in enumerate((f'median of {len(brains)}', 'smallest', 'largest')):
            cells = _cells({name: three[place] for name, three in spreads.items()}, columns)
            rows.append([word, '', *whose, '', *cells])
    _print([[*_unit_headings(models), *(c[0] for c in columns.values())], *rows], models)
    if args.output and result.brains:
        write_table(args.output, *scores.lesion_free_table(result.brains))
    _show_notes(result.notes)
    return _show_failures(result.failures, len(result.brains))


def _check(args: argparse.Namespace) -> None:
    """Stop where options contradict one another, or a result cannot be written."""
    from ssl2_bids.bids.dataset import check_writable

    if args.output and args.output.suffix != '.tsv':
        raise UsageError('the name of the output table must end in .tsv', path=args.output)
    if args.labels is None and not args.lesion_free:
        raise UsageError(
            'LABEL_DATASET is missing',
            advice='Give it, or --lesion-free if no participant of PRED_DATASET has lesions.',
        )
    if args.lesion_free and (args.labels or args.compare or args.figures):
        raise UsageError('--lesion-free excludes LABEL_DATASET, --compare and --figures')
    if args.compare and len(set(_models(args.compare))) < 2:
        raise UsageError(
            '--compare needs two different models', advice='For example: --compare default mine.'
        )
    for folder in (args.output and args.output.parent, args.figures):
        if folder:
            check_writable(folder)


def _models(labels: Sequence[str]) -> tuple[str | None, ...]:
    """Labels of models; None is the default bundled one."""
    return tuple(dict.fromkeys(values.label_of_results(label) or None for label in labels))


def _show_notes(notes: Sequence[str]) -> None:
    for note in notes:
        show(f'note: {note}')


def _show_failures(failures: Sequence[FailedCase], done: int) -> int:
    from ssl2_bids.bids.dataset import unit_name

    for failure in failures:
        show(f'{unit_name(failure.subject, failure.session)}: {failure.error}')
    if not failures:
        return SUCCESS
    names = ', '.join(dict.fromkeys(unit_name(f.subject, f.session) for f in failures))
    show(f'{len(failures)} of {counted(done + len(failures), "case")} failed: {names}')
    if done:
        return SOME_FAILED
    denied = all(isinstance(failure.error, DeniedError) for failure in failures)
    return DeniedError.exit_code if denied else DataError.exit_code


def show(text: str) -> None:
    """A line beside the results."""
    sys.stderr.write(f'ssl2: {text}\n')


def _show_cases(result: Evaluation, models: Sequence[str | None]) -> None:
    """Print the cases and the mean of each model; and what was detected by size."""
    from ssl2_bids.workflows.evaluation import scores

    columns = scores.shown_columns(result.cases)
    rows = [[*_unit_headings(models), *(column[0] for column in columns.values())]]
    rows += [[*_unit(case, models), *_cells(case.numbers(), columns)] for case in result.cases]
    means = []
    for model in models:
        cases = [case for case in result.cases if case.model == model]
        whose = [scores.model_name(model)] if len(models) > 1 else []
        numbers = _cells(scores.mean_numbers(cases), columns)
        means.append([f'mean of {len(cases)}', '', *whose, '', *numbers])
        if detected := scores.lesions_in_words(cases):
            name = f' by {scores.model_name(model)}' if len(models) > 1 else ''
            show(f'lesions detected{name}: {detected}')
    _print([*rows, *means], models, footers=len(means))


def _show_comparison(rows: Sequence[dict[str, Any]]) -> None:
    """Print the comparison of models, one row per score and model."""
    from ssl2_bids.cli.terminal import align_columns
    from ssl2_bids.workflows.evaluation.scores import COMPARED

    headings = ['Score', 'Model', 'Baseline', 'Mean', 'Baseline mean', 'Difference', '95 % low',
                'high', 'p', 'p Holm', 'Participants', 'Left out']  # fmt: skip
    cells = [headings]
    for row in rows:
        digits = COMPARED[row['score']]
        numbers = ('mean', 'baseline_mean', 'difference', 'low', 'high')
        cells.append(
            [
                *(row[name] for name in ('score', 'model', 'baseline')),
                *(_cell(row[name], digits) for name in numbers),
                *(_cell(row[name], 4) for name in ('p', 'p_holm')),
                *(str(row[name]) for name in ('participants', 'undefined')),
            ]
        )
    sys.stdout.write('\n' + align_columns(cells, text_columns=3) + '\n')


def _unit_headings(models: Sequence[str | None]) -> list[str]:
    return ['Participant', 'Session', *(['Model'] if len(models) > 1 else []), 'Space']


def _unit(entry: Any, models: Sequence[str | None]) -> list[str]:
    from ssl2_bids.workflows.evaluation.scores import unit_cells

    cells = unit_cells(entry)
    if len(models) == 1:
        del cells['model']
    return [str(cell or 'n/a') for cell in cells.values()]


def _print(rows: list[list[str]], models: Sequence[str | None], *, footers: int = 0) -> None:
    """Print a table, headings first: ruled on a wide terminal, plainly aligned elsewhere."""
    from rich.console import Console
    from rich.table import Table

    from ssl2_bids.cli.terminal import align_columns

    text_columns = len(_unit_headings(models))
    console = Console()
    ruled = Table()
    for number, heading in enumerate(rows[0]):
        ruled.add_column(
            heading.replace(' ', '\n'),
            justify='left' if number < text_columns else 'right',
            no_wrap=True,
        )
    for number, row in enumerate(rows[1:], start=1):
        ruled.add_row(*row, end_section=number == len(rows) - 1 - footers)
    # a narrow terminal would cut numbers off: there whole lines may wrap instead
    needed = console.measure(ruled, options=console.options.update(max_width=1000)).maximum
    if console.is_terminal and needed <= console.width:
        console.print(ruled)
    else:
        sys.stdout.write(align_columns(rows, text_columns=text_columns) + '\n')


def _cells(numbers: dict[str, float], columns: dict[str, Any]) -> list[str]:
    return [_cell(numbers.get(name, math.nan), column[1]) for name, column in columns.items()]


def _cell(value: float, digits: int) -> str:
    return f'{value:.{digits}f}' if math.isfinite(value) else 'n/a'
