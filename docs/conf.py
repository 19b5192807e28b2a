"""How Sphinx builds the documentation; nothing in it needs the network."""

import easyclf

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
myst_enable_extensions = ["deflist"]
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
html_sidebars = {"tour": [], "changelog": [], "contributing": [], "errors": [], "architecture": []}
html_show_sourcelink = False
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
