"""Figures as text: one function per kind of quantity, None as a dash."""

from collections.abc import Sequence

from markupsafe import Markup, escape

__all__ = [
    "breakable",
    "count",
    "decibel",
    "fixed",
    "latency",
    "percent",
    "points",
    "rate",
    "real",
    "seconds",
    "shape",
    "share",
    "size",
]

NOTHING = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"
MINUS = "\N{MINUS SIGN}"
NARROW = "\N{NARROW NO-BREAK SPACE}"


def breakable(name: str) -> Markup:
    """A name, escaped, that may break after an underscore or a dot, where a reader would break it."""
    return Markup(str(escape(name)).replace("_", "_<wbr>").replace(".", ".<wbr>"))


def count(value: float | None) -> str:
    """A whole number with commas: 1,234,567."""
    return NOTHING if value is None else f"{value:,.0f}"


def fixed(value: float | None, digits: int = 1) -> str:
    """A number with so many decimals, and with commas."""
    return NOTHING if value is None else f"{value:,.{digits}f}".replace("-", MINUS)


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction in per cent: 0.8143 is 81.4 %."""
    return NOTHING if fraction is None else f"{100 * fraction:.{digits}f}{NARROW}%"


def share(fraction: float | None) -> str:
    """A fraction in per cent that is never rounded down to nothing: 0 %, <0.01 %, 0.03 %, 12.3 %."""
    if fraction is not None and 0 < fraction < 0.0001:
        return f"<0.01{NARROW}%"
    return percent(fraction, 0 if fraction in (0, 1) else 2 if fraction is not None and fraction < 0.01 else 1)


def real(value: float | None) -> str:
    """A real number with three digits: 14.6, −0.0123, 1.2e−06."""
    return NOTHING if value is None else f"{value:.3g}".replace("-", MINUS)


def points(before: float | None, after: float | None) -> str:
    """The change from one fraction to another in percentage points, with its sign; zero has none."""
    if before is None or after is None:
        return NOTHING
    change = round(100 * (after - before), 2)
    sign = "+" if change > 0 else MINUS if change < 0 else ""
    return f"{sign}{abs(change):.2f}{NARROW}points"


def rate(value: float | None) -> str:
    """Images per second: whole from 100 on, else with one decimal."""
    return fixed(value, 0 if value is not None and value >= 100 else 1)


def latency(microseconds: float | None) -> str:
    """A latency in microseconds, below one in ns, from 10,000 on in ms."""
    if microseconds is not None and microseconds < 1:
        return f"{fixed(1000 * microseconds)}{NARROW}ns"
    if microseconds is None or microseconds < 10_000:
        return f"{fixed(microseconds)}{NARROW}\N{MICRO SIGN}s"
    return f"{fixed(microseconds / 1000)}{NARROW}ms"


def decibel(value: float | None) -> str:
    """A ratio in dB with one decimal."""
    return fixed(value, 1)


def seconds(value: float) -> str:
    """A wall time: 0.04 s, 8.2 s, 72 s, 12 min 5 s."""
    if value < 1:
        return f"{value:.2f}{NARROW}s"
    if value < 10:
        return f"{value:.1f}{NARROW}s"
    if round(value) < 120:
        return f"{value:.0f}{NARROW}s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes}{NARROW}min {rest}{NARROW}s"


def size(value: float | None, unit: str = "B") -> str:
    """Bytes (or bits, by `unit`) with a decimal prefix and three digits: 987 B, 30.6 kB, 2.35 MB."""
    if value is None:
        return NOTHING
    if value < 1000:
        return f"{value:.0f}{NARROW}{unit}"
    prefixes = list("kMG")
    value /= 1000
    while value >= 999.5 and len(prefixes) > 1:
        value /= 1000
        prefixes.pop(0)
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{NARROW}{prefixes[0]}{unit}"


def shape(value: Sequence[int]) -> str:
    """(8, 64, 64) is 8×64×64."""
    return TIMES.join(str(length) for length in value)
