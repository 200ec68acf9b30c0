"""lesiontrack, mscard and msdataqc take the list of visits that ``ssl2 export`` writes."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ssl2_bids.cli.tools.app import main

pytestmark = pytest.mark.slow

DATES = 'session_id\tacq_time\nses-1\t2020-01-01T10:00:00\nses-2\t2021-01-01T10:00:00\n'


@pytest.fixture(scope='module')
def manifest(visits: Path, run_app: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The list of a phantom's two visits, one year apart."""
    root = tmp_path_factory.mktemp('compared')
    for name in ('data', 'out'):
        shutil.copytree(visits / name, root / name)
    (root / 'data' / 'sub-01' / 'sub-01_sessions.tsv').write_text(DATES)
    model = visits / 'phantom-3t'
    run_app(
        root / 'data', root / 'out', 'participant', '-w', visits / 'work', '--model', model,
        '--output-spaces', 'MNI152NLin2009aSym', '--longitudinal',
    )  # fmt: skip
    given = ['--to', 'lesiontrack', '--model', 'phantom3t']
    assert main(['export', str(root / 'out'), str(root / 'data'), *given]) == 0
    return root / 'out' / 'group_lesiontrack.tsv'


@pytest.mark.client('msdataqc')
def test_msdataqc_follows_sites_and_reports(manifest, run_client, monkeypatch, tmp_path):
    monkeypatch.chdir(manifest.parent)  # it takes paths from the folder where it is started
    output = run_client('msdataqc', 'gtdrift', '--manifest', manifest)
    print(output)
    (row,) = csv.DictReader(output.splitlines(), delimiter='\t')
    assert row['subject'] == 'sub-01'
    assert row['timepoints'] == '2'
    assert int(row['sites']) >= 3
    assert row['flicker'] == row['transient'] == row['vanished'] == '0'
    page = tmp_path / 'page.html'
    run_client('msdataqc', 'report', manifest, '--out', page)
    assert f'<td>{row["sites"]}</td>' in page.read_text()
    assert 'must share one grid' not in page.read_text()


@pytest.mark.client('lesiontrack')
def test_lesiontrack_reads_the_list_and_follows_lesions(manifest):
    """Without its registration, which needs a brain's anatomy and minutes."""
    from lesiontrack.cli import read_manifest
    from lesiontrack.tracking import summarize, track_pair

    (visits,) = read_manifest(manifest).values()
    assert [one.name for one in visits] == ['ses-1', 'ses-2']
    years = visits[1].time_years - visits[0].time_years
    assert years == pytest.approx(1.0, abs=0.01)
    assert all(one.t1.is_file() and one.flair.is_file() for one in visits)
    masks = [np.asarray(nib.load(one.mask).dataobj) > 0 for one in visits]
    table, _ = track_pair(*masks, dt_years=years, voxel_mm3=1.0)
    summary = summarize(table, 1.0)
    print(summary)
    assert summary['n_groups'] >= 3
    assert not {'new', 'resolved'} & summary['classes'].keys()


@pytest.mark.client('mscard')
def test_mscard_reads_all_rows_on_one_grid(manifest):
    from mscard.spec import check_scan_grid, read_manifest

    (scans,) = read_manifest(manifest).values()
    assert [scan.session for scan in scans] == ['ses-1', 'ses-2']
    assert [scan.date for scan in scans] == ['2020-01-01', '2021-01-01']
    for scan in scans:
        check_scan_grid(scan)
        assert scan.mask is not None
        assert scan.brainmask is not None
