"""An error is one line, whatever the image or the guest calls its things."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.errors import AgentError, FirkinError, ImageError


@given(st.text(), st.none() | st.text())
def test_its_text_has_nothing_that_a_terminal_obeys(message: str, hint: str | None) -> None:
    error = FirkinError(message, hint=hint)
    assert str(error).isprintable()
    assert (error.message, error.hint) == (message, hint)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ImageError("can't copy out to /x/a\nb\x1b[2J: no", hint="c"), r"can't copy out to /x/a\nb\x1b[2J: no (c)"),
        (AgentError("bytes that are no text: \udcff"), r"bytes that are no text: \udcff"),
        (FirkinError("já, 日本", outcome_unknown=True), "já, 日本 (its outcome is unknown)"),
    ],
)
def test_what_is_no_text_is_escaped(error: FirkinError, text: str) -> None:
    assert str(error) == text
