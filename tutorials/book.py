"""README, tutorials and API reference as one book: ``python tutorials/run.py --book FOLDER``.

The folder opens from disk and needs no network: mathematics is MathML, pictures stand in the pages,
and no script runs. Chapters are made by `markup`, the pages of modules by pdoc, both in pdoc's
frame (``templates``). A warning of any of them, or a link to nothing, is an error.
"""

import collections
import importlib
import os
import pkgutil
import re
import warnings

import pdoc.doc
import pdoc.render
from markup import Chapters, docstring
from pygments.formatters import HtmlFormatter
from run import FOLDER, TUTORIALS

import ckd_ref

ROOT = FOLDER.parent
CONTENTS = [
    ("ckd_ref", ["README.md"]),
    ("Tutorials", [
        "tutorials/README.md",
        *sorted(f"tutorials/{path.name}" for path in FOLDER.glob(TUTORIALS)),
        "tutorials/ckd_in_one_file.py",
    ]),
    ("Experiments", [
        "tutorials/protocol.md", "tutorials/results/README.md", "benchmarks/README.md",
    ]),
    ("More", ["data_tools/README.md", "tests/guarantees.md"]),
]
Page = collections.namedtuple("Page", "file title url")


def write(folder):
    """Write the book; its first page is ``index.html``."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pages = book()
    for url, text in pages.items():
        (folder / url).parent.mkdir(parents=True, exist_ok=True)
        (folder / url).write_text(text, encoding="utf-8")
    print(folder / "index.html")


def book():
    """All pages, by their addresses in the book."""
    contents = [(group, [_page(file) for file in files]) for group, files in CONTENTS]
    names_page = Page(None, "Public names", "names.html")
    contents.append(("API reference", [names_page]))
    modules = _modules()
    _configure_pdoc(contents, modules)
    made = {_url(name): pdoc.render.html_module(module, modules)
            for name, module in modules.items()}
    names = {
        f"{name.removeprefix('ckd_ref.')}.{anchor}": f"{_url(name)}#{anchor}"
        for name in modules
        for anchor in re.findall(r'<(?:section|div) id="([\w.]+)"', made[_url(name)])
    }
    chapters = [page for _, group in contents for page in group]
    markdown = Chapters({page.file: page.url for page in chapters[:-1]}, names)
    template = pdoc.render.env.get_template("chapter.html.jinja2")
    for i, page in enumerate(chapters):
        body, sections = (
            markdown.render(page.file) if page is not names_page else _public_names(page, names)
        )
        made[page.url] = template.render(
            page=page, body=body, sections=sections,
            previous=chapters[i - 1] if i else None,
            next=chapters[i + 1] if i + 1 < len(chapters) else None,
        )
    return made


def _page(file):
    folder, name = os.path.split(file)
    stem = os.path.splitext(name)[0]
    if stem == "README":
        stem = os.path.basename(folder) or "index"
    if name.endswith(".py"):
        return Page(file, "The paper in one file", f"{stem}.html")
    if stem == "index":
        return Page(file, "Overview", "index.html")
    title = re.search(r"^# (.*)", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)[1]
    return Page(file, title, f"{stem}.html")


def _url(module):
    return module.replace(".", "/") + ".html"


def _modules():
    """All modules without an underscore, the equations first, as pdoc sees them."""
    found = [
        module.name for module in pkgutil.walk_packages(ckd_ref.__path__, "ckd_ref.")
        if not re.search(r"\._", module.name)
    ]
    order = [f"ckd_ref.{name}" for name in ckd_ref.PUBLIC]
    found.sort(key=lambda name: (order.index(name) if name in order else len(order), name))
    for name in found:
        importlib.import_module(name)                          # pdoc would do it in a sandbox
    return {name: pdoc.doc.Module.from_name(name) for name in found}


def _public_names(page, names):
    """The list of all public names, each with the address of its documentation."""
    def address(module, name):
        for key, url in names.items():                         # a package's are in its modules
            if re.fullmatch(rf"{module}(\.\w+)?\.{name}", key):
                return url
        raise LookupError(f"the API reference has no {name} of {module}: has it a docstring?")

    public = [
        (module, [(name, address(module, name), line) for name, line in members.items()])
        for module, members in ckd_ref.PUBLIC.items()
    ]
    template = pdoc.render.env.get_template("names.html.jinja2")
    return template.render(page=page, public=public), [(module, module) for module, _ in public]


def _configure_pdoc(contents, modules):
    pdoc.render.configure(
        include_undocumented=False, search=False,
        template_directory=FOLDER / "templates",
    )
    light, dark = (
        HtmlFormatter(style=style).get_style_defs(".pdoc-code")
        for style in ("default", "github-dark")
    )
    pdoc.render.env.globals.update(
        contents=contents, modules=list(modules),
        syntax=f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
        ".pdoc .pdoc-code { background: var(--code); }",
    )
    pdoc.render.env.filters |= {"to_html": docstring, "fields": _fields}


def _fields(documented):
    """Names and help of a dataclass's fields that have some, as in `ckd_ref.Config`."""
    fields = getattr(documented.obj, "__dataclass_fields__", {}).values()
    return [(field.name, field.metadata["help"]) for field in fields if "help" in field.metadata]
