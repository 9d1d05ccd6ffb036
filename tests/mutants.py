"""Makes mutants of a module: copies of its source with one small change, which is mostly wrong."""

import ast
import dataclasses
import itertools
import re

COMPARISONS = {
    ast.Gt: (">=", "<"),
    ast.GtE: (">", "<"),
    ast.Lt: ("<=", ">"),
    ast.LtE: ("<", ">"),
    ast.Eq: ("!=",),
    ast.NotEq: ("==",),
    ast.Is: ("is not",),
    ast.IsNot: ("is",),
    ast.In: ("not in",),
    ast.NotIn: ("in",),
}
ARITHMETIC = {ast.Add: "-", ast.Sub: "+", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "*"}
DTYPES = {"float16": "float32", "bfloat16": "float16", "float32": "float16", "float64": "float32"}
# Calls that hand on their first argument, in another form.
CONVERSIONS = {
    *("abs", "bool", "dict", "float", "int", "list", "sorted", "sum", "tuple"),
    *("cast", "convert_to_tensor", "identity", "stop_gradient", "reduce_sum", "squeeze"),
    *("maximum", "minimum", "ravel", "_hidden", "_local"),
}
MESSAGES = {"info", "warning", "debug"}  # of a log: dropped, not reworded
HOUSE_STYLE = {"strict", "subject"}  # keywords that are there for the reader, or for a message


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A change to the source of a module, and the lines whose tests have to notice it."""

    module: str
    source: bytes
    lines: range
    within: str = ""
    """The innermost function or class."""

    def describe(self, original):
        """Where it is, and the changed lines as "- before" and "+ after", without indentation."""
        before, after = (text.decode().splitlines() for text in (original, self.source))
        for end in (0, -1):  # what both begin with, and what both end with
            while before and after and before[end] == after[end]:
                del before[end], after[end]
        changed = [f"- {line.strip()}" for line in before] + [f"+ {line.strip()}" for line in after]
        lines = [f"{self.module}.{self.within}".strip("."), *changed]
        return "\n".join(line.strip() for line in lines)


def mutants(module, source):
    """All mutants of a module that can be compiled. Texts, annotations and decorators stay."""
    tree, code = ast.parse(source), _Code(source)
    meant, made = ast.dump(tree), {}
    for node, lines, within in _nodes(tree.body):
        for start, end, new in itertools.chain(_in_expression(node, code), _in_block(node, code)):
            changed = source[:start] + new.encode() + source[end:]
            try:
                means = ast.dump(ast.parse(changed))
            except SyntaxError:
                continue
            if means != meant:
                made.setdefault(changed, Mutant(module, changed, lines, within))
    return list(made.values())


class _Code:
    """The source by the nodes of its tree. A change is where it starts and ends, and a new text."""

    def __init__(self, source):
        self._source = source
        self._lines = [0]
        for line in source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))

    def place(self, node):
        start = self._lines[node.lineno - 1] + node.col_offset
        return start, self._lines[node.end_lineno - 1] + node.end_col_offset

    def text(self, node):
        start, end = self.place(node)
        return self._source[start:end].decode()

    def instead(self, node, *news):
        return [(*self.place(node), new) for new in news]

    def between(self, left, right, new):
        """Another operator."""
        start, end = self.place(left)[1], self.place(right)[0]
        found = self._source[start:end].decode()
        return [(start, end, re.sub(r"[^\s()]+(\s(in|not)\b)?", new, found, count=1))]

    def negated(self, test):
        if isinstance(test, ast.Compare | ast.UnaryOp):  # these are negated by themselves
            return []
        return self.instead(test, f"not ({self.text(test)})")

    def shortened(self, elements):
        """A tuple without each of its elements."""
        for dropped in elements.elts:
            kept = [self.text(each) for each in elements.elts if each is not dropped]
            yield from self.instead(elements, f"({', '.join(kept)},)")

    def without(self, keyword):
        """Without an argument and one of the commas beside it."""
        start, end = self.place(keyword)
        before, after = self._source[:start].rstrip(), self._source[end:]
        if after.startswith(b","):
            end += len(after) - len(after[1:].lstrip(b" "))
        elif before.endswith(b","):
            start = len(before) - 1
        return start, end, ""


def _nodes(body, lines=None, within=""):
    """The nodes that are code, each with the lines of its statement, without what that holds."""
    for node in body:
        inside = node.name if isinstance(node, ast.FunctionDef | ast.ClassDef) else within
        if isinstance(node, ast.stmt):
            inner = getattr(node, "body", None)
            last = inner[0].lineno - 1 if inner else node.end_lineno
            lines = range(node.lineno, max(last, node.lineno) + 1)
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        style = isinstance(node, ast.keyword) and node.arg in HOUSE_STYLE
        if docstring or style or isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr):
            continue
        yield node, lines, inside
        message = isinstance(node, ast.Expr) and _called(node.value) in MESSAGES
        if message or isinstance(node, ast.Raise):
            continue
        for field, value in ast.iter_fields(node):
            if field not in ("annotation", "returns", "decorator_list"):
                parts = value if isinstance(value, list) else [value]
                yield from _nodes(
                    (part for part in parts if isinstance(part, ast.AST)), lines, inside
                )


def _called(node):
    function = node.func if isinstance(node, ast.Call) else None
    return getattr(function, "attr", getattr(function, "id", None))


def _in_expression(node, code):
    match node:
        case ast.Compare(left, kinds, rights):
            pairs = itertools.pairwise([left, *rights])
            for kind, pair in zip(kinds, pairs, strict=True):
                for new in COMPARISONS[type(kind)]:
                    yield from code.between(*pair, new)
            if isinstance(kinds[0], ast.In | ast.NotIn) and isinstance(rights[0], ast.Tuple):
                yield from code.shortened(rights[0])
        case ast.BinOp(left, ast.Mult() | ast.BitOr(), right):  # the latter is of types
            yield from code.instead(node, code.text(left), code.text(right))
        case ast.BinOp(left, kind, right) if type(kind) in ARITHMETIC:
            yield from code.between(left, right, ARITHMETIC[type(kind)])
        case ast.BoolOp(kind, values):
            word, other = ("and", "or") if isinstance(kind, ast.And) else ("or", "and")
            for pair in itertools.pairwise(values):
                yield from code.between(*pair, other)
            for dropped in values:
                kept = [f"({code.text(value)})" for value in values if value is not dropped]
                yield from code.instead(node, f" {word} ".join(kept))
        case ast.UnaryOp(_, operand):
            yield from code.instead(node, f"({code.text(operand)})")
        case ast.IfExp(test) | ast.comprehension(ifs=[test]):
            yield from code.negated(test)
        case ast.Constant(bool() as value):
            yield from code.instead(node, repr(not value))
        case ast.Constant(int() as value):
            yield from code.instead(node, repr(value + 1))
        case ast.Constant(float() as value):
            yield from code.instead(node, repr(2 * value or 1.0))
        case ast.Constant(str() as value) if value in DTYPES:
            yield from code.instead(node, f'"{DTYPES[value]}"')
        case ast.Attribute(value, name) if name in DTYPES:
            yield from code.instead(node, f"{code.text(value)}.{DTYPES[name]}")
        case ast.Call(_, arguments, keywords):
            for keyword in keywords:
                if keyword.arg not in (None, *HOUSE_STYLE):
                    yield code.without(keyword)
            if arguments and _called(node) in CONVERSIONS:
                single = isinstance(arguments[0], ast.Name | ast.Call | ast.Subscript)
                first = code.text(arguments[0])
                yield from code.instead(node, first if single else f"({first})")


def _in_block(node, code):
    match node:
        case ast.If(test) | ast.While(test):
            yield from code.negated(test)
        case ast.ExceptHandler(ast.Tuple() as kinds):
            yield from code.shortened(kinds)
        case ast.With(items):
            for item in items:
                if item.optional_vars is None:
                    nothing = '__import__("contextlib").nullcontext()'
                    yield from code.instead(item.context_expr, nothing)
        case ast.Return(ast.expr()):
            yield from code.instead(node, "return None")
        case ast.Expr(ast.Call()) | ast.Raise() | ast.Continue() | ast.Break() | ast.Delete():
            yield from code.instead(node, "pass")
        case ast.AugAssign() | ast.Assign([ast.Attribute() | ast.Subscript()]):
            yield from code.instead(node, "pass")
