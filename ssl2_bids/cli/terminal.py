"""What a person sees: lines, a progress bar on a terminal, and the same lines in the log."""

from __future__ import annotations

import csv
import datetime
import io
import logging
import sys
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl2_bids.errors import Ssl2Error
from ssl2_bids.files import as_ssl2_error, write_text

if TYPE_CHECKING:
    from ssl2_bids.workflows.participant.outcomes import Outcome

log = logging.getLogger('ssl2_bids')


class _LogFile(logging.FileHandler):
    """A log that ends where the disk is full; the run continues."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        log.removeHandler(self)
        log.warning('the log of the run ends here: %s', as_ssl2_error(error, self.baseFilename))

    def close(self) -> None:
        with suppress(OSError):  # what is left in the buffer of a full disk
            super().close()


class Terminal:
    """Lines on stderr, a progress bar where stderr is a terminal, a log file of the run."""

    def __init__(self, settings: Any):
        self.settings = settings
        now = datetime.datetime.now()
        self.run_id = f'{now:%Y%m%d-%H%M%S}_{uuid.uuid4()}'
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        self._handlers: list[logging.Handler] = []

    def __enter__(self) -> Terminal:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter('%(message)s'))
        handler.setLevel(max(logging.DEBUG, 20 - 10 * self.settings.verbose))
        self._add(handler)
        log.setLevel(logging.DEBUG)
        log.propagate = False
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._stop_bar()
        if error is not None:  # the terminal shows it in its last line; the log file has it here
            code = getattr(error, 'exit_code', Ssl2Error.exit_code)
            log.debug('ssl2-bids: error: %s (exit code %d)', error, code)
        for handler in self._handlers:
            log.removeHandler(handler)
            handler.close()

    def _add(self, handler: logging.Handler) -> None:
        self._handlers.append(handler)
        log.addHandler(handler)

    def open_log(self, options: dict[str, Any], command: str, resources: str) -> None:
        """Begin ``logs/<run id>.log`` and write the options to ``logs/<run id>.toml``.

        Parameters
        ----------
        resources : cores and memory, and which limits they come from.
        """
        import tomli_w

        from ssl2_bids.bids.provenance import software_versions

        folder: Path = self.settings.output_dir / 'logs'
        content = {'options': options, 'versions': software_versions(), 'command': command}
        write_text(folder / f'{self.run_id}.toml', tomli_w.dumps(content))
        handler = _LogFile(folder / f'{self.run_id}.log', encoding='utf-8')
        handler.setFormatter(logging.Formatter('%(asctime)s %(levelname)s %(message)s'))
        self._add(handler)
        log.debug(command)
        log.debug(resources)

    def show(self, text: str) -> None:
        """A line for the user; a dry run's plan goes to stdout."""
        if self.settings.dry_run:
            print(text)
        elif self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
            log.debug(text)
        else:
            log.info(text)

    def progress(self, session: str, stage: str, status: str, stages: int) -> None:
        """One of the stages of a session starts or ends."""
        log.debug('%s: %s %s', session, stage, status)
        if not sys.stderr.isatty():
            if (stage, status) == ('finish', 'end'):  # a job's log shows how far it is
                log.info('%s: finished', session)
            elif status == 'failed':
                log.info('%s: failed; the reason follows at the end', session)
            return
        if self._bar is None:
            self._start_bar()
        if session not in self._tasks:
            self._tasks[session] = self._bar.add_task(session, total=stages, stage='')
        if status == 'start':
            self._bar.update(self._tasks[session], stage=stage.replace('_', ' '))
        else:
            self._bar.advance(self._tasks[session])
        if stage == 'finish' and status in ('end', 'failed'):
            self._bar.update(self._tasks.pop(session), visible=False)

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed

        self._bar = Progress(
            TextColumn('{task.description}'),
            BarColumn(),
            MofNCompleteColumn(),
            Elapsed(),
            TextColumn('{task.fields[stage]}'),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar.start()

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def conclude(self, code: int, outcomes: list[Outcome]) -> None:
        """The last lines: what failed and why, the counts, and the exit code they agree with."""
        self._stop_bar()
        if self.settings.dry_run:
            return
        if outcomes and self.settings.resource_monitor:  # an option of the participant level
            self._show_resources(outcomes)
        for outcome in outcomes:
            if outcome.status in ('failed', 'skipped'):
                log.error('%s: %s: %s', outcome.name, outcome.status, outcome.reason)
        counts: dict[str, int] = {}
        for outcome in outcomes:
            counts[outcome.status] = counts.get(outcome.status, 0) + 1
        absent = [path for outcome in outcomes for path in outcome.absent]
        if absent:
            from ssl2_bids.bids.absent import how_to_get_each

            log.warning('%s', how_to_get_each(self.settings.datasets, absent))
            counts['with absent files'] = sum(bool(outcome.absent) for outcome in outcomes)
        summary = ', '.join(f'{number} {status}' for status, number in counts.items())
        end = 'finished' if code == 0 else 'finished with errors'
        log.info('ssl2-bids %s%s (exit code %d)', end, f': {summary}' if summary else '', code)

    def _show_resources(self, outcomes: list[Outcome]) -> None:
        rows = [
            {
                'session': o.name,
                'stage': r['Node'],
                'seconds': r['Seconds'],
                'cpu_seconds': r.get('CpuSeconds', 'n/a'),  # n/a: a stage of an earlier version
                'peak_memory_MB': r['PeakMemoryMB'],
                'gpu_memory_MB': r['GpuMemoryMB'],
            }
            for o in outcomes
            for r in o.resources
        ]
        if not rows:
            return
        from ssl2_bids.bids.columns import RESOURCE_COLUMNS

        stream = io.StringIO()
        names = list(RESOURCE_COLUMNS)
        writer = csv.DictWriter(stream, names, delimiter='\t', lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
        path = self.settings.output_dir / 'logs' / f'{self.run_id}_resources.tsv'
        write_text(path, stream.getvalue())
        table = [names, *[[str(value) for value in row.values()] for row in rows]]
        log.info(align_columns(table, text_columns=2))


def align_columns(rows: list[list[str]], *, text_columns: int) -> str:
    """Rows as plain lines: the first columns to the left, numbers behind them to the right."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = (
        '  '.join(
            cell.ljust(width) if n < text_columns else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
    return '\n'.join(lines)
