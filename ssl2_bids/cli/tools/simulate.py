"""``ssl2 simulate``: its options, and how they reach the simulation."""

from __future__ import annotations

import argparse
from pathlib import Path

from ssl2_bids.cli import limits, values
from ssl2_bids.cli.parsing import add_option
from ssl2_bids.cli.tools.evaluate import show
from ssl2_bids.errors import SUCCESS, UsageError

SIMULATE = """\
Make a simulated BIDS dataset of people with multiple sclerosis, with lesions of known truth.

The simulator deforms heads and paints lesions into them. The signal equations of each sequence,
with the fields, noise and artefacts of a scanner of 1.5, 3 or 7 tesla, make the images.

OUT                      raw BIDS dataset
OUT/derivatives/truth    true lesions of all participants
OUT/derivatives/manual   labels of some participants, drawn by a simulated rater with errors,
                         in all or some slices

For first steps, tests and training: results on simulated images are no evidence of the accuracy
on patients."""

SIMULATE_EPILOG = """\
examples:
  a small dataset, its segmentation and the accuracy:
    ssl2 simulate demo --subjects 3
    ssl2-bids demo demo-out participant
    ssl2 evaluate demo-out demo/derivatives/truth

  a 7 T site with 20 participants and two visits, 4 of them labelled in every tenth slice:
    ssl2 simulate site --field 7 --subjects 20 --sessions 2 --labelled 4 --sparse 0.1

  whole heads from your segmentations (label numbers of FreeSurfer), with lesion shapes of
  patients and your scanner protocol:
    ssl2 simulate heads --labels segmentations --whole-head --lesion-masks masks \\
        --protocol scanner.toml

The seed determines all random values: the same command gives the same bytes, with any --nprocs,
and a participant does not depend on the number of participants. An interrupted simulation resumes
with the same command.

exit codes: 0 done; 64 wrong usage; 65 a label map, mask or protocol cannot be used; 66 one is
missing; 70 internal error or out of memory; 73 OUT has other content or cannot be written;
74 disk full"""

OPTIONS = (
    'subjects',
    'seed',
    'field',
    'contrasts',
    'sessions',
    'labels',
    'lesion_masks',
    'load',
    'load_spread',
    'labelled',
    'sparse',
    'encoding',
    'whole_head',
    'protocol',
    'motion',
    'spikes',
    'phase',
    'nprocs',
)


