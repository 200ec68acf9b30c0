"""Takes the place of ``apptainer`` where none can run: the App here, with bound paths renamed.

``run IMAGE ...`` is run.py, ``exec IMAGE torchrun ...`` the torchrun of this environment. Folders
are bound by renaming them in the arguments and in values of ``--env``, so an argument that names
a folder that is not bound fails, as in a container. A folder bound to its own name keeps it. With
``--cleanenv`` the environment is that of the image and of ``--env``; with ``--containall`` nothing
can be written to the home folder, which is stricter than Apptainer.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
KEPT = ('PATH', 'HOME', 'LANG', 'TERM')
OF_THE_IMAGE = {'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}


def main(words: list[str]) -> None:
    verb, words = words[0], words[1:]
    folders, settings, environment = {}, {}, dict(os.environ)
    while words[0].startswith('-'):
        option = words.pop(0)
        if option in ('-B', '--bind'):
            source, *target = words.pop(0).split(':')
            assert Path(source).is_dir(), source
            folders[target[0] if target else source] = source
        elif option == '--env':
            name, _, value = words.pop(0).partition('=')
            settings[name] = value
        elif option == '--cleanenv':
            environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        elif option == '--containall':
            settings['HOME'] = '/proc/no-home'
        else:
            raise AssertionError(option)
    image, *words = words
    assert image.endswith('.sif') or Path(image).is_file(), image
    words = [folders.get(word, word) for word in words]
    environment |= OF_THE_IMAGE | {'PYTHONPATH': str(PROJECT)}
    environment |= {name: folders.get(value, value) for name, value in settings.items()}
    python = Path(sys.executable)
    app = [str(python), str(PROJECT / 'run.py')]
    if verb == 'run':
        command = [*app, *words]
    else:
        assert (verb, words[0]) == ('exec', 'torchrun')
        command = [str(python.with_name('torchrun')), *words[1:]]
        place = command.index('ssl2-bids')
        command[place : place + 1] = app
    os.execve(command[0], command, environment)


if __name__ == '__main__':
    main(sys.argv[1:])
