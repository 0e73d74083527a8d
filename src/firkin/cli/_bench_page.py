"""The page of `firkin bench`: one file, plots as inline SVG, nothing fetched and nothing that runs."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from firkin.core.benchmark import Figure, Report

__all__ = ["page"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; width: 100%; } td, th { padding: .3rem .6rem; text-align: left; }
tr { border-bottom: 1px solid #ddd; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; margin: .5rem 0 1.5rem; } .bar { fill: #3b6ea5; } .peer { fill: #b5a642; }
.dot { fill: #3b6ea5; fill-opacity: .55; } text { font: 12px system-ui, sans-serif; fill: #222; }
"""
_WIDTH, _ROW, _LEFT = 800, 26, 120


def page(report: Report) -> str:
    """HTML of all figures: a table, the medians of the starts side by side, every sample of each."""
    starts = [figure for figure in report.figures if figure.unit == "ms"]
    machine = ", ".join(f"{escape(key)} {escape(value)}" for key, value in report.machine.items())
    left = escape(", ".join(report.leftovers)) or "nothing"
    rows = "".join(map(_row, report.figures))
    dots = "".join(f"<h3>{escape(figure.name)}</h3>{_dots(figure)}" for figure in starts)
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>firkin bench</title><style>{_STYLE}</style>"
        f"<h1>firkin bench: {escape(report.image)}</h1><p>{machine}. Left over: {left}.</p>"
        f"<table><tr><th>figure<th>median<th>p95<th>n<th>what</tr>{rows}</table>"
        f"<h2>Starts, median in milliseconds</h2>{_bars(starts)}<h2>Every sample</h2>{dots}</html>\n"
    )


def _row(figure: Figure) -> str:
    numbers = "".join(
        f"<td class='number'>{text}" for text in (f"{figure.median:.1f} {escape(figure.unit)}", f"{figure.p95:.1f}")
    )
    return (
        f"<tr><td>{escape(figure.name)}{numbers}<td class='number'>{len(figure.samples)}<td>{escape(figure.what)}</tr>"
    )


def _bars(figures: list[Figure]) -> str:
    longest = max((figure.median for figure in figures), default=1.0) or 1.0
    parts = []
    for index, figure in enumerate(figures):
        y, width = index * _ROW, figure.median / longest * (_WIDTH - _LEFT - 90)
        kind = "peer" if figure.name == "runsc" else "bar"
        parts.append(
            f"<text x='0' y='{y + 17}'>{escape(figure.name)}</text>"
            f"<rect class='{kind}' x='{_LEFT}' y='{y + 4}' width='{width:.1f}' height='{_ROW - 8}'/>"
            f"<text x='{_LEFT + width + 6:.1f}' y='{y + 17}'>{figure.median:.1f}</text>"
        )
    return f"<svg viewBox='0 0 {_WIDTH} {max(1, len(figures)) * _ROW}' role='img'>{''.join(parts)}</svg>"


def _dots(figure: Figure) -> str:
    """Samples in the order in which they were taken, from zero up."""
    height, top = 90, max(figure.samples) or 1.0
    step = (_WIDTH - _LEFT) / max(1, len(figure.samples))
    points = [
        (_LEFT + step * (index + 0.5), height - 4 - sample / top * (height - 12))
        for index, sample in enumerate(figure.samples)
    ]
    dots = "".join(f"<circle class='dot' cx='{x:.1f}' cy='{y:.1f}' r='4'/>" for x, y in points)
    scale = f"<text x='0' y='12'>{top:.1f} {escape(figure.unit)}</text><text x='0' y='{height}'>0</text>"
    return f"<svg viewBox='0 0 {_WIDTH} {height + 4}' role='img'>{scale}{dots}</svg>"
