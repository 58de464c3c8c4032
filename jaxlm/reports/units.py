"""How figures are written for people, on the page and on the terminal."""

import math


def whole(number: float) -> str:
    """A count in full: 1,234,567."""
    return f"{round(number):,}"


def short(number: float) -> str:
    """Three significant digits and a suffix: 1.23M, 118k, 7.5, 0.0003."""
    if not math.isfinite(number):
        return str(number)
    for power, suffix in ((12, "T"), (9, "B"), (6, "M"), (3, "k")):
        # 999.5 rounds to 1000, which belongs to the next suffix
        if abs(number) >= 0.9995 * 10**power:
            return f"{_three(number / 10**power)}{suffix}"
    return _three(number)


def size(bytes_: float) -> str:
    """Bytes in SI units: 12.3 MB."""
    for power, suffix in ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")):
        if bytes_ >= 0.9995 * 10**power:
            # trailing zeros stay, so that columns of sizes line up
            return f"{bytes_ / 10**power:#.3g}".rstrip(".") + f" {suffix}"
    return f"{bytes_:.0f} B"


def duration(seconds: float) -> str:
    """Two units at most: 45s, 3m12s, 12h03m, 4d02h."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole_seconds = round(seconds)
    for unit, name, below, below_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"),
                                          (60, "m", 1, "s")):  # fmt: skip
        if whole_seconds >= unit:
            return f"{whole_seconds // unit}{name}{whole_seconds % unit // below:02}{below_name}"
    return f"{whole_seconds}s"


def percent(part: float, of: float) -> str:
    """A share with as many digits as it needs: 42.1%, 0.03%, - where there is nothing to divide."""
    if not of:
        return "-"
    share = 100 * part / of
    return f"{share:.1f}%" if share >= 0.1 or share == 0 else f"{share:.2g}%"


def amount(number: float, unit: str) -> str:
    """A quantity in the unit of a progress callback: 12.3 MB, 1,200 steps, 16.4M tokens."""
    if unit == "B":
        return size(number)
    return f"{whole(number) if number < 1e6 else short(number)} {unit}"


def rate(per_second: float, unit: str) -> str:
    """Speed in the unit of a progress callback, named only for bytes: 12.3 MB/s, 118k/s."""
    return f"{size(per_second) if unit == 'B' else short(per_second)}/s"


def _three(number: float) -> str:
    """Three significant digits, without an exponent from 1e-4 up."""
    text = f"{number:.3g}"
    return f"{number:.0f}" if "e+" in text else text
