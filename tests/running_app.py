"""The App as a command, and what to look at in its output folder."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def command(*words: object) -> list[str]:
    """The command line of run.py."""
    return [sys.executable, str(PROJECT / 'run.py'), *map(str, words)]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every result below an output folder; logs describe the run, not the result."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and path.relative_to(folder).parts[0] != 'logs'
    }


def validate(
    folder: Path, severities: tuple[str, ...] = ('error',), *, kind: str = 'derivative'
) -> list[dict]:
    """What bids-validator finds in a dataset: errors, or warnings too if asked."""
    program = Path(sys.executable).with_name('bids-validator-deno')
    done = subprocess.run(
        [
            str(program),
            str(folder),
            '--format',
            'json',
            '--datasetTypes',
            kind,
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, 'NO_COLOR': '1'},
    )
    issues = json.loads(done.stdout)['issues']['issues']
    return [issue for issue in issues if issue.get('severity') in severities]
