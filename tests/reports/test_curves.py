import math
from xml.etree import ElementTree

from ssl2_bids.reports.figures.curves import POINTS, curves_svg, thin_out

SVG = '{http://www.w3.org/2000/svg}'


def test_each_curve_has_a_panel_with_its_range():
    curves = {
        'loss <first>': [(1, 2.0), (2, 1.0), (4, 0.5)],
        'score': [(4, 0.25)],
        'never': [(1, math.nan)],
        'flat': [(0, 3.0), (9, 3.0)],
    }
    root = ElementTree.fromstring(curves_svg(curves, title='Curves & more'))
    assert root.attrib['aria-label'] == 'Curves & more'
    panels = root.findall(f'{SVG}g')
    words = [[t.text for t in panel.findall(f'{SVG}text')] for panel in panels]
    assert [w[0] for w in words] == ['loss <first>', 'score', 'flat']
    assert words[0][1:] == ['0.5', '2', '1', '4']
    # one value, one number at the axis
    assert words[1][1:] == ['0.25', '4']
    assert words[2][1:] == ['3', '0', '9']
    points = panels[0].find(f'{SVG}polyline').attrib['points'].split()
    heights = [float(point.split(',')[1]) for point in points]
    assert heights == sorted(heights)  # downwards in SVG, as the loss falls
    assert panels[1].find(f'{SVG}circle') is not None


def test_long_curves_are_thinned_to_means():
    points = [(float(n), float(n % 2)) for n in range(4 * POINTS)]
    few = thin_out(points)
    assert len(few) == POINTS
    assert {y for _, y in few} == {0.5}
    assert thin_out(points[:10]) == points[:10]
    ElementTree.fromstring(curves_svg({}, title='none'))
