"""CPU seconds before anything is computed: nothing to do for one session, and for a hundred.

    python benchmarks/startup.py [--sessions 100] [--work FOLDER]

Makes a dataset of tiny images and finished results that look as a run would have left them, then
runs the App on it: first with nothing known of the files' content, then with digests kept.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from ssl2_bids.bids.outputs import sidecar_path
from ssl2_bids.bids.provenance import write_dataset_files
from ssl2_bids.digests import SETTLED
from ssl2_bids.files import write_json, write_text
from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.workflows.participant.plan import Plan
from ssl2_bids.workflows.participant.planned_outputs import (
    planned_figures,
    planned_outputs,
)
from ssl2_bids.workflows.participant.planning import plan_sessions
from ssl2_bids.workflows.participant.summary import base_summary, write_summary

PROJECT = Path(__file__).resolve().parents[1]
SHAPE, VOXEL = (16, 16, 16), 5.0  # voxels, mm: coarse, yet as large as a head
ECHO_TIMES = {'FLAIR': 0.1, 'T1w': 0.003}  # s


def make_dataset(root: Path, sessions: int) -> Path:
    """A dataset with FLAIR and T1w of tiny size for each participant."""
    write_json(root / 'dataset_description.json', {'Name': 'tiny', 'BIDSVersion': '1.10.0'})
    random = np.random.default_rng(0)
    affine = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
    for number in range(1, sessions + 1):
        anat = root / f'sub-{number:04d}' / 'anat'
        anat.mkdir(parents=True)
        for suffix, echo_time in ECHO_TIMES.items():
            data = random.integers(1, 1000, SHAPE).astype(np.int16)
            path = anat / f'sub-{number:04d}_{suffix}.nii.gz'
            nib.Nifti1Image(data, affine).to_filename(path)
            write_json(sidecar_path(path), {'MagneticFieldStrength': 3, 'EchoTime': echo_time})
    return root


def finish(plan: Plan) -> None:
    """Write what the App takes for a finished session: files, hashes, summary and marker."""
    for path in planned_outputs(plan):
        write_text(path, 'finished')
    mask = sidecar_path(plan.names.path('anat.brain_mask'))
    write_json(mask, {'PreprocessingHash': plan.preprocessing})
    summary = base_summary(plan, 'done', 'ssl2-bids')
    summary['brain_volume_mm3'] = 1.4e6
    summary['methods'] = ['Lesions were segmented with ssl2-bids.']
    summary['figures'] = [
        {'File': f.path.relative_to(plan.names.root).as_posix(), 'Kind': f.kind, 'Title': '',
         'Caption': ''}
        for f in planned_figures(plan)
    ]  # fmt: skip
    write_summary(plan, summary)
    write_json(plan.names.done_marker, {'ConfigurationHash': plan.configuration})


def cpu_seconds(expected: int, *words: object) -> tuple[float, float]:
    """CPU and wall-clock seconds of a run that must find its sessions finished."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    command = [sys.executable, str(PROJECT / 'run.py'), *map(str, words)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    wall = time.monotonic() - started
    if done.returncode or f'finished: {expected} finished before' not in done.stderr:
        raise SystemExit(
            f'the results were not taken for finished (exit code {done.returncode}): {done.stderr}'
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, wall


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--sessions', type=int, default=100)
    parser.add_argument('--work', type=Path)
    given = parser.parse_args()
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    if given.work:  # absolute: stages of the App work in other folders
        given.work = given.work.resolve()
        given.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.work) as name:
        folder = Path(name)
        raw = make_dataset(folder / 'data', given.sessions)
        settings = ParticipantSettings(raw, folder / 'out', folder / 'work')
        for plan in plan_sessions(settings):
            finish(plan)
        write_dataset_files(folder / 'out', raw)
        time.sleep(SETTLED + 0.5)  # digests of files that just changed are not kept
        app = (raw, folder / 'out', 'participant', '-w', folder / 'work')
        one = (*app, '--participant-label', '0001')
        many = given.sessions
        runs: dict[str, tuple[object, ...]] = {
            'one session, nothing to do': (1, *one),
            f'{many} sessions, nothing to do, files read': (many, *app, '--clean-workdir'),
            f'{many} sessions, nothing to do, digests kept': (many, *app),
        }
        print('| run | CPU seconds | seconds |\n| --- | --- | --- |')
        for text, words in runs.items():
            used, wall = cpu_seconds(*words)
            print(f'| {text} | {used:.2f} | {wall:.2f} |')


if __name__ == '__main__':
    main()
