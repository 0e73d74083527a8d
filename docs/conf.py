"""How Sphinx makes the pages (`make docs`): from Markdown, docstrings, and the command line's own help."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import firkin
import firkin.types

# Names come at first use; autodoc lists those that are there.
for name in firkin.types.__all__:
    getattr(firkin.types, name)

project = "Firkin"
author = "the Firkin authors"
copyright = author
version = release = firkin.__version__

root_doc = "README"
extensions = ["myst_parser", "sphinx.ext.autodoc", "command_line", "whole_docstrings"]
exclude_patterns = ["_ext"]
nitpicky = False

myst_heading_anchors = 3
# Docstrings use `names` as Markdown does.
default_role = "code"

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"Firkin {version}"
html_copy_source = False
html_show_sphinx = False
# Nothing is fetched, neither when the pages are made nor when they are read.
html_theme_options = {"source_view_link": ""}
