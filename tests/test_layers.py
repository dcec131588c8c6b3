"""Who may import whom: the floors as data, every import of the package held against them, and the house rules of core.

A new module of core goes into FLOORS first. An arrow between two modules of one floor needs a line in SIDEWAYS.
"""

import ast
import io
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

SOURCE: Final = Path(__file__).parents[1] / "src"
CORE: Final = "calamint.core"
ROOT: Final = "calamint"

FLOORS: Final = {
    # words
    "calamint.core.value": 0,
    "calamint.core.errors": 0,
    # codecs and tables, no connection in sight
    "calamint.core.events": 1,
    "calamint.core.exchange": 1,
    "calamint.core.fields": 1,
    "calamint.core.flow": 1,
    "calamint.core.frames": 1,
    "calamint.core.hpack": 1,
    "calamint.core.http1_parse": 1,
    "calamint.core.huffman": 1,
    "calamint.core.snapshot": 1,
    "calamint.core.streams": 1,
    "calamint.core.url": 1,
    # machines
    "calamint.core.http1": 2,
    "calamint.core.http1_receive": 2,
    "calamint.core.http1_state": 2,
    "calamint.core.http2": 2,
    "calamint.core.http2_head": 2,
    "calamint.core.http2_receive": 2,
    "calamint.core.http2_send": 2,
    "calamint.core.http2_settings": 2,
    "calamint.core.http2_state": 2,
    "calamint.core.tunnel": 2,
    # over both protocols
    "calamint.core": 3,
    "calamint.core.explain": 3,
    "calamint.core.pool": 3,
    "calamint.core.pool_state": 3,
    "calamint.core.pool_view": 3,
    "calamint.core.record": 3,
    "calamint.core.verbs": 3,
    # I/O and no decisions
    "calamint.incident": 4,
    "calamint.net": 4,
    "calamint.net.aio": 4,
    "calamint.net.sync": 4,
    "calamint.net.threads": 4,
    # HTTP as people use it
    "calamint.client": 5,
    # what stands on it, and nobody imports
    "calamint": 6,
    "calamint.__main__": 6,
    "calamint.cli": 6,
    "calamint.testing": 6,
    "calamint.transports": 6,
}

# Importer and imported, on one floor. From floor 4 up the modules of one package are free among themselves.
SIDEWAYS: Final = {
    ("calamint.core.errors", "calamint.core.value"),  # Failure is a value
    ("calamint.core.streams", "calamint.core.exchange"),
    ("calamint.core.snapshot", "calamint.core.exchange"),
    ("calamint.core.hpack", "calamint.core.huffman"),
    ("calamint.core.http1_parse", "calamint.core.fields"),
    ("calamint.core.http1_receive", "calamint.core.http1_state"),
    ("calamint.core.http1", "calamint.core.http1_receive"),
    ("calamint.core.http1", "calamint.core.http1_state"),
    ("calamint.core.http2_head", "calamint.core.http2_state"),
    ("calamint.core.http2_receive", "calamint.core.http2_head"),
    ("calamint.core.http2_receive", "calamint.core.http2_state"),
    ("calamint.core.http2_send", "calamint.core.http2_state"),
    ("calamint.core.http2_settings", "calamint.core.http2_state"),
    ("calamint.core.http2_receive", "calamint.core.http2_settings"),
    ("calamint.core.http2", "calamint.core.http2_settings"),
    ("calamint.core.http2", "calamint.core.http2_send"),
    ("calamint.core.http2", "calamint.core.http2_receive"),
    ("calamint.core.http2", "calamint.core.http2_state"),
    ("calamint.core.tunnel", "calamint.core.http1"),
    ("calamint.core.tunnel", "calamint.core.http1_state"),
    ("calamint.core.explain", "calamint.core.verbs"),
    ("calamint.core.pool", "calamint.core.pool_state"),
    ("calamint.core.pool", "calamint.core.pool_view"),
    ("calamint.core.pool", "calamint.core.verbs"),
    ("calamint.core.pool_view", "calamint.core.pool_state"),
    ("calamint.core.pool_view", "calamint.core.verbs"),
    ("calamint.core.pool_state", "calamint.core.verbs"),
    ("calamint.core.record", "calamint.core.verbs"),
    ("calamint.core", "calamint.core.explain"),
    ("calamint.core", "calamint.core.pool"),
    ("calamint.core", "calamint.core.record"),
    ("calamint.core", "calamint.core.verbs"),
    ("calamint.__main__", "calamint.cli"),
    ("calamint.cli", "calamint.testing"),  # the demo talks to the scripted peer
}
STRANGERS: Final = {"calamint.net.aio", "calamint.net.sync", "calamint.net.threads"}  # not even one another

