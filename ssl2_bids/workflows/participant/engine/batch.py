"""nipype plugins for clusters: made by name, and jobs cancelled when a run ends early."""

from __future__ import annotations

import getpass
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from nipype.interfaces.base import CommandLine

from ssl2_bids.errors import UnavailableError

if TYPE_CHECKING:
    from nipype import Node

log = logging.getLogger('ssl2_bids')
CANCEL = {'SLURM': 'scancel', 'PBS': 'qdel', 'SGE': 'qdel', 'OAR': 'oardel', 'LSF': 'bkill'}
SUBMIT = ('sbatch', 'qsub', 'oarsub', 'bsub')
WAIT = 60  # s, for the command that cancels


class _Command(CommandLine):
    """nipype 1.11 continues after a command that failed, and reads a job's number from nothing."""

    def run(self, *arguments: Any, **inputs: Any) -> Any:
        result = super().run(*arguments, **inputs)
        if self.cmd in SUBMIT and result.runtime.returncode:
            raise RuntimeError(f'{self.cmd} refused the job: {result.runtime.stderr.strip()}')
        return result


def check_plugin(name: str) -> None:
    """Check that nipype has a plugin.

    Raises
    ------
    UnavailableError : it has not; those there are are named.
    """
    from nipype.pipeline import plugins

    known = sorted(n.removesuffix('Plugin') for n in vars(plugins) if n.endswith('Plugin'))
    if name not in known:
        raise UnavailableError(
            f'nipype has no plugin "{name}"', advice=f'Available: {", ".join(known)}.'
        )


def reports_nodes(name: str) -> bool:
    """Whether a plugin reports the start and the end of each node.

    Those that submit the whole graph at once (``SLURMGraph`` and others) do not.

    Parameters
    ----------
    name : one that :func:`check_plugin` accepts.
    """
    from nipype.pipeline import plugins
    from nipype.pipeline.plugins.base import DistributedPluginBase

    kind = getattr(plugins, f'{name}Plugin')
    return name == 'Linear' or issubclass(kind, DistributedPluginBase)


def make_plugin(given: Mapping[str, Any], report_status: Callable[[Node, str], None]) -> Any:
    """The plugin of a ``--use-plugin`` file.

    Parameters
    ----------
    given : ``plugin``, a name that :func:`check_plugin` accepts, and ``plugin_args``.
    report_status : called with each node and its status, if the plugin reports them.
    """
    from nipype.pipeline import plugins

    os.environ.setdefault('LOGNAME', getpass.getuser())  # in the names of jobs; absent under cron
    kind = getattr(plugins, f'{given["plugin"]}Plugin')
    if given['plugin'] in CANCEL:
        vars(sys.modules[kind.__module__])['CommandLine'] = _Command
    # a stage that needs more than the memory runs alone
    arguments = {'raise_insufficient': False} | (given.get('plugin_args') or {})
    if reports_nodes(given['plugin']):
        arguments['status_callback'] = report_status
    return kind(plugin_args=arguments)


def cancel_jobs(plugin: Any) -> None:
    """Take the jobs of a run that ends early out of the queue; they would run without it."""
    jobs = [str(job) for job in getattr(plugin, '_pending', ())]
    command = CANCEL.get(type(plugin).__name__.removesuffix('Plugin'))
    if not jobs or command is None:
        return
    try:
        subprocess.run([command, *jobs], capture_output=True, check=True, timeout=WAIT)
    except (subprocess.SubprocessError, OSError) as error:
        log.warning('the jobs %s may still run: %s', ', '.join(jobs), error)
    else:
        log.info('cancelled the jobs %s', ', '.join(jobs))
