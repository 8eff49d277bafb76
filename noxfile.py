"""nox runs what CI runs: tests, the kernels as plain Python, lint, types; and, by name, the published ports."""

import json
import pathlib
import shutil
import tempfile

import nox
from nox.command import CommandFailed

nox.options.sessions = ["tests", "uncompiled", "lint", "types"]
nox.options.reuse_existing_virtualenvs = True

PINNED = ("-c", "constraints.txt")
OLDEST = ("numpy==2.0.0", "numba==0.61.0", "optree==0.14.0", "scipy==1.13.0", "rich==13.7.0", "ml_dtypes==0.5.0")
# The newest toolkit whose code driver 580 loads; ptxas and nvdisasm as wheels.
TOOLKIT = (
    "numba==0.68.1",
    "numba-cuda[cu13]==0.30.4",
    "cuda-toolkit[cccl,cudart,nvrtc,nvvm]==13.0.*",
    "nvidia-nvjitlink==13.0.*",
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-cuda-nvdisasm==13.2.51",
)
# What has a session of its own: it needs frameworks, much time, or a browser.
APART = (
    *("--ignore=tests/frameworks", "--ignore=tests/long", "--ignore=tests/elsewhere"),
    *("--ignore=tests/explorer/test_page.py", "--ignore=tests/explorer/test_look.py", "--ignore=amos_ref/ports"),
    *("--ignore=tests/site", "--ignore=docs/conf.py"),
)
ALL = ("amos_ref", "tests", "docs", "README.md")
# What is tried without the names that Windows lacks.
CORE = (
    *("tests/optimizers/test_amos.py", "tests/optimizers/test_closed_form.py", "tests/optimizers/test_bad_input.py"),
    *("tests/storage/test_checkpoint.py", "tests/storage/test_options.py"),
    *("tests/cli/test_explain.py", "tests/cli/test_main.py", "tests/cli/test_csv_data.py"),
)
LARGEST = 3_000_000  # bytes of a wheel or sdist
SITE = {"AMOS_REF_SITE": "build/site"}
LEAST_TYPED = 95  # percent of the public names


@nox.session
def tests(session: nox.Session) -> None:
    """All tests that need no framework, the docstrings' and the documents' examples, on every core."""
    session.install(*PINNED, "-e", ".[test]")
    session.run("pytest", *APART, "-n", "auto", *(session.posargs or ALL))


@nox.session
def coverage(session: nox.Session) -> None:
    """The same tests with coverage, which takes twice as long (half an hour on two cores)."""
    session.install(*PINNED, "-e", ".[test]")
    report = ("--cov", "--cov-report=term:skip-covered")
    session.run("pytest", *APART, "-n", "auto", *report, *(session.posargs or ALL))


@nox.session
def uncompiled(session: nox.Session) -> None:
    """The kernels run as Python, so that coverage sees inside."""
    session.install(*PINNED, "-e", ".[test]")
    report = ("--cov=amos_ref/kernels", "--cov-report=term-missing")
    files = ("tests/kernels/cpu", "tests/kernels/test_layout.py", "tests/kernels/test_scalar.py")
    session.run("pytest", "-n", "auto", *report, *files, *session.posargs, env={"NUMBA_DISABLE_JIT": "1"})


@nox.session
def lint(session: nox.Session) -> None:
    """Lint and format, nothing changed."""
    session.install(*PINNED, "ruff")
    session.run("ruff", "check", ".")
    # A file that is opened without an encoding is read in another one on Windows.
    session.run("ruff", "check", "--preview", "--select", "PLW1514", "amos_ref", "examples", "tools", "noxfile.py")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types of the package; and how many of its public names say theirs, at least LEAST_TYPED percent."""
    session.install(*PINNED, ".", "pyright")  # not editable: --verifytypes looks at what is installed
    quiet: dict[str, str | None] = {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    session.run("pyright", env=quiet)
    verify = ("pyright", "--verifytypes", "amos_ref", "--ignoreexternal", "--outputjson")
    # Its exit status is 1 below 100 percent.
    found = json.loads(str(session.run(*verify, env=quiet, silent=True, success_codes=[0, 1])))
    typed = 100 * found["typeCompleteness"]["completenessScore"]
    session.log(f"{typed:.1f} % of the public names say their types")
    if typed < LEAST_TYPED:
        session.error(f"fewer than {LEAST_TYPED} %: pyright --verifytypes amos_ref says which do not")


@nox.session
def docs(session: nox.Session) -> None:
    """The site, into build/site: its pages' examples are tested, its gallery runs, and a warning is an error."""
    session.install(*PINNED, "-e", ".[docs,test]")
    tools = ("tests/tools/test_slides.py", "tests/tools/test_lectures.py")
    session.run("pytest", "docs", "README.md", "tests/test_documents.py", "tests/test_examples.py", *tools)
    _build_site(session)
    _open_lectures(session)


def _build_site(session: nox.Session, built: list[bool] = []) -> None:  # noqa: B006 (once for all sessions of a run)
    if built:
        return
    for made in ("docs/api", "docs/gallery", "build/site", "build/doctrees"):
        shutil.rmtree(made, ignore_errors=True)
    session.run("sphinx-build", "-W", "--keep-going", "-d", "build/doctrees", "docs", "build/site")
    built.append(True)