WORDS_MAY_IMPORT: Final = {"__future__", "typing"}
CORE_MAY_IMPORT: Final = WORDS_MAY_IMPORT | {"collections", "enum", "re", "struct"}
REQUIRED: Final = {"idna"}  # third parties that are always installed; all others are imported where they are needed
DECORATORS: Final = {"final", "property"}
BANNED_NAMES: Final = {"Any", "NamedTuple", "cast", "dataclass", "namedtuple"}


def home(name: str) -> str:
    """The entry of FLOORS that a dotted name belongs to: calamint.net.tls.Config lives in calamint.net."""
    while name not in FLOORS:
        name = name.rpartition(".")[0]
    return name


def package(name: str) -> str:
    return ".".join(name.split(".")[:2])


def refusal(importer: str, target: str) -> str:
    """The rule that this arrow breaks, or an empty string. Both names are entries of FLOORS."""
    here, there = FLOORS[importer], FLOORS[target]
    if there < here or importer == target or (importer, target) in SIDEWAYS:
        return ""
    if there > here:
        return f"floor {here} may not import floor {there}"
    if {importer, target} <= STRANGERS:
        return "the drivers do not import each other"
    if here >= 4 and ROOT not in (importer, target) and package(importer) == package(target):
        return ""
    return f"on floor {here} only the arrows of SIDEWAYS are allowed"


