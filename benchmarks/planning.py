"""Time and memory of planning a whole cohort, and one participant of it.

    python benchmarks/planning.py [--participants 10000] [--work FOLDER]

Makes a dataset whose participants have FLAIR and T1w with sidecars (links to one tiny image, so
their content costs nothing to read), and runs the App on it with ``--dry-run``: for all of them,
and for one, as a job of an array does. ``plan_sessions`` is what a real run does before its first
stage: it reads the content of the images too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from ssl2_bids.files import write_json

PROJECT = Path(__file__).resolve().parents[1]
PLAN = """
import sys
from pathlib import Path
from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.workflows.participant.planning import plan_sessions

data, out, work = map(Path, sys.argv[1:])
print(len(plan_sessions(ParticipantSettings(data, out, work))))
"""


def make_dataset(root: Path, participants: int) -> Path:
    """A dataset of so many participants with two images each."""
    write_json(root / 'dataset_description.json', {'Name': 'tiny', 'BIDSVersion': '1.10.0'})
    image, sidecar = root.parent / 'image.nii.gz', root.parent / 'sidecar.json'
    data = np.random.default_rng(0).integers(1, 1000, (8, 8, 8)).astype(np.int16)
    nib.Nifti1Image(data, np.diag([4.0, 4.0, 4.0, 1.0])).to_filename(image)
    write_json(sidecar, {'MagneticFieldStrength': 3, 'EchoTime': 0.1})
    for number in range(1, participants + 1):
        anat = root / f'sub-{number:05d}' / 'anat'
        anat.mkdir(parents=True)
        for suffix in ('FLAIR', 'T1w'):
            name = anat / f'sub-{number:05d}_{suffix}'
            name.with_suffix('.nii.gz').symlink_to(image)
            name.with_suffix('.json').symlink_to(sidecar)
    return root


def measured(words: list[object]) -> tuple[float, float, float, str]:
    """Seconds, CPU seconds, peak memory in MB and the output of a command on one core."""
    core = min(os.sched_getaffinity(0))
    started = time.monotonic()
    process = subprocess.Popen(
        list(map(str, words)), stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip
    output = process.stdout.read() if process.stdout else ''
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f'{words} ended with {os.waitstatus_to_exitcode(status)}')
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, output


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--participants', type=int, default=10000)
    parser.add_argument('--work', type=Path)
    given = parser.parse_args()
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    os.environ['PYTHONPATH'] = f'{PROJECT}:{os.environ.get("PYTHONPATH", "")}'
    many = given.participants
    if given.work:  # absolute: links lead out of the folder that they lie in
        given.work = given.work.resolve()
        given.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.work) as name:
        folder = Path(name)
        data, out, work = make_dataset(folder / 'data', many), folder / 'out', folder / 'work'
        app = (sys.executable, PROJECT / 'run.py', data, out, 'participant', '-w', work)
        runs: dict[str, list[object]] = {
            f'{many} participants, --dry-run': [*app, '--dry-run'],
            f'{many} participants, plan_sessions': [sys.executable, '-c', PLAN, data, out, work],
            'one of them, --dry-run': [*app, '--dry-run', '--participant-label', '00001'],
        }
        print('| run | s | CPU s | peak memory, MB | sessions |\n| --- | --- | --- | --- | --- |')
        for text, words in runs.items():
            seconds, used, memory, output = measured(words)
            found = f'\n{output}'.count('\nsub-')  # a dry run has a block for each session
            count = output.split()[-1] if words[1] == '-c' else found
            print(f'| {text} | {seconds:.1f} | {used:.1f} | {memory:.0f} | {count} |', flush=True)


if __name__ == '__main__':
    main()
