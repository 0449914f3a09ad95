"""How the documentation becomes a site (`make docs`). Pages are Markdown that reads as well where it lies."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

from perseid import __version__

project = "Perseid"
author = copyright = "The Perseid authors"
release = version = __version__
extensions = ["myst_parser", "perseid_pages"]
exclude_patterns = []
nitpicky = True

myst_enable_extensions = ["attrs_inline", "deflist"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "furo"
html_title = "Perseid"
html_static_path = ["_static"]
html_css_files = ["perseid.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
highlight_language = "none"  # blocks without a language are pictures and outputs
pygments_style = "default"
pygments_dark_style = "github-dark"
