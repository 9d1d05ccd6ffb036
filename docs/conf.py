"""How `make docs` builds the pages: Sphinx, MyST for Markdown, notebooks executed as they stand."""

import importlib.metadata
import os

from sphinx.util.inspect import signature, stringify_signature

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

project = "tf_leaky"
author = project_copyright = "tf_leaky contributors"
release = version = importlib.metadata.version("tf_leaky")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["performance_tables.md"]  # included by performance.md
html_theme = "furo"
html_title = "tf_leaky"
html_static_path = ["_static"]
html_css_files = ["tables.css"]

nb_execution_mode = "cache"  # again where a notebook has changed
nb_execution_raise_on_error = True
nb_execution_timeout = 1800
nb_merge_streams = True
nb_output_stderr = "remove"  # what TensorFlow logs
myst_heading_anchors = 3

napoleon_custom_sections = [
    ("Call arguments", "params_style"),
    "Gradient",
    "Input shape",
    "Output shape",
]
autodoc_typehints = "none"  # the sections of a docstring say them
autodoc_inherit_docstrings = False
default_role = "code"  # docstrings mark code with one backtick, as Markdown does


def _tables(app, what, name, obj, options, lines):
    """Turns the Markdown tables of a docstring into reStructuredText's."""
    found = []
    for line in lines:
        if not line.lstrip().startswith("|"):
            found.append(line)
            continue
        indent = line[: len(line) - len(line.lstrip())]
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if set("".join(cells)) <= set("- |"):
            continue
        if not found or not found[-1].startswith(f"{indent}     - "):
            found += [f"{indent}.. list-table::", f"{indent}   :header-rows: 1", ""]
        found += [f"{indent}   * - {cells[0]}", *(f"{indent}     - {cell}" for cell in cells[1:])]
    lines[:] = found


def _arguments(app, what, name, obj, options, arguments, result):
    """A class's own arguments: Keras's `Layer.__new__` hides them behind `*args, **kwargs`."""
    if what == "class":
        own = signature(obj.__init__, bound_method=True)
        arguments = stringify_signature(own, show_annotation=False, show_return_annotation=False)
    return arguments, result


def setup(app):
    """Sphinx calls this."""
    app.connect("autodoc-process-signature", _arguments)
    app.connect("autodoc-process-docstring", _tables, priority=100)  # before napoleon