def _open_lectures(session: nox.Session) -> None:
    """As a reader does who has pip and no clone: the site's wheel and notebooks, in a fresh environment."""
    with tempfile.TemporaryDirectory() as name:
        folder, pinned = pathlib.Path(name), ("-c", str(pathlib.Path("constraints.txt").resolve()))
        for file in pathlib.Path("build/site/lectures").glob("*.[iw]*"):
            shutil.copy(file, folder)
        [wheel] = folder.glob("*.whl")
        session.run("python", "-m", "venv", str(folder / "fresh"))
        with session.chdir(folder):
            install = ("-m", "pip", "install", "-q", *pinned, f"./{wheel.name}[plot,digits]", "nbclient", "ipykernel")
            session.run(str(folder / "fresh/bin/python"), *install, external=True)
            notebooks = sorted(file.name for file in folder.glob("*.ipynb"))
            session.run(str(folder / "fresh/bin/jupyter-execute"), *notebooks, external=True)


@nox.session
def ports(session: nox.Session) -> None:
    """Real, published ports, the authors' code and pytorch_optimizer, and what drives torch, optax and Keras."""
    session.install(*PINNED, "-e", ".[ports]")
    # jestimator does not import on today's JAX, and asks for old packages; its amos.py alone is loaded, by path.
    session.install("--no-deps", "jestimator==0.3.3", "zij==0.1.1")
    # Keras takes its backend from here where a test does not say another.
    session.run(
        "pytest", "-n", "auto", "tests/frameworks", "amos_ref/ports", *session.posargs, env={"KERAS_BACKEND": "jax"}
    )


@nox.session
def matrix(session: nox.Session) -> None:
    """How good the judge is: writes docs/matrix.md and docs/deviations.md (about ten minutes on two cores).

    Then the published ports: writes docs/ports.md; alone: nox -s matrix -- ports.
    """
    session.install(*PINNED, "-e", ".[ports]")
    session.install("--no-deps", "jestimator==0.3.3")
    if session.posargs != ["ports"]:
        session.run("python", "-m", "tools.judge_quality", *(session.posargs or ["docs"]))
    if session.posargs in ([], ["ports"]):
        session.run("python", "-m", "tools.published_ports", "docs")


@nox.session
def bench(session: nox.Session) -> None:
    """The figures of docs/performance.md, with every peer (about six minutes); or nox -s bench -- --quick.

    On a GPU: nox -s bench -- --backend cuda.
    """
    on_gpu = any("cuda" in option for option in session.posargs)
    wanted = (*TOOLKIT, "-e", ".[bench,cuda]", "jax[cuda13]") if on_gpu else ("-e", ".[bench]")
    session.install(*PINNED, *wanted)
    session.install("--no-deps", "jestimator==0.3.3")
    command = ("python", "-m", "amos_ref", "bench")
    if session.posargs:
        session.run(*command, *session.posargs)
        return
    path = pathlib.Path("docs/performance.json")
    # So that a run that fails leaves the figures that are there.
    with tempfile.NamedTemporaryFile("w+", encoding="utf-8") as output:
        session.run(*command, "--json", "--plot", "docs/_static/roofline.png", stdout=output, stderr=None)
        keep = (
            "from sys import argv; from amos_ref.storage.files import write_file as w; w(argv[1], open(argv[2]).read())"
        )
        session.run("python", "-c", keep, str(path), output.name)
    session.run(*command, "--from", str(path))


@nox.session
def long(session: nox.Session) -> None:
    """A million steps, ten thousand random cases, and no false name (about five minutes; --whole takes hours)."""
    session.install(*PINNED, "-e", ".[test]")
    session.run("pytest", "-s", "tests/long", *session.posargs)


@nox.session
def elsewhere(session: nox.Session) -> None:
    """What a user does as on Windows and macOS, in other locales and in odd places (docs/platforms.md; one minute)."""
    session.install(*PINNED, "-e", ".[test]")
    session.run("pytest", "tests/elsewhere", *session.posargs)
    lacking = {"AMOS_REF_ELSEWHERE": "windows", "PYTHONPATH": "tests/helpers/elsewhere"}
    session.run("pytest", *CORE, *session.posargs, env=lacking)


@nox.session
def exact(session: nox.Session) -> None:
    """The pages beside exact arithmetic: the tables of docs/bits.md (about a quarter of an hour)."""
    session.install(*PINNED, "-e", ".[test]")
    for tool in ("tools/exactness.py", "tools/closed_exactness.py"):
        session.run("python", tool, *(session.posargs or ["20000"]))


