"""The interactive viewer: only the brain, the same bytes, and what a browser makes of it."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import time

import nibabel as nib
import numpy as np
import pytest
from browser import Browser, find_chromium
from PIL import Image
from scipy import ndimage

from ssl2_bids.reports import participant, viewer
from ssl2_bids.volume import Volume

NAME = 'sub-01_desc-viewer.js'
PLACES = ((22, 15, 20, 9), (-25, -20, 10, 7), (18, -30, -12, 6), (-15, 28, 5, 4))  # mm, radius


def patient(*, spacing=(1.4, 1.4, 3.0), stored='LPS'):
    """FLAIR and T1w of an oblique head with a face, brain mask, lesions; numbered by size."""
    shape = tuple(int(n / s) for n, s in zip((150, 190, 140), spacing, strict=True))
    turn = np.deg2rad(8)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0],
                         [0, 0, 1]])  # fmt: skip
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.array(spacing)
    affine[:3, 3] = [3, -5, 12] - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    grid = np.indices(shape).reshape(3, -1)
    world = ((affine[:3, :3] @ grid) + affine[:3, 3:]).reshape(3, *shape)
    x, y, z = world
    brain = (x / 52) ** 2 + (y / 68) ** 2 + ((z - 5) / 50) ** 2 < 1
    face = (abs(x) < 40) & (y > 70) & (z < 30)
    noise = np.random.default_rng(0).normal(0, 4, shape)
    t1w = np.where(brain, 100 - 0.3 * x, np.where(face, 240, 0)) + noise
    flair = np.where(brain, 100 + 0.5 * x, np.where(face, 240, 0)) + noise
    lesions = np.zeros(shape)
    for index, (cx, cy, cz, radius) in enumerate(PLACES, start=1):
        lesions[(x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < radius**2] = index
    volumes = [Volume(a.astype(np.float32), affine) for a in (flair, t1w, lesions, brain)]
    if stored == 'LPS':
        flip = np.diag([-1.0, -1, 1, 1])
        flip[:2, 3] = shape[0] - 1, shape[1] - 1
        volumes = [Volume(v.data[::-1, ::-1].copy(), affine @ flip) for v in volumes]
    return volumes


def named(volume, contrast):
    return Volume(volume.data, volume.affine, contrast)


def write(path, **options):
    flair, t1w, lesions, brain = patient(**options)
    return viewer.write_volumes(path, [named(flair, 'FLAIR'), named(t1w, 'T1w')], lesions, brain)


def decode(path):
    """Images by name, and lesions, of a script."""
    start, _, content = path.read_text().partition(']=')
    assert start == f'(window.ssl2Volumes=window.ssl2Volumes||{{}})["{path.name}"'
    content = json.loads(content.rstrip().removesuffix(';'))

    def image(text):
        return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))

    return {i['name']: image(i['nifti']) for i in content['images']}, image(content['lesions'])


def value_at(image, xyz):
    voxel = np.round(np.linalg.inv(image.affine) @ [*xyz, 1])[:3].astype(int)
    return np.asarray(image.dataobj)[tuple(voxel)]


def centre_of(image, index):
    voxel = ndimage.center_of_mass(np.asarray(image.dataobj) == index)
    return (image.affine @ [*voxel, 1])[:3]


# ---- The script


def test_the_brain_stays_where_it_was_and_the_face_is_gone(tmp_path):
    assert write(tmp_path / NAME) is False
    images, lesions = decode(tmp_path / NAME)
    assert list(images) == ['FLAIR', 'T1w']
    for image in images.values():
        assert image.get_data_dtype() == np.uint8
        assert nib.aff2axcodes(image.affine) == ('R', 'A', 'S')
        data = np.asarray(image.dataobj)
        corners = np.argwhere(data > 0)
        world = nib.affines.apply_affine(image.affine, corners)
        assert world[:, 1].max() < 70  # the face begins there
        assert data.shape[1] * image.header.get_zooms()[1] < 160
    right, left = (value_at(images['FLAIR'], (x, 0, 5)) for x in (45, -45))
    assert int(right) - int(left) > 60
    for index, (*xyz, _) in enumerate(PLACES, start=1):
        assert np.abs(centre_of(lesions, index) - xyz).max() < 1


def test_orientation_in_the_file_makes_no_difference(tmp_path):
    write(tmp_path / 'a' / NAME, stored='LPS')
    write(tmp_path / 'b' / NAME, stored='RAS')
    (a, b), (c, d) = decode(tmp_path / 'a' / NAME), decode(tmp_path / 'b' / NAME)
    for one, other in ((a['T1w'], c['T1w']), (b, d)):
        assert np.allclose(one.affine, other.affine, atol=1e-4)
        assert np.array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))


def test_equal_volumes_equal_bytes(tmp_path):
    write(tmp_path / 'a' / NAME)
    time.sleep(1.1)  # a time stamp would differ
    write(tmp_path / 'b' / NAME)
    assert (tmp_path / 'a' / NAME).read_bytes() == (tmp_path / 'b' / NAME).read_bytes()


def test_a_brain_of_1_mm_is_kept_and_small(tmp_path):
    assert write(tmp_path / NAME, spacing=(1.0, 1.0, 1.0)) is False
    assert decode(tmp_path / NAME)[0]['FLAIR'].header.get_zooms() == (1, 1, 1)
    assert (tmp_path / NAME).stat().st_size < 4e6


def test_too_fine_voxels_are_made_larger_in_place(monkeypatch, tmp_path):
    monkeypatch.setattr(viewer, 'MAX_VOXELS', 40_000)
    flair, _, lesions, brain = patient(spacing=(2.0, 2.0, 3.0))
    assert (brain.data > 0).sum() > 50_000
    assert viewer.write_volumes(tmp_path / NAME, [named(flair, 'FLAIR')], lesions, brain)
    images, found = decode(tmp_path / NAME)
    zooms = images['FLAIR'].header.get_zooms()
    assert zooms[0] == zooms[1] > 2.2
    assert zooms[2] == 3  # thick slices are not made thicker
    inside = np.asarray(images['FLAIR'].dataobj) > 0
    assert 30_000 < inside.sum() < 41_000
    assert inside.sum() * np.prod(zooms) == pytest.approx((brain.data > 0).sum() * 12, rel=0.02)
    centre = nib.affines.apply_affine(images['FLAIR'].affine, np.argwhere(inside)).mean(axis=0)
    assert np.abs(centre - [0, 0, 5]).max() < 0.7
    assert set(np.unique(np.asarray(found.dataobj))) == {0, 1, 2, 3, 4}


def test_many_lesions_keep_their_numbers(tmp_path):
    flair, _, lesions, brain = patient()
    lesions.data[lesions.data == 4] = 300
    viewer.write_volumes(tmp_path / NAME, [named(flair, 'FLAIR')], lesions, brain)
    assert np.asarray(decode(tmp_path / NAME)[1].dataobj).max() == 300


def test_volumes_on_other_grids_are_refused(tmp_path):
    flair, _, lesions, brain = patient()
    elsewhere = Volume(flair.data, flair.affine @ np.diag([1.0, 1, 1.01, 1]))
    with pytest.raises(ValueError, match='one grid'):
        viewer.write_volumes(tmp_path / NAME, [elsewhere], lesions, brain)


# ---- The page


def summary(lesions):
    rows = [
        {
            'index': index,
            'name': f'lesion {index}',
            'volume_mm3': float(4 / 3 * np.pi * radius**3),
            **dict(zip('xyz', np.round(centre_of(lesions, index), 1).tolist(), strict=True)),
            'probability_mean': 0.8,
            'probability_max': 1.0,
            'region': 'deep-white-matter',
        }
        for index, (*_, radius) in enumerate(PLACES, start=1)
    ]
    figure = {'File': 'sub-01/figures/l.svg', 'Kind': 'lesions', 'Title': 'T', 'Caption': 'C'}
    return {
        'subject': '01',
        'status': 'done',
        'figures': [figure],
        'lesions': rows,
        'viewer': {'Volumes': f'sub-01/figures/{NAME}', 'Program': 'figures/niivue.js'},
    }


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """A folder with a page and what it shows; its rows."""
    folder = tmp_path_factory.mktemp('made')
    write(folder / 'sub-01' / 'figures' / NAME)
    (folder / 'sub-01' / 'figures' / 'l.svg').write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="1200" height="900"/>'
    )
    content = summary(decode(folder / 'sub-01' / 'figures' / NAME)[1])
    participant.render([content], folder / 'sub-01.html', subject='01', version='0')
    return folder, content


@pytest.fixture
def without_niivue(monkeypatch, tmp_path):
    (tmp_path / 'resources').mkdir()
    monkeypatch.setattr(viewer, 'files', lambda _: tmp_path / 'resources')


def test_without_niivue_the_static_page_is_whole_and_has_a_note(
    without_niivue, made, tmp_path, read_page
):
    participant.render([made[1]], tmp_path / 'sub-01.html', subject='01', version='0')
    page = read_page(tmp_path / 'sub-01.html')
    assert page.unbalanced == []
    assert 'The interactive viewer is not available' in page.text
    assert 'sub-01/figures/l.svg' in page.targets
    assert 'ssl2Volumes' not in page.source
    assert 'lesion 4' in page.text
    assert not (tmp_path / 'figures').exists()


def test_sessions_without_a_viewer_do_not_mention_it(tmp_path, read_page, made):
    failed = {'subject': '01', 'status': 'failed', 'error': {'Message': 'm'}}
    former = {key: value for key, value in made[1].items() if key != 'viewer'}
    participant.render([failed, former], tmp_path / 'sub-01.html', subject='01', version='0')
    page = read_page(tmp_path / 'sub-01.html')
    assert 'viewer' not in page.text.lower()
    assert not (tmp_path / 'figures').exists()


@pytest.fixture(scope='module')
def program(made):
    if not (made[0] / 'figures' / 'niivue.js').is_file():
        pytest.skip('NiiVue is not installed (tools/fetch-viewer)')
    return made[0] / 'figures' / 'niivue.js'


def test_niivue_comes_with_its_licence_and_is_not_written_twice(program, made):
    text = program.read_text(encoding='utf-8')
    assert text.startswith('/*!\nBSD 2-Clause License')
    before = program.stat()
    participant.render([made[1]], made[0] / 'sub-01.html', subject='01', version='0')
    assert program.stat().st_mtime_ns == before.st_mtime_ns
    assert program.stat().st_ino == before.st_ino


def test_page_with_viewer_is_sound(program, made, read_page):
    page = read_page(made[0] / 'sub-01.html')
    assert page.unbalanced == []
    assert len(page.ids) == len(set(page.ids))
    assert 'module' not in page.values('type')
    assert 'fetch(' not in page.source


# ---- In a browser


@pytest.fixture(scope='module')
def chromium():
    if find_chromium() is None:
        pytest.skip('no chromium on this machine')


@pytest.fixture(scope='module')
def desktop(chromium, program):
    with Browser(width=1280, height=900) as browser:
        yield browser


@pytest.fixture
def opened(desktop, made):
    """The page with its viewer open."""
    desktop.events.clear()
    desktop.show(made[0] / 'sub-01.html')
    open_viewer(desktop)
    return desktop


def open_viewer(browser):
    browser.run('document.querySelector(".viewer").scrollIntoView({behavior: "instant"})')
    browser.wait_for('document.querySelector(".where").textContent')


def crosshair(browser):
    """Where the crosshair is by the page, in mm."""
    text = browser.run('document.querySelector(".where").textContent')
    found = re.fullmatch(r'(−?[\d.]+) (−?[\d.]+) (−?[\d.]+) mm', text)
    assert found, text
    return np.array([float(part.replace('−', '-')) for part in found.groups()])


def wait_for_a_move(browser, before):
    deadline = time.monotonic() + 60
    while np.array_equal(crosshair(browser), before):
        assert time.monotonic() < deadline, 'the crosshair stayed'


def picture(browser):
    """What the viewer shows, as (rows, columns, 3)."""
    box = browser.run(
        '(() => { const b = document.querySelector(".screen").getBoundingClientRect();'
        'return {x: b.x, y: b.y + scrollY, width: b.width, height: b.height}; })()'
    )
    return np.asarray(Image.open(io.BytesIO(browser.screenshot(clip=box))).convert('RGB'))


@pytest.mark.browser
def test_a_click_on_a_lesion_goes_there(opened, made):
    rows = made[1]['lesions']
    before = crosshair(opened)
    opened.click('tr[data-lesion]:nth-child(3) td:nth-child(2)')
    opened.wait_for('document.querySelector("tr:nth-child(3).here")')
    wanted = np.array([rows[2][axis] for axis in 'xyz'])
    assert np.abs(before - wanted).max() > 10
    assert np.abs(crosshair(opened) - wanted).max() < 0.11
    text = opened.run('document.querySelector(".what").textContent')
    assert text == 'lesion 3, deep white matter, 905 mm³'
    opened.click('[data-step="1"]')
    opened.wait_for('document.querySelector("tr:nth-child(4).here")')
    assert np.abs(crosshair(opened) - [rows[3][axis] for axis in 'xyz']).max() < 0.11


@pytest.mark.browser
def test_left_is_left_and_lesions_lie_where_the_table_has_them(opened):
    opened.click('[data-view="axial"]')
    opened.run(
        '(() => { const e = document.querySelector("[data-opacity]"); e.value = 0;'
        'e.dispatchEvent(new Event("input")); })()'
    )
    opened.click('tr[data-lesion]:nth-child(1)')
    plain = picture(opened).astype(int)
    middle = plain.shape[1] // 2
    grey = plain.max(axis=2)
    grey[np.ptp(plain, axis=2) > 12] = 0  # letters and crosshair are blue
    left, right = grey[:, : middle - 60], grey[:, middle + 60 :]
    assert right[right > 30].mean() - left[left > 30].mean() > 40  # FLAIR grows with x
    opened.run(
        '(() => { const e = document.querySelector("[data-opacity]"); e.value = 100;'
        'e.dispatchEvent(new Event("input")); })()'
    )
    coloured = np.argwhere(np.abs(picture(opened).astype(int) - plain).max(axis=2) > 60)
    rows, columns = coloured.mean(axis=0)
    # The first lesion lies at the right and in front: left is left, anterior is up.
    assert columns > middle + 20
    assert rows < plain.shape[0] / 2


@pytest.mark.browser
def test_contrast_switch_and_keys(opened):
    before = picture(opened)
    opened.click('[data-images] button:nth-child(2)')
    assert np.abs(picture(opened).astype(int) - before).mean() > 3
    pressed = opened.run(
        '[...document.querySelectorAll("[data-images] button")]'
        '.map(b => b.textContent + b.getAttribute("aria-pressed")).join()'
    )
    assert pressed == 'FLAIRfalse,T1wtrue'
    opened.click('.screen canvas')
    start = crosshair(opened)
    opened.press('PageUp')
    assert crosshair(opened)[2] - start[2] == pytest.approx(3, abs=1.6)  # to a slice's middle
    start = crosshair(opened)
    opened.press('PageDown')
    opened.press('ArrowLeft')
    moved = crosshair(opened) - start
    assert moved[2] == pytest.approx(-3, abs=0.11)
    assert moved[0] == pytest.approx(-1.4 * np.cos(np.deg2rad(8)), abs=0.11)
    opened.press('n')
    assert 'lesion' in opened.run('document.querySelector(".what").textContent')


@pytest.mark.slow
@pytest.mark.browser
def test_sessions_alternate_at_one_place_until_one_is_chosen(desktop, made):
    content = {**made[1], 'viewer': {**made[1]['viewer'], 'Flicker': True}}
    path = made[0] / 'sessions.html'
    participant.render([content], path, subject='01', version='0')
    desktop.show(path)
    open_viewer(desktop)
    first = 'document.querySelector("[data-images] button").getAttribute("aria-pressed") === "{}"'
    assert desktop.run(first.format('true'))
    before, place = picture(desktop), crosshair(desktop)
    desktop.run('document.querySelector("[data-flicker]").click()')
    desktop.wait_for(first.format('false'))
    desktop.wait_for(first.format('true'))
    assert np.array_equal(crosshair(desktop), place)
    desktop.run('document.querySelectorAll("[data-images] button")[1].click()')
    time.sleep(2)
    assert desktop.run(first.format('false'))
    pressed = 'document.querySelector("[data-flicker]").getAttribute("aria-pressed")'
    assert desktop.run(pressed) == 'false'
    assert np.abs(picture(desktop).astype(int) - before).mean() > 1


@pytest.mark.browser
def test_the_wheel_scrolls_the_page_first_and_slices_after_a_click(opened):
    x, y = opened.place_of('.screen canvas')
    before, top = crosshair(opened), opened.run('scrollY')

    def turn():
        opened.send('Input.dispatchMouseEvent', type='mouseWheel', x=x, y=y, deltaX=0, deltaY=-120)

    turn()
    opened.wait_for(f'scrollY < {top}')
    assert np.array_equal(crosshair(opened), before)
    opened.click('.screen canvas')
    before, top = crosshair(opened), opened.run('scrollY')
    x, y = opened.place_of('.screen canvas')
    turn()
    wait_for_a_move(opened, before)
    assert opened.run('scrollY') == top


@pytest.mark.browser
def test_rows_can_be_reached_by_keyboard(opened, made):
    opened.run('document.querySelector("tr[data-lesion]:nth-child(2) button").focus()')
    opened.press('Enter')
    wanted = [made[1]['lesions'][1][axis] for axis in 'xyz']
    opened.wait_for('document.querySelector("tr:nth-child(2).here")')
    assert np.abs(crosshair(opened) - wanted).max() < 0.11


@pytest.mark.browser
def test_nothing_is_asked_of_the_network_and_nothing_fails(opened):
    asked = [
        event['params']['request']['url']
        for event in opened.events
        if event.get('method') == 'Network.requestWillBeSent'
    ]
    assert any(address.endswith('figures/niivue.js') for address in asked)
    assert {address.partition(':')[0] for address in asked} <= {'file', 'data', 'blob'}
    assert not [e for e in opened.events if e.get('method') == 'Runtime.exceptionThrown']


@pytest.mark.browser
def test_without_its_files_the_page_has_a_message(desktop, made, tmp_path):
    (tmp_path / 'sub-01.html').write_bytes((made[0] / 'sub-01.html').read_bytes())
    desktop.show(tmp_path / 'sub-01.html')
    desktop.run('document.querySelector(".viewer").scrollIntoView({behavior: "instant"})')
    desktop.wait_for('document.querySelector(".said").textContent.includes("do not lie beside")')
    assert desktop.run('document.querySelector(".stage").hidden')
    assert desktop.run('document.querySelectorAll("tr[data-lesion] button").length') == 0
    assert desktop.run('document.querySelectorAll("tr[data-lesion]").length') == 4


@pytest.mark.slow  # many WebGL contexts drawn by software: minutes on a busy machine
@pytest.mark.browser
def test_more_viewers_than_a_browser_keeps(desktop, made, tmp_path):
    content = made[1]
    (tmp_path / 'figures').symlink_to(made[0] / 'figures')
    (tmp_path / 'sub-01').symlink_to(made[0] / 'sub-01')
    participant.render(
        [content | {'session': str(i)} for i in range(6)],
        tmp_path / 'sub-01.html',
        subject='01',
        version='0',
    )
    desktop.show(tmp_path / 'sub-01.html')
    for place in (*range(1, 7), 1):
        desktop.run(f'document.getElementById("s{place}-viewer").scrollIntoView()')
        desktop.wait_for(f'document.querySelector("#s{place}-viewer .where").textContent')
        desktop.wait_for(f'document.querySelector("#s{place}-viewer canvas").width > 400')
    desktop.click('#s1-table tr:nth-child(4)')
    desktop.wait_for('document.querySelector("#s1-table tr:nth-child(4).here")')


@pytest.mark.slow  # as above
@pytest.mark.browser
def test_a_viewer_without_lesions_that_opens_again_has_its_buttons_once(desktop, made, tmp_path):
    flair, t1w, lesions, brain = patient(spacing=(3.0, 3.0, 3.0))
    volumes = 'figures/none.js'
    (tmp_path / 'figures').mkdir()
    viewer.write_volumes(
        tmp_path / volumes,
        [named(flair, 'FLAIR'), named(t1w, 'T1w')],
        lesions.with_data(np.zeros_like(lesions.data)),
        brain,
    )
    asked = {'Volumes': volumes, 'Program': 'figures/niivue.js'}
    none = {'name': 'all', 'lesion_count': 0, 'volume_mm3': 0.0, 'lesion_load': 0.0}
    more = {'viewer': asked, 'lesions': [], 'volumes': [none]}
    sessions = [made[1] | more | {'session': str(number)} for number in range(1, 9)]
    participant.render(sessions, tmp_path / 'sub-01.html', subject='01', version='0')
    desktop.show(tmp_path / 'sub-01.html')
    for place in (*range(1, 9), 1):
        desktop.run(f'document.getElementById("s{place}-viewer").scrollIntoView()')
        desktop.wait_for(f'document.querySelector("#s{place}-viewer .where").textContent')
        if place == 8:  # the first one is closed, and will write its place again
            desktop.run('document.querySelector("#s1-viewer .where").textContent = ""')
    buttons = 'Array.from(document.querySelectorAll("#s1-viewer [data-images] button"))'
    assert desktop.run(f'{buttons}.map((button) => button.textContent)') == ['FLAIR', 'T1w']


@pytest.mark.browser
def test_without_webgl_figures_stand_alone(chromium, program, made):
    with Browser(webgl=False) as browser:
        browser.show(made[0] / 'sub-01.html')
        browser.wait_for('document.querySelector(".said").textContent.includes("WebGL 2")')
        assert browser.run('document.querySelector(".stage").hidden')
        browser.wait_for('document.querySelector("figure img").naturalWidth === 1200')


@pytest.mark.browser
def test_all_columns_of_the_lesions_are_seen_at_1280_pixels(chromium, program, made):
    scrollbars = 30  # of the window and of the table; a browser without a window has none
    with Browser(width=1280 - scrollbars) as browser:
        browser.show(made[0] / 'sub-01.html')
        table = 'document.querySelector("#s1-table")'
        wide, seen = browser.run(f'[{table}.scrollWidth, {table}.parentElement.clientWidth]')
        assert wide <= seen


@pytest.mark.browser
def test_on_a_phone(chromium, program, made):
    with Browser(width=390, height=844, phone=True) as browser:
        browser.show(made[0] / 'sub-01.html')
        open_viewer(browser)
        assert browser.run('document.documentElement.scrollWidth') <= 390
        assert browser.run('document.querySelector("[data-view=axial]").ariaPressed') == 'true'
        before = crosshair(browser)
        browser.tap('.screen canvas')
        wait_for_a_move(browser, before)
        assert np.abs(crosshair(browser)[:2]).max() < 20
        assert crosshair(browser)[2] == before[2]
