"""Markdown and docstrings to HTML that needs no network, for `book`."""

import base64
import html
import mimetypes
import os
import posixpath
import re
import textwrap

from latex2mathml.converter import convert as mathml
from markdown_it import MarkdownIt
from mdit_py_plugins.anchors import anchors_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from run import FOLDER

ROOT = FOLDER.parent
TEXTS = {"Notes", "Examples"}
LISTS = {"Attributes", "Parameters", "Raises", "Returns", "Yields"}


def engine():
    """Markdown as GitHub has it: tables, ``$`` and ``math`` blocks, coloured code."""
    markdown = MarkdownIt("commonmark").enable("table")
    dollarmath_plugin(markdown, allow_space=False, allow_digits=False, renderer=_formula)
    markdown.renderer.rules["fence"] = _fence
    return markdown


def docstring(text):
    """A docstring in numpy's format; its sections become lists of definitions.

    pdoc's own converter takes ``(..., B, K) array`` apart and parts of formulas for Markdown.
    """
    text = re.sub(r"``.*?``", lambda code: " ".join(code[0].split()), text, flags=re.DOTALL)
    if re.sub(r"(`+)[^`]+\1", "", text).count("`"):
        raise ValueError(f"code without an end in this docstring:\n{text}")
    text = re.sub(r"^(?=Deviation:|Assumption:)", r"\n", text, flags=re.MULTILINE)
    text = re.sub(r"\b(Deviation|Assumption|Baseline|Test):(?=\s)", r"*\1:*", text)
    text = re.sub(r"^>>>(.+\n?)*", r"```pycon\n\g<0>\n```\n", text, flags=re.MULTILINE)
    first, *sections = re.split(r"^(\w+)\n-{3,}$", text, flags=re.MULTILINE)
    markdown = engine()
    made = markdown.render(first)
    for title, section in zip(sections[::2], sections[1::2]):
        if title not in TEXTS | LISTS:
            raise ValueError(f"{title} is no section of numpy's format in this docstring:\n{text}")
        made += f"<h6>{title}</h6>\n"
        made += markdown.render(section) if title in TEXTS else _definitions(section, markdown)
    return made


def _definitions(section, markdown):
    """Entries ``name : type``, each with an indented description that may be missing."""
    made = ""
    for entry in re.split(r"\n(?=\S)", section.strip()):
        term, _, description = entry.partition("\n")
        name, colon, kind = term.partition(" : ")
        made += f"<dt><code>{html.escape(name)}</code>"
        made += f" : {markdown.renderInline(kind)}</dt>\n" if colon else "</dt>\n"
        if description:
            made += f"<dd>{markdown.render(textwrap.dedent(description))}</dd>\n"
    return f"<dl>\n{made}</dl>\n"


