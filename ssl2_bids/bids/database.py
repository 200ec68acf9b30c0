"""The list of images of a dataset in a database of pybids (``--bids-database-dir``).

pybids lists a dataset once and keeps the names; later runs read them there instead of listing the
folders again. Images that are added afterwards are not in it.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path

from ssl2_bids.errors import CannotWriteError, DataError, UsageError
from ssl2_bids.files import cannot_read, temporary_path

log = logging.getLogger('ssl2_bids')

FILE = 'layout_index.sqlite'
UNLIKE = (ValueError, TypeError, AttributeError, IndexError)  # by files that are no database
# folders without raw images
ELSEWHERE = ('code', 'derivatives', 'models', 'sourcedata', 'stimuli')


def listed_images(bids_dir: Path, database_dir: Path) -> dict[Path, dict[Path, list[Path]]]:
    """The images in ``anat`` and ``fmap`` by folder of the participant and own folder, sorted.

    The database is made where there is none, or one without files; one that fMRIPrep made can be
    used.

    Raises
    ------
    UsageError : the database is one of another dataset, or would be made inside this one.
    DataError : it cannot be read, or pybids cannot list the dataset.
    CannotWriteError : it cannot be made.
    NoInputError : it may not be read.
    """
    root, paths = _known(bids_dir, database_dir) or (bids_dir, _made(bids_dir, database_dir))
    found: dict[Path, dict[Path, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in paths:
        if path.parent.name in ('anat', 'fmap') and path.name.startswith('sub-'):
            relative = path.relative_to(root)
            folder = bids_dir / relative.parent
            found[bids_dir / relative.parts[0]][folder].append(bids_dir / relative)
    return found


def in_dataset(database_dir: Path) -> UsageError:
    """The error of a database that would be written into the dataset."""
    return UsageError(
        'the folder of the database is inside the dataset and holds no database',
        advice='Choose another.',
        path=database_dir,
    )


def existing(known: list[Path]) -> list[Path]:
    """The images of a database that the dataset still has; a warning names the others.

    Raises
    ------
    OSError : it is unknown whether an image exists, because its folder cannot be read.
    """
    gone = [path for path in known if _is_gone(path)]
    if gone:
        more = f' and {len(gone) - 1} more' if gone[1:] else ''
        log.warning('%s%s: removed since the database was made', gone[0], more)
    return [path for path in known if path not in gone]


def _is_gone(path: Path) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    return False


def _known(bids_dir: Path, database_dir: Path) -> tuple[Path, list[Path]] | None:
    """The root and the files of a database; None where there is none, or one without files.

    The latter is what an indexing that was interrupted leaves.
    """
    from sqlalchemy.exc import SQLAlchemyError

    file = database_dir / FILE
    try:
        if not file.is_file() or not file.stat().st_size:
            return None
        # pybids itself stops where the folder of the root does not exist any more
        with closing(sqlite3.connect(f'{file.absolute().as_uri()}?mode=ro', uri=True)) as opened:
            roots = opened.execute('select root from layout_info').fetchall()
            if not opened.execute('select 1 from files limit 1').fetchall():
                return None
        root = Path(roots[0][0])
        if root.resolve() == bids_dir.resolve():
            return root, _listed(root, database_dir)
    except OSError as error:
        raise cannot_read(error, file) from None
    except (SQLAlchemyError, sqlite3.Error, *UNLIKE) as error:
        raise DataError(
            f'not a readable database of pybids ({str(error).splitlines()[0]})',
            advice='Remove the folder: it is made again.',
            path=file,
        ) from None
    raise UsageError(
        f'the database is one of another dataset ({root})',
        advice='Give another folder; a folder that does not exist is made.',
        path=database_dir,
    )


def _made(bids_dir: Path, database_dir: Path) -> list[Path]:
    """Make the database, and list its files.

    It is made in a folder of its own and moved when it is whole: another run may read it, and
    this one may be interrupted.
    """
    from sqlalchemy.exc import SQLAlchemyError

    if database_dir.resolve().is_relative_to(bids_dir.resolve()):
        raise in_dataset(database_dir)
    log.info('%s: listing the dataset for the database', database_dir)
    folder = temporary_path(database_dir / 'index')
    try:
        try:
            paths = _listed(bids_dir, folder)
            os.replace(folder / FILE, database_dir / FILE)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except (OSError, SQLAlchemyError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise CannotWriteError(
            f'the database cannot be made ({reason or error})',
            advice='Choose a folder that you may write to.',
            path=database_dir,
        ) from None
    except UNLIKE as error:
        raise DataError(
            f'pybids cannot list the dataset ({str(error).splitlines()[0]})',
            advice='Leave --bids-database-dir out.',
            path=bids_dir,
        ) from None
    return paths


def _listed(root: Path, folder: Path) -> list[Path]:
    """The files of a database of pybids in a folder, which is made where there is none."""
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    ignored = [re.compile(rf'^/({"|".join(ELSEWHERE)})(/|$)')]
    indexer = BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=ignored)
    layout = BIDSLayout(root, validate=False, database_path=folder, indexer=indexer)
    try:
        return sorted(Path(path) for path in layout.files)
    finally:
        layout.connection_manager.session.close()
