"""``ssl2 export``: its options, and what it prints."""

from __future__ import annotations

import argparse
from pathlib import Path

from ssl2_bids.cli.parsing import add_option
from ssl2_bids.cli.tools.evaluate import chosen_participants, show
from ssl2_bids.cli.values import label_of_results
from ssl2_bids.errors import SOME_FAILED, SUCCESS
from ssl2_bids.files import check_folder

EXPORT = """\
Write results of ssl2-bids where other programs look for them.

--to fmriprep    lesion masks on the grid of the raw T1w, as sub-X_label-lesion_roi.nii.gz beside
                 the T1w in BIDS_DIR: fMRIPrep leaves these voxels out when it registers the T1w
                 to a template. *_roi.nii.gz and *_roi.json are added to BIDS_DIR/.bidsignore.
                 Not for results made with UNIT1.
--to filled      the bias-corrected T1w (or UNIT1) with lesions replaced by the white matter
                 around, as sub-X_desc-lesionfilled_T1w.nii.gz (_UNIT1) beside the results: for
                 FreeSurfer, CAT12 and other programs that measure tissue volumes.
--to lesiontrack a list of the sessions that --longitudinal has compared, with images, lesion and
                 brain masks on one grid per participant: OUTPUT_DIR/group_lesiontrack.tsv, for
                 lesiontrack, mscard and msdataqc. Sessions need dates (acq_time), FLAIR and T1w
                 or UNIT1."""

EXPORT_EPILOG = """\
examples:
  ssl2 export /out /data --to fmriprep
  ssl2 export /out /data --to filled --participant-label 01 02
  ssl2 export /out /data --to lesiontrack

exit codes: 0 done; 1 some failed; 64 wrong usage; 65, 66 or 73 all failed; 66 nothing to export;
73 cannot write"""


def add_export(subparsers: argparse._SubParsersAction) -> None:
    """The options of ``ssl2 export``."""
    parser = subparsers.add_parser(
        'export',
        help='masks for fMRIPrep, lesion-filled T1w images, lists of compared sessions',
        description=EXPORT,
        epilog=EXPORT_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        'results', type=Path, metavar='OUTPUT_DIR', help='output folder of ssl2-bids'
    )
    parser.add_argument('dataset', type=Path, metavar='BIDS_DIR', help='dataset it was made from')
    add_option(
        parser,
        '--to',
        choices=('fmriprep', 'filled', 'lesiontrack'),
        required=True,
        help='what to write',
    )
    add_option(
        parser,
        '--model',
        default='default',
        metavar='LABEL',
        help='the desc- of the results, with or without "desc-", or "default" for those without '
        '(default: default)',
    )
    add_option(
        parser,
        '--participant-label',
        nargs='+',
        action='extend',
        metavar='LABEL',
        help='participants to export, with or without "sub-" (default: all)',
    )
    parser.set_defaults(run=run_export)


def run_export(args: argparse.Namespace) -> int:
    """Run ``ssl2 export`` and return its exit code."""
    for folder in (args.results, args.dataset):
        check_folder(folder)
    from ssl2_bids.workflows.export.manifest import export_manifest
    from ssl2_bids.workflows.export.run import export

    model = label_of_results(args.model)
    participants = chosen_participants(args.participant_label, args.results)
    results = args.results.resolve()
    if args.to == 'lesiontrack':
        done = export_manifest(results, model=model, participants=participants)
    else:
        done = export(
            results, args.dataset.resolve(), args.to, model=model, participants=participants
        )
    failed = [one.error for one in done if one.error]
    for one in done:
        show(f'{one.name}: {one.path if one.path else one.error}')
    if failed and len(failed) == len(done):
        return failed[0].exit_code
    return SOME_FAILED if failed else SUCCESS
