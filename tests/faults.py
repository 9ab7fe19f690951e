"""Faults for `mutate`: one small change of the source text of a file of the package.

An operator, a comparison, a sign, a constant, an index, an argument, a condition, an option, a
deleted statement. Messages of errors, docstrings, annotations and imports are left alone.
"""

import ast
import copy
import functools
import itertools
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]

EQUATIONS = {
    "neuron": {1, 2, 3}, "events": {4}, "similarity": {5}, "losses": {5, 6, 7, 9, 11},
    "schedules": {8, 10},
}
"""What a file computes; the docstring of a public function may narrow it down."""

OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Div, ast.Mod: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn,
    ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
}
ORDERED = ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.MatMult
WITHOUT_NEIGHBOUR = ast.Constant, ast.JoinedStr, ast.Starred
COMPLEMENTS = ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn


def both_ways(pairs):
    pairs = [pair.split("/") for pair in pairs.split()]
    return {a: b for pair in pairs for a, b in (pair, pair[::-1])}


STRINGS = both_ways("static/event train/test baseline/paper tonic/braincog left/right kd/dist")
STRINGS |= both_ways("full/tiny")
STRINGS |= {"conserving": "tonic", "snn": "ckd", "ckd": "transfer", "transfer": "ckd"}
STRINGS |= {"triangle": "atan"}
CALLS = both_ways("min/max sum/mean maximum/minimum argmax/argmin any/all zeros/ones floor/ceil")
CALLS |= {"bisect_left": "bisect_right"}
SYMMETRIC = {"min", "max", "maximum", "minimum", "isinstance", "getattr", "hasattr"}
KEYS = {"name", "stream", "field", "rule", "surrogate"}
"""Variables that hold strings: 1 is not added to them."""


def changed(node, **fields):
    node = copy.copy(node)
    vars(node).update(fields)
    return f"({ast.unparse(node)})" if isinstance(node, ast.expr) else ast.unparse(node)


def swaps(items):
    """The list with two neighbours exchanged, in every way that changes it."""
    for i in range(len(items) - 1):
        if ast.dump(items[i]) != ast.dump(items[i + 1]):
            yield [*items[:i], items[i + 1], items[i], *items[i + 2:]]


def faults(node, parent):
    """All faults of one node, not of those inside it: (kind, node to replace, new text)."""
    op = type(getattr(node, "op", None))
    if isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) and op in OPERATORS:
        yield "operator", node, changed(node, op=OPERATORS[op]())
    if isinstance(node, ast.BinOp) and op in ORDERED:
        yield "operand order", node, changed(node, left=node.right, right=node.left)
    if isinstance(node, ast.UnaryOp):
        yield "unary operator dropped", node, f"({ast.unparse(node.operand)})"
    if isinstance(node, ast.Compare):
        for i, old in enumerate(node.ops):
            ops = [*node.ops[:i], OPERATORS[type(old)](), *node.ops[i + 1:]]
            yield "comparison", node, changed(node, ops=ops)
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bool):
            yield "constant", node, str(not value)
        elif isinstance(value, (int, float)):
            other = value + 1 if isinstance(value, int) else value * 1.1 or 1.0
            yield "constant", node, repr(other)
            if value and not isinstance(parent, ast.UnaryOp):
                yield "sign", node, f"(-{value!r})"
        elif value in STRINGS:
            yield "string", node, repr(STRINGS[value])
    if isinstance(node, ast.Subscript) and not ast.unparse(node.value).isupper():
        yield from index_faults(node.slice)
    if isinstance(node, ast.Call):
        yield from call_faults(node)
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
        for elts in swaps(node.value.elts):
            yield "result order", node.value, changed(node.value, elts=elts)
    tests = [node.test] if hasattr(node, "test") else getattr(node, "ifs", [])
    for test in tests:
        plain = isinstance(test, ast.Compare) and len(test.ops) == 1
        if isinstance(test, ast.UnaryOp) or plain and isinstance(test.ops[0], COMPLEMENTS):
            continue                                           # its own fault is the negation
        yield "condition negated", test, f"(not ({ast.unparse(test)}))"
    if isinstance(node, (ast.AugAssign, ast.Expr)) or is_stored(node):
        yield "statement deleted", node, "pass"