class Chapters:
    """Files of the repository as chapters. Links among them stay inside the book.

    Parameters
    ----------
    urls : dict
        Address in the book of each file that is a chapter.
    names : dict
        Address of ``module.name`` in the API reference.
    """

    def __init__(self, urls, names):
        folders = {
            os.path.dirname(file): url for file, url in urls.items() if file.endswith("/README.md")
        }
        self.urls, self.names = urls | folders, names
        self.markdown = engine()
        anchors_plugin(self.markdown, max_level=3)
        self.markdown.renderer.rules |= {
            "html_block": self._html_block,
            "code_inline": self._code_inline,
        }

    def render(self, file):
        """HTML of a chapter and its sections, each a name and an anchor."""
        text = (ROOT / file).read_text(encoding="utf-8")
        if file.endswith(".py"):
            text = f"# {os.path.basename(file)}\n\n```python\n{text}```\n"
        tokens, env = self.markdown.parse(text), {}
        for token in tokens:
            self._resolve(token.children or [], file)
        sections = [
            (inline.content.replace("`", ""), heading.attrs["id"])
            for heading, inline in zip(tokens, tokens[1:])
            if heading.type == "heading_open" and heading.tag == "h2"
        ]
        return self.markdown.renderer.render(tokens, self.markdown.options, env), sections

    def _resolve(self, tokens, file):
        """Lead links and pictures of a paragraph of a file to what they are in the book."""
        tag, folder = "a", os.path.dirname(file)
        for token in tokens:
            if token.type == "link_open":
                tag = self._resolve_link(token, file)
            elif token.type == "link_close":
                token.tag = tag
            elif token.type == "image":
                picture = (ROOT / folder / token.attrs["src"]).read_bytes()
                kind = mimetypes.guess_type(token.attrs["src"])[0]
                token.attrs["src"] = f"data:{kind};base64,{base64.b64encode(picture).decode()}"

    def _resolve_link(self, token, file):
        """Set the address of a link; one to a file that is not in the book becomes plain text."""
        target, _, anchor = token.attrs["href"].partition("#")
        linked = posixpath.normpath(posixpath.join(os.path.dirname(file), target))
        if re.match(r"\w+:", target) or not target:
            return "a"
        if linked in self.urls:
            token.attrs["href"] = self.urls[linked] + (f"#{anchor}" if anchor else "")
            return "a"
        if not (ROOT / linked).exists():
            raise LookupError(f"{file}: a link leads to {target}, which does not exist")
        token.tag, token.attrs = "span", {"title": linked}
        return "span"

    def _html_block(self, tokens, i, options, env):
        """Comments are dropped; that of a quoted source becomes a link to its page."""
        source = re.match(r"<!-- source: ckd_ref\.([\w.]+) -->", tokens[i].content)
        if not source:
            return re.sub(r"<!--.*?-->\n?", "", tokens[i].content, flags=re.DOTALL)
        return f'<p class="source">{self._link(source[1])}</p>'

    def _code_inline(self, tokens, i, options, env):
        opened = sum(token.nesting for token in tokens[:i] if token.tag == "a")
        return self._link(tokens[i].content, inside_a_link=opened > 0)

    def _link(self, text, inside_a_link=False):
        code = f"<code>{html.escape(text)}</code>"
        url = self.names.get(text.removeprefix("ckd_ref."))
        return f'<a href="{url}">{code}</a>' if url and not inside_a_link else code


def _fence(tokens, i, options, env):
    text, kind = tokens[i].content, tokens[i].info.strip()
    if kind == "math":
        return _formula(text, {"display_mode": True})
    if kind == "mermaid":
        return _flowchart(text)
    lexer = get_lexer_by_name(kind or "text")
    code = highlight(text, lexer, HtmlFormatter(cssclass="pdoc-code"))
    printed = kind == "text" and i and tokens[i - 1].info.strip() == "python"
    return f'<div class="output">{code}</div>' if printed else code


def _formula(latex, options):
    """MathML; the number of a displayed equation stands to its right."""
    tag = re.search(r"\\tag\{(.*?)\}", latex)
    latex = latex.replace(tag[0], "") if tag else latex
    latex = re.sub(r"(\\[bB]igg?[lmr]?)\\\|", "\\1\N{DOUBLE VERTICAL LINE}", latex)
    made = mathml(latex.strip(), display="block" if options["display_mode"] else "inline")
    braces = [len(re.findall(rf"(?<!\\)\{brace}", latex)) for brace in "{}"]
    if re.search(r">[^<]*\\", made) or braces[0] != braces[1]:
        raise ValueError(f"a formula with an unknown command or a missing brace: {latex}")
    made = re.sub(r"(<mi>[a-z]{2,}</mi>)(?=<m(?!o))", r'\1<mspace width="0.17em"/>', made)  # log x
    # What stretches is drawn too low where it has an index, or beside what is not tall.
    made = re.sub(r"(<(?:msub|msup|msubsup)><mo)[^>]*>", r'\1 stretchy="false">', made)
    made = made.replace("<mo>&#x02016;", '<mo stretchy="false">&#x02016;')
    number = f"<span>({tag[1]})</span>" if tag else ""
    return f'<div class="formula">{made}{number}</div>\n' if options["display_mode"] else made


def _flowchart(text):
    """A Mermaid flowchart as a list of its nodes, and of the nodes to which each leads."""
    labels = dict(re.findall(r'^\s*(\w+)\["(.*)"\]$', text, re.MULTILINE))
    edges = re.findall(r"^\s*(\w+) --> (\w+)$", text, re.MULTILINE)
    if not labels:
        raise ValueError(f"expected a Mermaid flowchart of nodes with labels, got\n{text}")
    items = ""
    for name, label in labels.items():
        targets = ", ".join(end for begin, end in edges if begin == name)
        items += f"<li>{label.replace('<br/>', ': ', 1).replace('<br/>', ' ')}"
        items += f" &rarr; {targets}</li>\n" if targets else "</li>\n"
    return f"<ul>\n{items}</ul>\n"
