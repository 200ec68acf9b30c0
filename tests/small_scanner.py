"""A bundled scanner with a small field of view, for phantoms."""

from dataclasses import replace

from ssl2_bids.simulation.scanner.protocols import Scanner, read_scanner


def small_scanner(field: float, extent: tuple[float, float, float]) -> Scanner:
    """The bundled scanner of a field strength (T), with a field of view of ``extent`` (mm)."""
    scanner = read_scanner(None, field)
    geometries = {
        name: replace(geometry, extent=extent) for name, geometry in scanner.geometries.items()
    }
    return replace(scanner, geometries=geometries)
