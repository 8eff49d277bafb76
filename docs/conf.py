"""The site: `nox -s docs` builds it into build/site. Nothing is fetched, at build time or by the pages."""

import functools
import gettext
import pathlib
import re
import shutil
import sys
import textwrap

import pydata_sphinx_theme
import sphinx

import amos_ref

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
OPENING, CLOSING = "([\uff08\u300c\u201c", "-,.;:!?)]\uff0c\u3002\uff1b\uff1a\uff01\uff1f\u3001\uff09\u300d\u201d\u2019"
LECTURES = sorted(path.stem for path in (HERE / "lectures").glob("*.py"))

project = "amos_ref"
author = "The amos_ref authors"
copyright = author
version = release = amos_ref.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["explorer", "slides", "**sg_execution_times.rst", "gallery/*.ipynb"]
nb_execution_mode = "off"  # tools/lectures.py has run the notebooks
templates_path = ["_templates"]
html_theme = "pydata_sphinx_theme"
html_title = "amos_ref"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_show_sourcelink = False
html_math_renderer = "mathml"
html_theme_options = {
    "logo": {"text": "amos_ref"},
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "navbar_center": [],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"**": ["contents"]}
html_context = {"default_mode": "auto"}

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
autodoc_typehints = "none"  # numpydoc's sections have them in words
autosummary_generate = True

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"(?<!mpi_training)\.py$",  # that one is started by mpiexec
    "ignore_pattern": r"ports",
    "within_subsection_order": "FileNameSortKey",
    "default_thumb_file": str(HERE / "_static" / "favicon.svg"),  # of examples that draw nothing
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "abort_on_example_error": True,
}


def fenced(session):
    return f"```pycon\n{textwrap.dedent(session[0])}\n```"


def fence_sessions(app, docname, source):
    """Show what doctest runs as Python; outside a fence or an indent Markdown takes >>> for a quotation."""
    if pathlib.Path(app.env.doc2path(docname)).suffix != ".md":
        return
    parts = re.split(r"(^```.*?^```$)", source[0], flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [re.sub(r"^(?:    )?>>> .*(?:\n.+)*", fenced, part, flags=re.MULTILINE) for part in parts[::2]]
    source[0] = "".join(parts)


def name_wheel(app, docname, source):
    """Put the version into the name of the wheel that lies beside the lectures."""
    if docname == "lectures/index":
        source[0] = source[0].replace("VERSION", release)


def link_files(app, pagename, templatename, context, doctree):
    """Put links to its slides and its files below the title of a lecture, which knows nothing of the site around it."""
    name = pagename.removeprefix("lectures/")
    if name in LECTURES and pagename != name:
        files = f'<a href="{name}.ipynb" download>notebook</a>, <a href="{name}.py" download>Python source</a>'
        links = f'<a href="../slides/{name}.html">Slides of this lecture</a>. Download: {files}.'
        context["body"] = context["body"].replace("</h1>", f'</h1>\n<p class="lecture-files">{links}</p>', 1)


def write_notebooks(app, config):
    """Run the lectures, and leave their notebooks where Sphinx reads them."""
    from tools import lectures

    lectures.write_notebooks()


def publish_lectures(app, exception):
    """Make a deck of slides from the page of each lecture, and put what can be downloaded beside it."""
    from tools import lectures, slides

    if exception is None:
        lectures.publish(app.outdir)
        slides.write(app.outdir, LECTURES)


def escape_bars(app, what, name, obj, options, lines):
    """Leave the bars of |eps| in docstrings alone; reStructuredText takes them for substitutions."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def mathml(block):
    """Return the visitor of a formula: browsers draw MathML themselves, without a script from elsewhere."""
    from docutils.nodes import SkipNode
    from docutils.utils.math import latex2mathml

    def visit(translator, node):
        formula = latex2mathml.tex2mathml(node.astext(), as_block=block)
        formula = formula.replace("<mo>‖</mo>", '<mo stretchy="false">‖</mo>')
        translator.body.append(f'<div class="formula">{formula}</div>' if block else formula)
        raise SkipNode

    return visit, None


def join_punctuation(app, doctree, docname):
    """Keep a formula and the marks beside it on one line; browsers break a line there, even before a comma."""
    from docutils import nodes

    for formula in list(doctree.findall(nodes.math)):
        siblings, place = formula.parent.children, formula.parent.index(formula)
        before, after = (
            there[0] if there and isinstance(there[0], nodes.Text) else nodes.Text("")
            for there in (siblings[:place][-1:], siblings[place + 1 : place + 2])
        )
        start, rest = before.rstrip(OPENING), after.lstrip(CLOSING)
        marks = nodes.Text(before[len(start) :]), nodes.Text(after[: len(after) - len(rest)])
        if any(marks):
            joined = nodes.inline("", "", marks[0], formula.deepcopy(), marks[1], classes=["joined"])
            formula.parent.replace(formula, joined)
            for text, shorter in ((before, start), (after, rest)):
                if text != shorter:
                    text.parent.replace(text, nodes.Text(shorter))


@functools.cache
def chinese():
    """Return the words of the theme and of Sphinx in Chinese."""
    theme, sphinx_itself = (
        gettext.translation("sphinx", pathlib.Path(package.__file__).parent / "locale", [name])
        for package, name in ((pydata_sphinx_theme, "zh"), (sphinx, "zh_CN"))
    )
    theme.add_fallback(sphinx_itself)
    return theme


def set_language(app, pagename, templatename, context, doctree):
    """Tell browsers the language of a page that names one, `lang:` at its top; Chinese pages lead to each other."""
    context["language"] = (context.get("meta") or {}).get("lang", "en")
    if context["language"] == "en":
        return
    context["_"] = chinese().gettext  # for the theme's own words
    names = [name for name in app.env.toctree_includes[app.config.root_doc] if name.endswith("_zh")]
    context["pages_alike"] = [(name, app.env.titles[name].astext()) for name in names]
    for way in ("prev", "next"):
        if context.get(way) and not context[way]["link"].endswith("_zh.html"):
            context[way] = None


def copy_explorer(app, exception):
    """Put the explorer, a page of its own, beside the others as it is."""
    if exception is None and (HERE / "explorer").is_dir():
        shutil.copytree(HERE / "explorer", pathlib.Path(app.outdir) / "explorer", dirs_exist_ok=True)


def setup(app):
    from tools.chinese_search import EnglishAndChinese

    app.add_search_language(EnglishAndChinese)  # in the place of Sphinx's own, "en"
    app.add_html_math_renderer("mathml", inline_renderers=mathml(False), block_renderers=mathml(True))
    app.connect("source-read", fence_sessions)
    app.connect("source-read", name_wheel)
    app.connect("config-inited", write_notebooks)
    app.connect("autodoc-process-docstring", escape_bars, priority=900)  # behind numpydoc
    app.connect("doctree-resolved", join_punctuation)
    app.connect("html-page-context", set_language)
    app.connect("html-page-context", link_files)
    app.connect("build-finished", copy_explorer)
    app.connect("build-finished", publish_lectures)
