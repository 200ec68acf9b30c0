"""The list of images of a dataset in a database of pybids (``--bids-database-dir``).

pybids lists a dataset once and keeps the names; later runs read them there instead of listing the
folders again. Images that are added afterwards are not in it.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from pathlib import Path

from ssl2_bids.errors import CannotWriteError, DataError, UsageError

log = logging.getLogger('ssl2_bids')

# folders without raw images
ELSEWHERE = ('code', 'derivatives', 'models', 'sourcedata', 'stimuli')


def listed_images(bids_dir: Path, database_dir: Path) -> dict[Path, dict[Path, list[Path]]]:
    """The images in ``anat`` and ``fmap`` by folder of the participant and own folder, sorted.

    The database is made where there is none; one that fMRIPrep made can be used.

    Raises
    ------
    UsageError : the database is one of another dataset.
    DataError : it cannot be read.
    CannotWriteError : it cannot be made.
    """
    from bids.layout import BIDSLayout, BIDSLayoutIndexer
    from sqlalchemy.exc import SQLAlchemyError

    file = database_dir / 'layout_index.sqlite'
    if not file.is_file():
        log.info('%s: listing the dataset for the database', database_dir)
    ignored = [re.compile(rf'^/({"|".join(ELSEWHERE)})(/|$)')]
    indexer = BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=ignored)
    try:
        layout = BIDSLayout(bids_dir, validate=False, database_path=database_dir, indexer=indexer)
        paths = sorted(Path(path) for path in layout.files)
    except OSError as error:
        raise CannotWriteError(
            f'the database cannot be made ({error.strerror or error})',
            advice='Choose a folder that you may write to.',
            path=database_dir,
        ) from None
    except (SQLAlchemyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f'not a readable database of pybids ({str(error).splitlines()[0]})',
            advice='Remove the folder: it is made again.',
            path=file,
        ) from None
    if Path(layout.root).resolve() != bids_dir.resolve():
        raise UsageError(
            f'the database is one of another dataset ({layout.root})',
            advice='Give another folder; a folder that does not exist is made.',
            path=database_dir,
        )
    found: dict[Path, dict[Path, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in paths:
        if path.parent.name in ('anat', 'fmap') and path.name.startswith('sub-'):
            relative = path.relative_to(layout.root)
            folder = bids_dir / relative.parent
            found[bids_dir / relative.parts[0]][folder].append(bids_dir / relative)
    return found