def imported(module: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything that is imported, at the top or inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def layer_problems(module: str, source: str) -> list[str]:
    """What is wrong with the imports of a module; a package goes by the name of its __init__."""
    tree = ast.parse(source)
    place = home(module)
    name = module.removesuffix(".__init__")
    where = f"src/{module.replace('.', '/')}.py"
    if name not in FLOORS and place in (CORE, ROOT):
        return [f"{where}: {name} is not in the table of floors (FLOORS in tests/test_layers.py)"]
    floor = FLOORS[place]
    allowed = WORDS_MAY_IMPORT if floor == 0 else CORE_MAY_IMPORT
    late = lines_of_late_imports(tree)
    found: list[str] = []
    for line, target in imported(module, tree):
        top = target.partition(".")[0]
        if top == ROOT:
            if rule := refusal(place, home(target)):
                found.append(f"{where}:{line}: {name} imports {target}: {rule}")
        elif floor < 4 and top not in allowed:
            found.append(f"{where}:{line}: {name} imports {top}: floor {floor} may import {', '.join(sorted(allowed))}")
        elif top not in sys.stdlib_module_names | REQUIRED and line not in late and place != "calamint.transports":
            found.append(f"{where}:{line}: {name} imports {top}: import a third party where it is needed")
    return found


def lines_of_late_imports(tree: ast.AST) -> set[int]:
    """The lines of the imports that do not run when the module is imported."""
    return {
        inner.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"))
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    }


def house_problems(module: str, source: str) -> list[str]:
    """What a module of core contains that is slow, unsupported or unsound once it is compiled."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and node.id in BANNED_NAMES:
            found.append((node.lineno, f"uses {node.id}"))
        elif isinstance(node, ast.Attribute) and node.attr in BANNED_NAMES:
            found.append((node.lineno, f"uses {node.attr}"))
        elif isinstance(node, ast.ImportFrom):
            found += [(node.lineno, f"imports {alias.name}") for alias in node.names if alias.name in BANNED_NAMES]
        elif isinstance(node, ast.Yield | ast.YieldFrom):
            found.append((node.lineno, "is a generator"))
        elif isinstance(node, ast.AsyncFunctionDef):
            found.append((node.lineno, "is asynchronous"))
        elif isinstance(node, ast.Try | ast.TryStar):
            inner = [inner for part in node.body for inner in ast.walk(part)]
            if any(isinstance(part, ast.Import | ast.ImportFrom) for part in inner):
                found.append((node.lineno, "has an optional import"))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            found += function_problems(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [ast.unparse(decorator) for decorator in node.decorator_list]
            found += [(node.lineno, f"is decorated with {name}") for name in names if name not in DECORATORS]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and "type: ignore" in token.string:
            found.append((token.start[0], "has a type: ignore"))
    where = f"src/{module.replace('.', '/')}.py"
    return [f"{where}:{line}: core {what}" for line, what in sorted(set(found))]


def function_problems(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> list[tuple[int, str]]:
    functions = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    inner = [part for part in ast.walk(node) if isinstance(part, functions) and part is not node]
    found = [(part.lineno, "has a function inside a function") for part in inner]
    if node.args.kwarg:
        found.append((node.lineno, f"takes **{node.args.kwarg.arg}"))
    return found


def modules() -> list[tuple[str, str]]:
    paths = sorted((SOURCE / ROOT).rglob("*.py"))
    return [(".".join(path.relative_to(SOURCE).with_suffix("").parts), path.read_text("utf-8")) for path in paths]


def test_every_arrow_points_down() -> None:
    problems = [problem for module, source in modules() for problem in layer_problems(module, source)]
    assert not problems, "\n".join(problems)


def test_core_keeps_its_house_rules() -> None:
    ours = [(module, source) for module, source in modules() if module.startswith(f"{CORE}.")]
    problems = [problem for module, source in ours for problem in house_problems(module, source)]
    assert not problems, "\n".join(problems)


def test_importing_calamint_loads_neither_ssl_nor_asyncio() -> None:
    code = "import sys; before = set(sys.modules); import calamint, calamint.core; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert not {"asyncio", "logging", "socket", "ssl", "threading"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("module", "source", "rule"),
    [
        ("calamint.core.hpack", "from calamint.core import http2", "floor 1 may not import floor 2"),
        ("calamint.core.hpack", "import calamint.core.http2", "floor 1 may not import floor 2"),
        ("calamint.core.hpack", "from .http2 import receive", "floor 1 may not import floor 2"),
        ("calamint.core.hpack", "def f() -> None:\n    from . import pool", "floor 1 may not import floor 3"),
        ("calamint.core.pool", "from calamint.core import request", "only the arrows of SIDEWAYS"),
        ("calamint.core.hpack", "from calamint.core.frames import FLAGS", "only the arrows of SIDEWAYS"),
        ("calamint.core.http1", "from calamint.core import http2", "only the arrows of SIDEWAYS"),
        ("calamint.core.http2_state", "from calamint.core.http2_receive import x", "only the arrows of SIDEWAYS"),
        ("calamint.core.__init__", "from ..net import sync", "floor 3 may not import floor 4"),
        ("calamint.core.value", "import re", "floor 0 may import __future__, typing"),
        ("calamint.core.frames", "import time", "floor 1 may import"),
        ("calamint.core.frames", "import mypy_extensions", "floor 1 may import"),
        ("calamint.core.extras", "", "not in the table of floors"),
        ("calamint.extras", "", "not in the table of floors"),
        ("calamint.net.sync", "from calamint.net import aio", "the drivers do not import each other"),
        ("calamint.net.sync", "from calamint.incident.write import write", "only the arrows of SIDEWAYS"),
        ("calamint.client.client", "from calamint import transports", "floor 5 may not import floor 6"),
        ("calamint.cli.main", "from calamint import Client", "only the arrows of SIDEWAYS"),
        ("calamint.cli.main", "import rich", "import a third party where it is needed"),
    ],
)
def test_a_bad_arrow_is_caught(module: str, source: str, rule: str) -> None:
    (problem,) = layer_problems(module, source)
    assert rule in problem
    assert problem.startswith(f"src/{module.replace('.', '/')}.py:")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("calamint.core.hpack", "from struct import Struct\nfrom calamint.core import errors, huffman"),
        ("calamint.core.http2", "from . import frames, http2_receive\nfrom .http2_state import Draft"),
        ("calamint.core.__init__", "from calamint.core.verbs import request\nfrom .events import DataReceived"),
        ("calamint.net.sync", "import socket\nfrom calamint import core\nfrom calamint.net.tls import context"),
        ("calamint.client.client", "import idna\nfrom calamint.net import aio, sync\nfrom .models import Request"),
        ("calamint.cli.main", "def show() -> None:\n    import rich\n    from calamint.testing import Peer"),
        ("calamint.transports.httpx", "import httpx\nfrom calamint.client import Client"),
        (
            "calamint.__init__",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from calamint.client import Client",
        ),
    ],
)
def test_a_good_arrow_is_not(module: str, source: str) -> None:
    assert layer_problems(module, source) == []


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("from typing import Any", "imports Any"),
        ("import typing\nx = typing.cast(int, 1)", "uses cast"),
        ("x = 1  # type: ignore", "has a type: ignore"),
        ("def f():\n    yield 1", "is a generator"),
        ("async def f(): pass", "is asynchronous"),
        ("def f():\n    def g(): pass", "has a function inside a function"),
        ("def f(x):\n    x.sort(key=lambda y: y)", "has a function inside a function"),
        ("@staticmethod\ndef f(): pass", "is decorated with staticmethod"),
        ("class C:\n    @x.setter\n    def x(self): pass", "is decorated with x.setter"),
        ("def f(**options): pass", "takes **options"),
        ("try:\n    import zlib\nexcept ImportError:\n    pass", "has an optional import"),
        ("class C(NamedTuple): pass", "uses NamedTuple"),
    ],
)
def test_a_broken_house_rule_is_caught(source: str, what: str) -> None:
    (problem,) = house_problems("calamint.core.frames", source)
    assert what in problem


def test_what_the_house_allows() -> None:
    source = (
        '@final\nclass C:\n    """No type: ignore."""\n    @property\n    def x(self): return [y for y in self.z]\n'
    )
    assert house_problems("calamint.core.frames", source) == []
