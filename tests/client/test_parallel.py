"""The two clients say the same: aio.py without its async and await is sync.py, but for what stands here."""

import ast
import inspect
import re
from typing import Final

import calamint.client.aio
import calamint.client.message
import calamint.client.sync

# From the words of the asynchronous half to those of the other one.
WORDS: Final = {
    "AsyncBaseTransport": "BaseTransport",
    "AsyncClient": "Client",
    "AsyncGenerator": "Generator",
    "AsyncIterator": "Iterator",
    "AsyncIterable": "Iterable",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "_apieces": "_pieces",
    "aclose": "close",
    "aiter_bytes": "iter_bytes",
    "aiter_lines": "iter_lines",
    "aiter_raw": "iter_raw",
    "aiter_text": "iter_text",
    "anext": "next",
    "aread": "read",
    "asynccontextmanager": "contextmanager",
    "handle_async_request": "handle_request",
}
# What only one of them has: in each pair, ours of asyncio and the other's.
DIFFERENT: Final = (
    ("parts: Pieces | AsyncPieces | FilePieces | None", "parts: Pieces | FilePieces | None"),
    ("to_async(parts, call, limits.deadline)", "parts.__iter__()"),
)
ONLY_SYNC: Final = re.compile(r"\n *if isinstance\(parts, AsyncPieces\):\n *raise TypeError\(.*\)")


class Plain(ast.NodeTransformer):
    """Takes away docstrings, async, await, and the way in which pieces of a list are yielded."""

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        plain = ast.FunctionDef(node.name, node.args, node.body, node.decorator_list, node.returns)
        return self.visit_FunctionDef(ast.copy_location(plain, node))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        return node

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        return self.visit_For(ast.copy_location(ast.For(node.target, node.iter, node.body, node.orelse), node))

    def visit_For(self, node: ast.For) -> ast.AST:
        self.generic_visit(node)
        inner = node.body[0]
        if len(node.body) == 1 and isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Yield):
            if inner.value.value is not None and ast.unparse(inner.value.value) == ast.unparse(node.target):
                return ast.copy_location(ast.Expr(ast.YieldFrom(node.iter)), node)
        return node

    def visit_Await(self, node: ast.Await) -> ast.AST:
        return self.visit(node.value)  # type: ignore[no-any-return]  # as the standard library has it

    def visit_ListComp(self, node: ast.ListComp) -> ast.AST:
        """A list of all that comes asynchronously is, in the other half, what comes."""
        self.generic_visit(node)
        return node.generators[0].iter if node.generators[0].is_async else node


def plain(source: str, names: list[str]) -> dict[str, str]:
    """Classes and functions with these names, as they read without docstrings and in the words of the blocking half."""
    tree = ast.fix_missing_locations(Plain().visit(ast.parse(source)))
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            name = WORDS.get(node.name, node.name)
            if name in names:
                text = re.sub(r"\b\w+\b", lambda word: WORDS.get(word[0], word[0]), ast.unparse(node))
                found[name] = text
    return found


def test_the_clients_are_parallel() -> None:
    names = ["Client", "Stream", "drain"]
    ours = plain(inspect.getsource(calamint.client.aio), names)
    theirs = plain(inspect.getsource(calamint.client.sync), names)
    assert set(ours) == set(theirs) == set(names)
    for name in names:
        text = ours[name]
        for here, there in DIFFERENT:
            text = text.replace(here, there)
        assert text == ONLY_SYNC.sub("", theirs[name]), name


def test_both_halves_of_a_response_are_parallel() -> None:
    source = inspect.getsource(calamint.client.message)
    tree = ast.parse(source)
    [response] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Response"]
    methods = {node.name: node for node in response.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    pairs = [(name, WORDS[name]) for name in methods if name in WORDS]
    assert len(pairs) == 7
    for ours, other in pairs:
        here = plain(ast.unparse(methods[ours]), [other])[other]
        there = plain(ast.unparse(methods[other]), [other])[other]
        if other in ("close", "_pieces"):  # they check the other way round, and say so
            here, there = [re.sub(r"isinstance\(.*\)|raise RuntimeError\(.*\)", "", text) for text in (here, there)]
            here = here.replace("if not :", "if :")
            there = there.replace("if not :", "if :")
        assert here == there, ours


def test_every_method_is_on_both_with_the_same_parameters() -> None:
    for name, method in vars(calamint.Client).items():
        if name.startswith("_") and name != "__init__" or not inspect.isfunction(method):
            continue
        other = getattr(calamint.AsyncClient, {"close": "aclose"}.get(name, name))
        here, there = inspect.signature(method), inspect.signature(other)
        assert list(here.parameters) == list(there.parameters), name
        for key, each in here.parameters.items():
            assert (each.kind, each.default) == (there.parameters[key].kind, there.parameters[key].default), (name, key)
