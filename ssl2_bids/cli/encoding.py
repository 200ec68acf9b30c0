"""UTF-8 in any locale: names of files and what is written into them."""

from __future__ import annotations

import os
import sys


def ensure_utf8() -> None:
    """Start this process again in the UTF-8 mode of Python where the locale is another.

    Without it, a name with an umlaut has characters that no file of results can hold.
    """
    known = sys.getfilesystemencoding().lower() in ('utf-8', 'utf8')
    if known or sys.flags.utf8_mode or not sys.executable:
        return
    os.environ['PYTHONUTF8'] = '1'  # for the processes that are started from here
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(  # noqa: S606  this very process
        sys.executable, [sys.executable, '-X', 'utf8', *sys.orig_argv[1:]]
    )
