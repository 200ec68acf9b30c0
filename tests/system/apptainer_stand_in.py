"""Takes the place of ``apptainer`` where none can run: the App here, with bound paths renamed.

``run IMAGE ...`` is run.py, ``exec IMAGE torchrun ...`` the torchrun of this environment. Folders
are bound by renaming them in the arguments, so an argument that names a folder that is not bound
fails, as in a container.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
OF_ARGUMENT = {'-B', '--bind', '--env'}


def main(words: list[str]) -> None:
    verb, words = words[0], words[1:]
    folders = {}
    while words[0].startswith('-'):
        option = words.pop(0)
        if option in OF_ARGUMENT:
            source, target, *_ = words.pop(0).split(':')
            assert Path(source).is_dir(), source
            folders[target] = source
    image, *words = words
    assert image.endswith('.sif'), image
    words = [folders.get(word, word) for word in words]
    python = Path(sys.executable)
    app = [str(python), str(PROJECT / 'run.py')]
    if verb == 'run':
        command = [*app, *words]
    else:
        assert (verb, words[0]) == ('exec', 'torchrun')
        command = [str(python.with_name('torchrun')), *words[1:]]
        place = command.index('ssl2-bids')
        command[place : place + 1] = app
    os.environ['PYTHONPATH'] = str(PROJECT)
    os.execv(command[0], command)


if __name__ == '__main__':
    main(sys.argv[1:])