def is_stored(node):
    """An assignment to attributes or elements only, not to a variable."""
    if not isinstance(node, ast.Assign):
        return False
    target = node.targets[0]
    places = target.elts if isinstance(target, ast.Tuple) else [target]
    return all(isinstance(place, (ast.Attribute, ast.Subscript)) for place in places)


def index_faults(index):
    """The neighbour of an index or of an end of a slice; `faults` has 1 more than a number."""
    for part in index.elts if isinstance(index, ast.Tuple) else [index]:
        for end in [part.lower, part.upper] if isinstance(part, ast.Slice) else [part]:
            if isinstance(end, ast.Constant) and isinstance(end.value, int):
                yield "index", end, repr(end.value - 1)
            elif isinstance(end, ast.UnaryOp):
                yield "index", end, f"({ast.unparse(end)} + 1)"
            elif end and not isinstance(end, WITHOUT_NEIGHBOUR) and ast.unparse(end) not in KEYS:
                yield "index", end, f"({ast.unparse(end)} + 1)"
                yield "index", end, f"({ast.unparse(end)} - 1)"


def call_faults(node):
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    if isinstance(node.func, ast.Attribute) and name in CALLS:
        yield "function", node.func, changed(node.func, attr=CALLS[name])
    elif name in CALLS:                                        # `mean` is the package's own
        yield "function", node.func, {"mean": "np.sum", "sum": "max"}.get(name, CALLS[name])
    for keyword in node.keywords:
        if keyword.arg and keyword.arg not in required_arguments().get(name, ()):
            rest = [other for other in node.keywords if other is not keyword]
            yield "keyword dropped", node, changed(node, keywords=rest)
    if name not in SYMMETRIC:
        for args in swaps(node.args):
            yield "argument order", node, changed(node, args=args)


def mutants_of(name):
    """Every mutant of a file of the package."""
    path = f"ckd_ref/{name}.py"
    source = (ROOT / path).read_bytes()
    starts = [0, *itertools.accumulate(len(line) for line in source.splitlines(keepends=True))]
    known, found = EQUATIONS.get(name, set()), []

    def visit(node, parent, equations):
        if isinstance(node, (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)):
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return                                             # a docstring
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            numbers = re.findall(r"\((\d+)\)", ast.get_docstring(node) or "")
            equations = known & set(map(int, numbers)) or equations
        for kind, old, after in faults(node, parent):
            span = [starts[old.lineno - 1] + old.col_offset,
                    starts[old.end_lineno - 1] + old.end_col_offset]
            before = source[slice(*span)].decode()
            found.append({"file": path, "line": old.lineno, "column": old.col_offset, "kind": kind,
                          "before": before, "after": after, "span": span,
                          "equations": sorted(equations)})
        for field, value in ast.iter_fields(node):
            if field not in ("annotation", "returns", "decorator_list"):
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        visit(child, node, equations)

    visit(ast.parse(source), None, known)
    return found


@functools.cache
def required_arguments():
    """Arguments without default of every function and dataclass of the package, by its name."""
    required = {}
    for path in (ROOT / "ckd_ref").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef):
                args = node.args.posonlyargs + node.args.args
                names = {arg.arg for arg in args[:len(args) - len(node.args.defaults)]}
                pairs = zip(node.args.kwonlyargs, node.args.kw_defaults)
                names |= {arg.arg for arg, default in pairs if default is None}
            elif isinstance(node, ast.ClassDef):
                fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
                names = {field.target.id for field in fields if field.value is None}
            else:
                continue
            required.setdefault(node.name, set()).update(names)
    return required


def with_fault(source, mutant):
    """The file's text with the fault, which is checked to be one: other valid Python."""
    begin, end = mutant["span"]
    text = source[:begin] + mutant["after"].encode() + source[end:]
    assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(source)), mutant
    return text
