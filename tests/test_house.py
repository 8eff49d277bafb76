"""The structure of the package: which rooms know of which."""

import ast
import pathlib
import subprocess
import sys

import amos_ref

PACKAGE = pathlib.Path(amos_ref.__path__[0])
MODULES = {
    ".".join(("amos_ref", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
LIMIT = 400  # lines of a file


def imports_of(path):
    """Every module of the package that a file imports, also inside functions, but not for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for block in [node for node in ast.walk(tree) if isinstance(node, ast.If)]:
        if ast.unparse(block.test) == "TYPE_CHECKING":
            block.body = [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in inner if name in MODULES)
            if not all(name in MODULES for name in inner):
                yield node.module


def circles(arrows):
    """The groups of modules each of which leads to all others of its group."""

    def reached(start):
        seen, left = set(), [start]
        while left:
            for name in arrows[left.pop()] - seen:
                seen.add(name)
                left.append(name)
        return seen

    ways = {name: reached(name) for name in arrows}
    return {frozenset({name, *(n for n in ways[name] if name in ways[n])}) for name in arrows if name in ways[name]}


def arrows():
    found = {name: set(imports_of(path)) for name, path in MODULES.items()}
    found["amos_ref"] = set()  # it imports a name's module when the name is first used
    return found


def test_no_modules_import_each_other_in_a_circle():
    assert circles(arrows()) == set()


def test_a_circle_would_be_seen():
    found = arrows()
    found["amos_ref.checks"].add("amos_ref.optimizers.base")
    assert any("amos_ref.checks" in circle for circle in circles(found))


def test_backends_know_no_optimizer_and_optimizers_no_backend():
    for name, path in MODULES.items():
        known = set(imports_of(path))
        if name.startswith("amos_ref.kernels"):
            assert not [other for other in known if other.startswith(("amos_ref.optimizers", "amos_ref.adamw"))], name
        if name.startswith("amos_ref.optimizers") or name == "amos_ref.adamw":
            assert not [other for other in known if other.startswith(("amos_ref.kernels.c", "amos_ref.kernels.p"))], (
                name
            )


def test_the_page_imports_nothing_but_numpy():
    assert set(imports_of(MODULES["amos_ref.spec"])) == set()


def test_files_can_be_read_at_a_sitting():
    assert {name: n for name, path in MODULES.items() if (n := path.read_text().count("\n")) > LIMIT} == {}


def constants_of(path):
    """Yield name and value, as source text, of every constant that is defined at the top of a file."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple):
                values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value] * len(target.elts)
                pairs = list(zip(target.elts, values, strict=True))
            for name, value in pairs:
                if isinstance(name, ast.Name) and name.id.strip("_").isupper():
                    yield name.id, ast.unparse(value).removeprefix("spec.")


def test_a_constant_has_the_same_value_in_all_modules():
    values = {}
    for path in MODULES.values():
        for name, value in constants_of(path):
            values.setdefault(name, set()).add(value)
    known = {name: known - {name} for name, known in values.items()}  # CHUNK = spec.CHUNK is the same value
    # Each backend, each member of the family, and each algorithm that the judge knows has its own.
    own = {"BACKEND", "LINES", "OPTIONS", "FORMULAS", "ORDERS", "SIZES"}
    own |= {"FACTORS", "OWN", "TARGETS", "POWERS", "WORDS", "OFFSETS", "GRAMMAR"}
    assert {name for name, several in known.items() if len(several) > 1} == own


def test_extra_l2_stands_in_few_files():
    """What a hyper-parameter touches: docs/contributing.md lists it; the ways to get it wrong are a folder."""
    apart = "amos_ref.conformance.diagnosis", "amos_ref.ports"  # the ports stand alone
    assert sum("extra_l2" in path.read_text() for name, path in MODULES.items() if not name.startswith(apart)) <= 10


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, amos_ref; print(sorted({'numpy', 'numba', 'optree', 'scipy', 'rich'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"
