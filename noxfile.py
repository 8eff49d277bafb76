"""nox runs what CI runs: tests, the kernels as plain Python, lint, types; and, by name, the published ports."""

import nox

nox.options.sessions = ["tests", "uncompiled", "lint", "types"]
nox.options.reuse_existing_virtualenvs = True


@nox.session
def tests(session: nox.Session) -> None:
    """All tests that need no framework, the docstrings' and the documents' examples, with coverage."""
    session.install("-e", ".[test]")
    paths = session.posargs or ["amos_ref", "tests", "docs", "README.md"]
    session.run("pytest", "--ignore=tests/ports", "--cov", "--cov-report=term:skip-covered", *paths)


@nox.session
def uncompiled(session: nox.Session) -> None:
    """The kernels run as Python, so that coverage sees inside."""
    session.install("-e", ".[test]")
    session.run(
        "pytest",
        "--cov=amos_ref/kernels",
        "--cov-report=term-missing",
        "tests/test_kernels.py",
        *session.posargs,
        env={"NUMBA_DISABLE_JIT": "1"},
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Lint and format, nothing changed."""
    session.install("ruff==0.17.6")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types of the package."""
    session.install("-e", ".[bf16]", "pyright==1.1.414")
    session.run("pyright", env={"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"})


@nox.session
def ports(session: nox.Session) -> None:
    """Real, published ports: the authors' code and pytorch_optimizer."""
    session.install("-e", ".[ports]")
    # jestimator does not import on today's JAX, and asks for old packages; its amos.py alone is loaded, by path.
    session.install("--no-deps", "jestimator==0.3.3")
    session.run("pytest", "tests/ports", *session.posargs)
