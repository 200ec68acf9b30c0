"""A locale without UTF-8, as on many clusters, and names with umlauts."""

from __future__ import annotations

from phantoms import brain_image

PLAIN = {'LC_ALL': 'C', 'PYTHONCOERCECLOCALE': '0', 'PYTHONUTF8': '0'}


def test_umlauts_without_utf8(tmp_path, run_app):
    root = tmp_path / 'Größe' / 'Dätensatz'
    anat = root / 'sub-01' / 'anat'
    anat.mkdir(parents=True)
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    brain_image().to_filename(anat / 'sub-01_FLAIR.nii.gz')
    out = tmp_path / 'Ergebnisse für Köln'
    done = run_app(
        root, out, 'participant', '--sloppy', '-w', tmp_path / 'Zwischenstände', **PLAIN
    )
    assert done.returncode == 0, done.stderr
    assert list(out.rglob('*_label-L_mask.nii.gz'))