@nox.session
def explorer(session: nox.Session) -> None:
    """The site and the explorer in a headless browser: Chromium or Chrome on the path, or else Playwright's own."""
    session.install(*PINNED, "-e", ".[docs,explorer]")
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        try:
            session.run("playwright", "install", "chromium")
        except CommandFailed:
            session.error("There is no Chromium on the path (Debian: apt-get install chromium) and none to download.")
    _build_site(session)
    session.run("pytest", "-n", "auto", "tests/explorer", "tests/site", *session.posargs, env=SITE)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Every Hypothesis test with fresh examples: nox -s fuzz -- 10000."""
    session.install(*PINNED, "-e", ".[test]")
    examples = session.posargs[0] if session.posargs else "2000"
    session.run("pytest", "tests", *APART, "-k", "not examples", env={"AMOS_REF_EXAMPLES": examples})


@nox.session
def atheris(session: nox.Session) -> None:
    """Fuzzing that looks for new code to reach, a minute for each target: nox -s atheris -- SECONDS [TARGET ...]."""
    session.install(*PINNED, "-e", ".[test]", "atheris")
    seconds, *names = session.posargs or ["60"]
    names = names or sorted(path.name for path in pathlib.Path("tests/corpus").iterdir())
    for name in names:
        session.run("python", "tools/fuzz.py", name, f"-max_total_time={seconds}", "-timeout=30", "-max_len=8000")


@nox.session
def cuda(session: nox.Session) -> None:
    """The CUDA kernels without a GPU: Numba's simulator, and the code that the compiler makes (about five minutes)."""
    session.install(*TOOLKIT, "-e", ".[test]")
    session.run("python", "tests/kernels/cuda/compile_check.py", "80", "90")
    session.run("pytest", "-n", "auto", "tests/kernels/cuda", *session.posargs, env={"NUMBA_ENABLE_CUDASIM": "1"})


@nox.session
def mpi(session: nox.Session) -> None:
    """Parameters over the ranks of MPI: real ranks as processes, and ranks as threads."""
    session.install(*PINNED, "-e", ".[test,mpi]", "mpich")
    session.run("pytest", "tests/mpi", "docs/distributed.md", *session.posargs, env={"AMOS_REF_MPI": "needed"})


@nox.session
def gpu(session: nox.Session) -> None:
    """The CUDA kernels on a GPU, compiled as nox -s cuda checks it; where there is none, this says why."""
    session.install(*TOOLKIT, "-e", ".[test]")
    session.run("python", "tests/gpu/run.py", *session.posargs)


@nox.session
def oldest(session: nox.Session) -> None:
    """The oldest supported versions of everything."""
    session.install(*OLDEST, "-e", ".[test]")
    session.run("pytest", "tests", *APART)


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def pythons(session: nox.Session) -> None:
    """Each supported Python that is on the path."""
    session.install("-e", ".[test]")
    session.run("pytest", "tests", *APART)


@nox.session
def build(session: nox.Session) -> None:
    """Wheel and sdist: small, the same bytes twice, and the wheel alone checks ports; what a port's CI runs."""
    session.install("build")
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        files = []
        for folder in (first, second):
            session.run("python", "-m", "build", "--outdir", folder, silent=True)
            files.append(sorted(pathlib.Path(folder).iterdir()))
        for one, other in zip(*files, strict=True):
            if one.read_bytes() != other.read_bytes():
                session.error(f"{one.name} differs between two builds")
            if one.stat().st_size > LARGEST:
                session.error(f"{one.name} has {one.stat().st_size} bytes, more than {LARGEST}")
            session.log(f"{one.name}: {one.stat().st_size} bytes, the same twice")
            session.run("python", "-m", "zipfile" if one.suffix == ".whl" else "tarfile", "-l", str(one))
        _check_ports_with(session, next(f for f in files[0] if f.suffix == ".whl"), pathlib.Path(second))
    session.install(*PINNED, "-e", ".[test]", "pre-commit")
    session.run("pytest", "tests/test_ci_examples.py")


def _check_ports_with(session: nox.Session, wheel: pathlib.Path, folder: pathlib.Path) -> None:
    """As a porter does: `pip install WHEEL` in a fresh environment, then a port that conforms and one that departs."""
    right = pathlib.Path("examples/ports/amos_numpy.py").read_text(encoding="utf-8")
    (folder / "right.py").write_text(right, encoding="utf-8")
    (folder / "wrong.py").write_text(right.replace("/ 2 + extra_l2", "/ 2 - extra_l2"), encoding="utf-8")
    session.run("python", "-m", "venv", str(folder / "fresh"))
    session.run(str(folder / "fresh/bin/python"), "-m", "pip", "install", "-q", str(wheel), external=True)
    command = (str(folder / "fresh/bin/amos-ref"), "check")
    with session.chdir(folder):
        session.run(*command, external=True, silent=True)
        session.run(*command, "right.py:step", external=True)
        reports = ("--junit-xml", "wrong.xml", "--markdown", "wrong.md", "--json")
        data = json.loads(
            str(session.run(*command, "wrong.py:step", *reports, external=True, silent=True, success_codes=[1]))
        )
        found = data["diagnosis"]["deviations"], "<failure" in pathlib.Path("wrong.xml").read_text(encoding="utf-8")
        if found != (["extra_l2-sign"], True) or not pathlib.Path("wrong.md").read_text(encoding="utf-8"):
            session.error(f"the reports of a port with extra_l2's sign wrong say {found}")
