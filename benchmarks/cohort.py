"""Time, memory and size of the page of the group level, for many participants.

    python benchmarks/cohort.py RESULTS [--participants 3000] [--nprocs 2] [--work FOLDER]
        [--page FILE]

Copies the finished results of the output folder RESULTS, in turn, under new participant labels
until there are enough of them (only files that the group level reads), and makes a dataset with
these participants. Then runs ``ssl2-bids ... group`` on it, in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ssl2_bids.bids.outputs import Result, find_results, output_name
from ssl2_bids.bids.provenance import write_dataset_files
from ssl2_bids.files import write_json

PROJECT = Path(__file__).resolve().parents[1]
TEXTS = {'.json', '.tsv', '.txt'}
IMAGES = ('_mask.nii.gz', '_dseg.nii.gz')


def copy_participant(result: Result, label: str, out: Path, dataset: Path) -> None:
    """The files of a participant under another label, in results and dataset."""
    old, new = f'sub-{result.names.subject}', f'sub-{label}'
    root = result.names.root
    for path in sorted((root / old).rglob('*')):
        if not path.is_file() or not (path.suffix in TEXTS or path.name.endswith(IMAGES)):
            continue
        place = out / path.relative_to(root).as_posix().replace(old, new)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in TEXTS:
            place.write_text(path.read_text(encoding='utf-8').replace(old, new), encoding='utf-8')
        else:
            os.link(path, place)
    session = f'ses-{result.names.session}' if result.names.session else ''
    anat = dataset / new / session / 'anat'
    anat.mkdir(parents=True, exist_ok=True)
    suffix = f'_{session}' if session else ''
    (anat / f'{new}{suffix}_T1w.nii.gz').touch()


def make(results: Path, count: int, work: Path) -> tuple[Path, Path]:
    """A dataset and an output folder with so many participants."""
    dataset, out = work / 'dataset', work / 'out'
    write_json(dataset / 'dataset_description.json', {'Name': 'copies', 'BIDSVersion': '1.10.0'})
    write_dataset_files(out, dataset)
    people = {result.names.subject: result for result in find_results(results)}
    originals = list(people.values())
    if not originals:
        raise SystemExit(f'{results}: this folder has no finished participants')
    for number in range(count):
        copy_participant(originals[number % len(originals)], f'{number + 1:05d}', out, dataset)
    return dataset, out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('results', type=Path, help='an output folder with finished participants')
    parser.add_argument('--participants', type=int, default=3000)
    parser.add_argument('--nprocs', type=int, default=2)
    parser.add_argument('--work', type=Path, help='on the file system of RESULTS (hard links)')
    parser.add_argument(
        '--page', type=Path, help='where a copy of the page is kept, with its figures'
    )
    arguments = parser.parse_args()
    results = arguments.results.resolve()
    work = arguments.work.resolve() if arguments.work else results.parent
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        dataset, out = make(results, arguments.participants, Path(folder))
        words = [sys.executable, str(PROJECT / 'run.py'), str(dataset), str(out), 'group']
        words += ['--nprocs', str(arguments.nprocs), '--skip-bids-validation']
        start = time.monotonic()
        ended = subprocess.run(words, stdout=subprocess.DEVNULL, check=False)
        seconds = time.monotonic() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        page = out / output_name('group.page')
        size = page.stat().st_size if page.is_file() else 0
        if size and arguments.page:
            shutil.copy(page, arguments.page)
            beside = arguments.page.parent / 'figures'
            shutil.copytree(out / 'figures', beside, dirs_exist_ok=True)
        print('| participants | s | CPU s | peak memory of a process, MB | page, MB | exit code |')
        print('| --- | --- | --- | --- | --- | --- |')
        print(
            f'| {arguments.participants} | {seconds:.0f} | {used.ru_utime + used.ru_stime:.0f} '
            f'| {used.ru_maxrss / 1024:.0f} | {size / 1e6:.1f} '
            f'| {ended.returncode} |'
        )


if __name__ == '__main__':
    main()
