"""How Sphinx builds the documentation; nothing in it needs the network."""

import sys
from pathlib import Path

import easyclf

sys.path.insert(0, str(Path(__file__).parent))
import make_gallery

project = "easyclf"
author = "The easyclf developers"
copyright = author  # noqa: A001
version = release = easyclf.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

# Single backquotes in docstrings are code.
default_role = "code"
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"
# scikit-learn makes these methods, and their docstrings link into its own guide.
_METADATA = ["get_metadata_routing"]
_METADATA += [f"set_{method}_request" for method in ("fit", "partial_fit", "predict", "score")]
autodoc_default_options = {"exclude-members": ", ".join(_METADATA)}
autosummary_generate = True
numpydoc_show_class_members = False
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
smartquotes = False

html_theme = "pydata_sphinx_theme"
html_title = "easyclf"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
    "navigation_with_keys": False,
}
_WIDE = ("index", "tour", "changelog", "contributing", "errors", "architecture", "gallery/index")
html_sidebars = {page: [] for page in _WIDE}
html_show_sourcelink = False
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True


def setup(app):
    """Write the pages of the gallery before they are read."""
    app.connect("builder-inited", make_gallery.write_pages)
