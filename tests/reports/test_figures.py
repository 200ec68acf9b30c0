"""Figures: geometry, sides, sizes in bytes, equal bytes."""

from __future__ import annotations

import base64
import io
import re
import time
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from ssl2_bids import volume
from ssl2_bids.reports.figures import session as figures
from ssl2_bids.reports.figures.panels import outline
from ssl2_bids.volume import Volume

SVG = '{http://www.w3.org/2000/svg}'


def head(shape=(96, 112, 24), spacing=(1.5, 1.5, 5.0), *, stored='RAS'):
    """A bright ellipsoid brain in a dimmer head, centred on the origin; lesions in the brain."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing
    grid = np.indices(shape).astype(np.float32)
    world = [grid[a] * spacing[a] + affine[a, 3] for a in range(3)]
    extent = np.array(shape) * spacing
    radius = np.sqrt(sum((world[a] / (0.33 * extent[a])) ** 2 for a in range(3)))
    brain = radius < 1
    noise = np.random.default_rng(0).normal(0, 3, shape)
    data = np.where(brain, 100 + 10 * np.sin(grid[0] / 5), np.where(radius < 1.4, 60, 0)) + noise
    lesions = np.zeros(shape, np.int16)
    for index, (x, y, z, r) in enumerate(
        [(25, 10, 10, 10), (-20, -15, 0, 7), (15, -25, -10, 5)], start=1
    ):
        ball = (world[0] - x) ** 2 + (world[1] - y) ** 2 + (world[2] - z) ** 2 < r**2
        lesions[ball & (lesions == 0)] = index
    data[lesions > 0] = 180
    volumes = [Volume(a.astype(np.float32), affine) for a in (data, lesions, brain)]
    if stored == 'LPS':
        flip = np.diag([-1.0, -1, 1, 1])
        flip[:2, 3] = shape[0] - 1, shape[1] - 1
        volumes = [Volume(v.data[::-1, ::-1].copy(), affine @ flip) for v in volumes]
    return volumes


def drawings(image, lesions, brain):
    """Every figure, as a function of the path alone."""
    frequency = lesions.with_data((lesions.data > 0) * 0.4)
    return {
        'lesions': lambda p: figures.draw_lesions(image, lesions, p, title='T', brain=brain),
        'mosaic': lambda p: figures.draw_mosaic(image, lesions, p, title='T', brain=brain),
        'brain': lambda p: figures.draw_brain_mask(image, brain, p, title='T'),
        'registration': lambda p: figures.draw_registration(
            image, image, brain, p, title='T', fixed_name='FLAIR', moving_name='T1w <moved>'
        ),
        'frequency': lambda p: figures.draw_frequency(frequency, image, p, title='T'),
        'distortion': lambda p: figures.draw_distortion(frequency, image, brain, p, title='T'),
    }


def panels(path):
    """Nested svg elements: one per panel."""
    return list(ET.parse(path).getroot().iter(f'{SVG}svg'))[1:]


def pixels(panel):
    """The first picture of a panel as an array."""
    data = panel.find(f'{SVG}image').get('href').split(',', 1)[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def words(path):
    return ' '.join(''.join(e.itertext()) for e in ET.parse(path).getroot().iter(f'{SVG}text'))


@pytest.mark.parametrize('name', ['lesions', 'mosaic', 'brain', 'registration', 'frequency'])
def test_same_data_give_the_same_well_formed_bytes(tmp_path, name):
    draw = drawings(*head())[name]
    draw(tmp_path / 'a.svg')
    draw(tmp_path / 'b.svg')
    content = (tmp_path / 'a.svg').read_bytes()
    assert content == (tmp_path / 'b.svg').read_bytes()
    root = ET.fromstring(content)
    assert root.tag == f'{SVG}svg'
    links = [value for e in root.iter() for key, value in e.attrib.items() if key == 'href']
    assert links
    assert all(link.startswith('data:image/') for link in links)
    assert 'The left of the image is the left of the head' in words(tmp_path / 'a.svg')
    assert sorted(f.name for f in tmp_path.iterdir()) == ['a.svg', 'b.svg']


@pytest.mark.parametrize('name', ['lesions', 'mosaic', 'brain', 'registration', 'frequency'])
def test_orientation_on_disk_does_not_matter(tmp_path, name):
    drawings(*head())[name](tmp_path / 'ras.svg')
    drawings(*head(stored='LPS'))[name](tmp_path / 'lps.svg')
    assert (tmp_path / 'ras.svg').read_bytes() == (tmp_path / 'lps.svg').read_bytes()


def test_right_is_drawn_right_and_anterior_up(tmp_path):
    image, lesions, brain = head()
    path = tmp_path / 'a.svg'
    figures.draw_lesions(image, lesions, path, title='T', brain=brain)
    first = panels(path)[0]  # axial, largest lesion: x = 25, y = 10, z = 10 mm
    picture = pixels(first)
    rows, columns = np.nonzero(picture > 225)
    assert columns.mean() > picture.shape[1] * 0.55
    assert rows.mean() < picture.shape[0] * 0.5
    texts = ET.parse(path).getroot().iter(f'{SVG}text')
    sides = [(e.text, float(e.get('x'))) for e in texts if e.get('class') == 'side']
    assert [letter for letter, _ in sides[:2]] == ['L', 'R']
    assert sides[0][1] < sides[1][1]


def test_panels_have_true_proportions_with_thick_slices(tmp_path):
    spacing = (0.75, 0.75, 6.0)
    image, lesions, brain = head((160, 190, 22), spacing)
    path = tmp_path / 'a.svg'
    figures.draw_brain_mask(image, brain, path, title='T')
    steps = {'axial': (0, 1), 'coronal': (0, 2), 'sagittal': (1, 2)}
    found = panels(path)
    assert len(found) == 18
    for panel, name in zip(found, [n for n in steps for _ in range(6)], strict=True):
        columns, rows = map(float, panel.get('viewBox').split()[2:])
        across, up = steps[name]
        proportion = columns * spacing[across] / (rows * spacing[up])
        drawn = float(panel.get('width')) / float(panel.get('height'))
        assert drawn == pytest.approx(proportion, rel=0.01)


def test_captions_give_world_coordinates(tmp_path):
    image, lesions, brain = head()
    path = tmp_path / 'a.svg'
    figures.draw_lesions(image, lesions, path, title='T', brain=brain)
    text = words(path)
    heights = [int(z.replace('−', '-')) for z in re.findall(r'axial, z = (−?\d+) mm', text)]
    assert np.abs(np.array(heights) - [10, 0, -10]).max() <= 2.6  # half a slice
    assert 'Lesion 1: 4.' in text
    assert 'All 3 lesions' in text


def test_only_the_largest_lesions_get_views(tmp_path):
    image, lesions, brain = head()
    many = lesions.data.copy()
    many[40:60:4, 50:54:2, 12] = np.arange(4, 14).reshape(5, 2)
    path = tmp_path / 'a.svg'
    figures.draw_lesions(image, lesions.with_data(many), path, title='T', brain=brain, largest=5)
    assert len(panels(path)) == 20  # three planes and a close-up each
    assert 'The 5 largest of 13 lesions' in words(path)


def test_no_lesion_is_stated_and_slices_are_shown(tmp_path):
    image, lesions, brain = head()
    empty = lesions.with_data(np.zeros_like(lesions.data))
    for draw in (figures.draw_lesions, figures.draw_mosaic):
        path = tmp_path / f'{draw.__name__}.svg'
        draw(image, empty, path, title='T', brain=brain)
        assert 'No lesion was found' in words(path)
        assert len(panels(path)) >= 12
        assert 'class="outline"' not in path.read_text()


def test_an_empty_brain_mask_is_stated(tmp_path):
    image, _, brain = head()
    path = tmp_path / 'a.svg'
    figures.draw_brain_mask(image, brain.with_data(brain.data * 0), path, title='T')
    assert 'The brain mask is empty' in words(path)
    assert panels(path)


def test_a_lesion_outside_the_brain_mask_is_drawn(tmp_path):
    image, lesions, brain = head()
    far = np.zeros_like(lesions.data)
    far[2:6, 50:54, 12] = 1
    path = tmp_path / 'a.svg'
    figures.draw_lesions(image, lesions.with_data(far), path, title='T', brain=brain)
    assert 'The only lesion' in words(path)
    assert all(p.find(f'{SVG}path') is not None for p in panels(path))


def test_what_is_far_from_the_brain_is_black(tmp_path):
    image, _, brain = head(spacing=(2.0, 2.0, 5.0))
    box = np.zeros_like(brain.data)
    box[:8, :, 12] = 1
    bright = image.with_data(np.where(brain.data > 0, image.data, 150).astype(np.float32))
    figures.draw_lesions(
        bright, brain.with_data(box), tmp_path / 'a.svg', title='T', brain=brain
    )  # the lesion keeps the far side within the crop
    picture = pixels(panels(tmp_path / 'a.svg')[0])
    assert picture[:, 0].max() < 20
    assert picture.max() > 120


def test_half_a_brain_mask_is_drawn_on_the_whole_head(tmp_path):
    image, _, brain = head()
    half = brain.data.copy()
    half[: brain.shape[0] // 2] = 0
    drawn = []
    for name, mask in (('good', brain), ('half', brain.with_data(half))):
        figures.draw_brain_mask(image, mask, tmp_path / f'{name}.svg', title='T')
        drawn.append([pixels(p) for p in panels(tmp_path / f'{name}.svg')])
    for good, found in zip(*drawn, strict=True):
        assert found.shape == pytest.approx(good.shape, abs=4)
    axial = drawn[1][2]
    left, right = np.array_split(axial, 2, axis=1)
    assert (left > 60).mean() == pytest.approx((right > 60).mean(), rel=0.25)


def test_the_face_is_black_beside_the_whole_head(tmp_path):
    image, _, brain = head((96, 112, 48), (2.0, 2.0, 5.0))
    figures.draw_brain_mask(image, brain, tmp_path / 'a.svg', title='T')
    sagittal = pixels(panels(tmp_path / 'a.svg')[14])
    rows, columns = sagittal.shape
    assert sagittal[-rows // 4 :, -columns // 8 :].max() < 20
    assert (sagittal[: rows // 2] > 60).mean() > 0.5


def test_volumes_on_other_grids_are_refused(tmp_path):
    image, lesions, brain = head()
    moved = Volume(lesions.data, lesions.affine + 0.5 * np.eye(4)[:, [0]] * np.eye(4)[3])
    with pytest.raises(ValueError, match='one grid'):
        figures.draw_lesions(image, moved, tmp_path / 'a.svg', title='T')
    with pytest.raises(ValueError, match='one grid'):
        figures.draw_lesions(image, lesions, tmp_path / 'a.svg', title='T', brain=moved)
    assert not list(tmp_path.iterdir())


def test_registration_alternates_two_pictures_and_rests_for_those_who_ask(tmp_path):
    image, _, brain = head()
    other = image.with_data(200 - image.data)
    path = tmp_path / 'a.svg'
    figures.draw_registration(
        image, other, brain, path, title='T', fixed_name='FLAIR', moving_name='T1w'
    )
    for panel in panels(path):
        moving = panel.find(f'{SVG}g[@class="moving"]')
        assert moving.find(f'{SVG}image').get('href') != panel.find(f'{SVG}image').get('href')
    source = path.read_text()
    assert '@keyframes flicker' in source
    assert 'prefers-reduced-motion' in source
    assert {'FLAIR', 'T1w'} <= set(words(path).split())


def test_frequency_states_its_top(tmp_path):
    image, lesions, _ = head()
    path = tmp_path / 'a.svg'
    figures.draw_frequency(lesions.with_data((lesions.data > 0) * 0.375), image, path, title='T')
    assert '37.5 %' in words(path)
    figures.draw_frequency(lesions.with_data(lesions.data * 0.0), image, path, title='T')
    assert 'No lesion in any participant' in words(path)


def test_distortion_states_its_scale(tmp_path):
    image, lesions, brain = head()
    path = tmp_path / 'a.svg'
    length = lesions.with_data((brain.data > 0) * 0.6)
    figures.draw_distortion(length, image, brain, path, title='T')
    assert '2 mm' in words(path)
    figures.draw_distortion(length.with_data(length.data * 10), image, brain, path, title='T')
    assert '6 mm' in words(path)
    figures.draw_distortion(length.with_data(length.data * 0), image, brain, path, title='T')
    assert 'No displacement was measured' in words(path)


def test_titles_and_names_are_escaped(tmp_path):
    image, lesions, brain = head()
    evil = '"/><script>alert(1)</script>&'
    path = tmp_path / 'a.svg'
    figures.draw_registration(
        image, image, brain, path, title=evil, fixed_name=evil, moving_name=evil
    )
    assert evil in words(path)
    assert not list(ET.parse(path).getroot().iter(f'{SVG}script'))


def test_window_spans_the_brain():
    rng = np.random.default_rng(1)
    data = rng.normal(100, 10, (20, 20, 20)).astype(np.float32)
    mask = np.zeros(data.shape, bool)
    mask[5:15, 5:15, 5:15] = True
    data[~mask] = 5000
    low, high = figures.window(Volume(data, np.eye(4)), mask)
    assert 60 < low < 80
    assert 120 < high < 140
    for odd in (np.full((4, 4, 4), 7.0), np.full((4, 4, 4), np.nan), np.zeros((4, 4, 4))):
        low, high = figures.window(Volume(odd, np.eye(4)))
        assert low < high


@pytest.mark.parametrize('seed', range(6))
def test_outline_encloses_exactly_its_pixels(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((13, 17)) < 0.1 + 0.15 * seed
    assert np.array_equal(fill(outline(mask), mask.shape), mask)


def fill(path, shape):
    """Which pixel centres lie inside by the even-odd rule: count vertical edges to their left."""
    inside = np.zeros(shape, int)
    for x, y, moves in re.findall(r'M(\d+) (\d+)((?:[hv]-?\d+)+)z', path):
        x, y = int(x), int(y)
        start = x, y
        for kind, length in re.findall(r'([hv])(-?\d+)', moves):
            if kind == 'h':
                x += int(length)
                continue
            top, bottom = sorted((y, y + int(length)))
            inside[top:bottom, x:] += 1
            y += int(length)
        if y != start[1]:  # closed by the z
            top, bottom = sorted((y, start[1]))
            inside[top:bottom, x:] += 1
    return inside % 2 == 1


@pytest.mark.parametrize(
    ('shape', 'spacing'), [((320, 320, 48), (0.5, 0.5, 3.0)), ((256, 256, 256), (0.7, 0.7, 0.7))]
)
def test_large_volumes_give_small_files_quickly(tmp_path, shape, spacing):
    image, lesions, brain = head(shape, spacing)
    for name, draw in drawings(image, lesions, brain).items():
        start = time.perf_counter()
        draw(tmp_path / 'a.svg')
        assert time.perf_counter() - start < 6, name  # about one second on an idle core
        limit = 1.5e6 if name == 'registration' else 1e6
        assert (tmp_path / 'a.svg').stat().st_size < limit, name


def test_real_thick_slices(tmp_path, shared_data):
    scans = shared_data / 'ms-wholehead/sub-lj12/ses-1/anat'
    masks = shared_data / 'ms-wholehead/derivatives/manual/sub-lj12/ses-1/anat'
    image = volume.read(scans / 'sub-lj12_ses-1_FLAIR.nii.gz', contrast='FLAIR')
    brain = volume.read(masks / 'sub-lj12_ses-1_desc-brain_mask.nii.gz')
    bright = image.data > np.percentile(image.data[brain.data > 0], 99.5)
    instances, count = ndimage.label(bright & (brain.data > 0), np.ones((3, 3, 3)))
    assert count > 50
    for name, draw in drawings(image, image.with_data(instances), brain).items():
        path = tmp_path / f'{name}.svg'
        draw(path)
        ET.parse(path)
        assert path.stat().st_size < 1e6