def add_simulate(subparsers: argparse._SubParsersAction) -> None:
    """The options of ``ssl2 simulate``."""
    parser = subparsers.add_parser(
        'simulate',
        help='make a simulated dataset of known truth',
        description=SIMULATE,
        epilog=SIMULATE_EPILOG,
        usage='ssl2 simulate OUT [options]',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument('output', type=Path, metavar='OUT', help='folder of the new dataset')
    _add_dataset(parser)
    _add_people(parser)
    _add_labels(parser)
    _add_quality(parser)
    _add_running(parser)
    parser.set_defaults(run=run_simulate, usual=parser.get_default)


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('the dataset')
    group.add_argument(
        '--subjects',
        type=values.positive_int,
        default=3,
        metavar='N',
        help='participants (default: 3)',
    )
    group.add_argument(
        '--sessions',
        type=values.positive_int,
        default=1,
        metavar='N',
        help='visits per participant; lesions appear, grow, shrink and vanish in between '
        '(default: 1)',
    )
    group.add_argument(
        '--seed',
        type=values.seed,
        default=1,
        metavar='N',
        help='random seed of all participants (default: 1)',
    )
    group.add_argument(
        '--field',
        type=values.positive,
        metavar='TESLA',
        help='field strength: 1.5 (clinical, thick slices), 3 or 7 (default: 3, or as in '
        '--protocol)',
    )
    group.add_argument(
        '--contrasts',
        nargs='+',
        action='extend',
        metavar='SUFFIX',
        help='T1w, FLAIR, T2w, T2starw, MEGRE and, at 7 T, UNIT1 with the inversion images of '
        'MP2RAGE (default: FLAIR, and UNIT1 at 7 T, else T1w; with --protocol all of its '
        'sequences)',
    )
    group.add_argument(
        '--protocol',
        type=Path,
        metavar='FILE.toml',
        help='scanner protocol; examples: ssl2_bids/resources/scanners',
    )
    group.add_argument(
        '--phase',
        action='store_true',
        help='also phase images (part-phase) of MP2RAGE and MEGRE',
    )


def _add_people(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('heads and lesions')
    group.add_argument(
        '--labels',
        type=Path,
        metavar='FOLDER',
        help="segmented heads to deform: NIfTI with FreeSurfer's label numbers, 1 mm (default: "
        'the MNI152 tissue maps)',
    )
    add_option(
        group,
        '--whole-head',
        action='store_true',
        help='keep skull and scalp; needs --labels with skull and scalp (default: brain only)',
    )
    add_option(
        group,
        '--lesion-masks',
        type=Path,
        metavar='FOLDER',
        help='real lesion masks in MNI152 space: half of the lesions get these shapes',
    )
    group.add_argument(
        '--load',
        type=values.not_negative,
        default=9.0,
        metavar='ML',
        help='median lesion volume in mL; 0: healthy people (default: 9)',
    )
    add_option(
        group,
        '--load-spread',
        type=values.not_negative,
        default=0.6,
        metavar='S',
        help='spread of the lesion volume between participants: standard deviation of its '
        'logarithm (default: 0.6)',
    )


def _add_labels(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('labels of the simulated rater')
    group.add_argument(
        '--labelled',
        type=int,
        default=0,
        metavar='N',
        help='number of labelled participants, chosen at random (default: 0)',
    )
    group.add_argument(
        '--sparse',
        type=values.positive,
        default=1.0,
        metavar='SHARE',
        help='share of the axial slices that are annotated, 0 to 1 (default: 1)',
    )
    group.add_argument(
        '--encoding',
        choices=('mask', 'dseg', 'slices'),
        default='mask',
        help='storage of the annotated extent: mask, a second mask file; dseg, one file with '
        'three values; slices, a list of slices in the JSON (default: mask)',
    )


def _add_quality(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('artefacts')
    for name, text in (
        ('--motion', 'share of the scans with motion, 0 to 1 (default: 0)'),
        ('--spikes', 'share of the scans with spike noise (stripes), 0 to 1 (default: 0)'),
    ):
        group.add_argument(name, type=values.not_negative, default=0.0, metavar='SHARE', help=text)


def _add_running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('running')
    add_option(
        group,
        '--nprocs',
        type=values.positive_int,
        metavar='N',
        help='participants in parallel; each needs about 1.3 GB of memory at 3 T, 2.3 GB at '
        '7 T, 3 to 4 GB for whole heads at 7 T (default: the number of processors)',
    )
    group.add_argument(
        '--again',
        type=Path,
        metavar='MASK.json',
        help='reproduce one participant to the byte from its JSON in derivatives/truth; give the '
        'same --labels and --lesion-masks, and no other options',
    )


def run_simulate(args: argparse.Namespace) -> int:
    """Run ``ssl2 simulate`` and return its exit code."""
    if args.again:
        return run_again(args)
    if not args.labelled and (args.sparse, args.encoding) != (
        args.usual('sparse'),
        args.usual('encoding'),
    ):
        raise UsageError(
            '--sparse and --encoding are for labels, but no participant is labelled',
            advice='Give --labelled N, or leave them out.',
        )
    from rich.console import Console
    from rich.progress import Progress

    from ssl2_bids.workflows.simulation.run import simulate

    options = {name: getattr(args, name) for name in OPTIONS}
    options['contrasts'] = tuple(args.contrasts or ())
    options['nprocs'] = args.nprocs or limits.cores().value
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task('simulating', total=args.subjects)
        simulate(
            args.output,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            **options,
        )
    show(f'{args.subjects} simulated participants in {args.output}')
    return SUCCESS


def run_again(args: argparse.Namespace) -> int:
    """Run ``ssl2 simulate --again`` and return its exit code."""
    for name in OPTIONS:
        if name not in ('labels', 'lesion_masks') and getattr(args, name) != args.usual(name):
            raise UsageError(
                f'--{name.replace("_", "-")} cannot be combined with --again',
                advice='Give only --labels and --lesion-masks with --again.',
            )
    from ssl2_bids.workflows.simulation.replay import simulate_again

    simulate_again(args.again, args.output, labels=args.labels, lesion_masks=args.lesion_masks)
    show(f'{args.again.name.split("_")[0]} reproduced in {args.output}')
    return SUCCESS
