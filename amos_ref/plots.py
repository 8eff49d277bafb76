"""Pictures of schedules, trainings and measurements; matplotlib draws them (``pip install 'amos_ref[plot]'``).

Every function draws into `ax`, or into a new figure that pyplot does not know of, and returns the Axes. Lines differ
in style and marker as well as in colour.
"""

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.closed_form import Schedule, steps
from amos_ref.errors import HyperParameterError, MissingDependencyError, StorageError
from amos_ref.options import check_options
from amos_ref.result import History
from amos_ref.storage.files import reserve_file

#: Name -> options of :class:`amos_ref.closed_form.Schedule`; each closed form is followed by its recurrence.
FAMILIES: dict[str, dict[str, Any]] = {
    "inverse-time": dict(decay="inverse-time"),
    "falling p": dict(decay="recurrence", p_t="falling"),
    "inverse-square": dict(decay="inverse-square"),
    "constant p": dict(decay="recurrence", p_t="constant"),
}
PAPER = "paper"
ENDINGS = (".pdf", ".png", ".svg")  # of a picture's name, which say its format
MOST_CLOCK_STEPS = 1_000_000  # of the paper's clock, which has no closed form and is iterated

# Colours of Okabe and Ito that differ in lightness too, as do the greys that they print as.
_STYLES: tuple[dict[str, Any], ...] = (
    dict(color="#000000", linestyle="-"),
    dict(color="#D55E00", linestyle="--"),
    dict(color="#0072B2", linestyle="-."),
    dict(color="#009E73", linestyle=":"),
    dict(color="#CC79A7", linestyle=(0, (8, 2, 1, 2, 1, 2))),
)
_MARKERS = "os^Dv<P"
_ROOF: dict[str, Any] = dict(color="#A0A0A0", linewidth=6)
_FAMILY_STYLES: dict[str, dict[str, Any]] = {
    "closed form 1 / (1 + 2 alpha_0 p_0 t)": dict(color="#A0A0A0", linewidth=6),
    "its recurrence, p falling": dict(color="#000000", linestyle="none", marker="o", markersize=4),
    "closed form 1 / (1 + alpha_0 p_0 t)^2": dict(color="#C5E4F7", linewidth=6),
    "its recurrence, p constant": dict(color="#0072B2", linestyle="none", marker="x", markersize=5),
    "paper Amos, |g| constant, xi = alpha_0": dict(color="#D55E00", linestyle="--", linewidth=2),
}


def paper_rates(t: Any, xi: float = 0.01, eta: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Return alpha and rho of paper Amos after t steps, for gradients of constant size.

    For such gradients (1 - beta^t) g^2 / v is 1. So gamma = c xi^2, alpha = d xi in units of eta / |g|, and
    rho = d gamma / 2.

    Parameters
    ----------
    t : int or array of int
        How many steps were taken, from 0 to 1,000,000.
    xi, eta : float
        The learning rate, >= 0, and the scale, > 0.

    Returns
    -------
    alpha, rho : array of float64
        Of the shape of t.

    Examples
    --------
    >>> from amos_ref import plots
    >>> alpha, rho = plots.paper_rates([0, 1000], xi=0.1, eta=0.5)
    >>> alpha.round(4), rho.round(6)
    (array([0.1   , 0.0073]), array([5.0e-03, 8.4e-05]))
    """
    wanted = steps(t, whole=True).astype(np.int64)
    most = int(wanted.max(initial=0))
    if most > MOST_CLOCK_STEPS:
        raise HyperParameterError(f"t is {most}; the paper's clock is iterated for at most {MOST_CLOCK_STEPS} steps")
    o = check_options(learning_rate=xi, eta=eta)
    xi, b, rates = o["learning_rate"], 0.0, np.empty((2, most + 1))
    for n in range(most + 1):
        gamma = spec.growth(spec.decay_factor_c(b, xi, 0.25), xi, 1.0, 1.0)
        d = spec.decay_factor_d(b, xi, eta, 0.25)
        rates[:, n] = spec.step_size(d, xi, 1.0, 1.0), spec.weight_decay(d, gamma, 0.0)
        b = spec.grown(b, gamma)
    return rates[0, wanted], rates[1, wanted]


def rates(t: Any, alpha_0: float = 0.01, eta: float = 0.5, **options: Any) -> dict[str, tuple[Any, Any]]:
    """Return (alpha_t, rho_t) of five schedules: the closed forms, their recurrences, and paper Amos with xi = alpha_0.

    alpha_t is in units of |eps_0| / |u_t|, and that of paper Amos in units of eta / |g|.

    Parameters
    ----------
    t : int or array of int
        How many steps were taken, from 0 to 1,000,000.
    alpha_0, eta : float
        The size of the first step, and the scale of paper Amos.
    **options
        `half_life` or `p_0`, and `q`, as for :class:`amos_ref.closed_form.Schedule`.

    Returns
    -------
    dict of str to (array, array)
        alpha_t and rho_t by the name of the schedule.

    Examples
    --------
    >>> from amos_ref import plots
    >>> alpha, rho = plots.rates([0, 100], alpha_0=0.1, half_life=100)["inverse-time"]
    >>> alpha, rho
    (array([0.1 , 0.05]), array([0.005 , 0.0025]))
    """
    plans = {name: Schedule(alpha_0=alpha_0, **options, **family) for name, family in FAMILIES.items()}
    return {name: (plan.alpha(t), plan.rho(t)) for name, plan in plans.items()} | {PAPER: paper_rates(t, alpha_0, eta)}


def schedules(quantity: str = "alpha", last: int = 100_000, ax: Any = None, **options: Any) -> Any:
    """Draw alpha_t or rho_t over t = 1, 2, ... on logarithmic axes.

    Parameters
    ----------
    quantity : {"alpha", "rho"}
        What is drawn.
    last : int
        The last t, from 1 to 1,000,000.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default into a new figure.
    **options
        The options of :func:`rates`.

    Examples
    --------
    >>> from amos_ref import plots
    >>> ax = plots.schedules("rho", last=1000, half_life=100)
    >>> len(ax.get_lines())
    5
    """
    if quantity not in ("alpha", "rho"):
        raise HyperParameterError(f"quantity is {quantity!r}; it must be 'alpha' or 'rho'")
    if isinstance(last, bool) or not isinstance(last, int | np.integer) or not 1 <= last <= MOST_CLOCK_STEPS:
        raise HyperParameterError(f"last is {last!r}; it must be an integer from 1 to {MOST_CLOCK_STEPS}")
    t = np.unique(np.geomspace(1, last, 200).round().astype(np.int64))
    ax = _axes(ax)
    for pair, (label, style) in zip(rates(t, **options).values(), _FAMILY_STYLES.items(), strict=True):
        ax.plot(t, pair[quantity == "rho"], label=label, markevery=0.05, **style)
    titles = {"alpha": "step size alpha_t (the paper's falls as d)", "rho": "weight decay rho_t (the paper's as c d)"}
    units = {"alpha": "units of |eps_0| / |u_t|, of the paper's eta / |g|", "rho": "fraction of theta_t"}
    ax.set(xscale="log", yscale="log", xlabel="step t", ylabel=units[quantity], title=titles[quantity])
    return _finish(ax)


def errors(history: History, schedule: Schedule, ax: Any = None, label: str = "closed-form") -> Any:
    """Draw the distance to the optimum, both as measured and as the derivation predicts it: |eps_0| exp(-S_t).

    Parameters
    ----------
    history : History
        The history of a training whose optimum is known.
    schedule : closed_form.Schedule
        The ``schedule`` of the ClosedFormAmos that was trained with.
    ax : matplotlib.axes.Axes, optional
    label : str
        The name of the training.
    """
    if not history.error:
        raise HyperParameterError("the history has no distances, since no optimum was known")
    t = np.array(history.step)
    ax = _axes(ax)
    predicted = history.error[0] * np.sqrt(schedule.shrink(t))
    ax.plot(t, history.error, label=f"{label}, measured", **_next_style(ax, t))
    ax.plot(t, predicted, label=f"{label}, predicted", **_next_style(ax, t))
    ax.set(yscale="log", xlabel=_label_steps(t), ylabel="|theta_t - theta*|", title="distance to the optimum")
    ax.margins(y=0.2)
    return _finish(ax)


def losses(histories: Mapping[str, History], best: float = 0.0, ax: Any = None) -> Any:
    """Draw how far the losses of trainings are above `best`.

    Nothing is drawn below 2^-52 of a training's first loss, because a difference of losses there is mere rounding.

    Parameters
    ----------
    histories : mapping of str to History
        The trainings by name.
    best : float
        The loss at the optimum or reference.
    ax : matplotlib.axes.Axes, optional
    """
    ax = _axes(ax)
    for name, history in histories.items():
        floor = 2.0**-52 * abs(history.loss[0]) if history.loss else 0.0
        above = np.maximum(np.array(history.loss) - best, floor)
        ax.plot(history.step, above, label=name, **_next_style(ax, history.step))
    steps_taken = _label_steps(*(history.step for history in histories.values()))
    ax.set(yscale="log", xlabel=steps_taken, ylabel="loss - reference", title="loss above the reference")
    ax.margins(y=0.2)
    return _finish(ax)


def speeds(report: Mapping[str, Any], ax: Any = None) -> Any:
    """Draw how many parameters a second are stepped, over the size of the array, as ``amos-ref bench`` measured it.

    The roof, which is what the memory allows, is drawn over them. Workloads that differ only in size belong together.
    The largest such group is drawn, and the title names it.

    Parameters
    ----------
    report : mapping
        What ``amos-ref bench --json`` prints.
    ax : matplotlib.axes.Axes, optional
    """
    kinds: dict[tuple[Any, ...], list[Any]] = {}
    for work in report["workloads"]:
        if work["arrays"] == 1:
            kind = tuple(work[name] for name in ("dtype", "slot", "threads", "momentum", "state"))
            kind += (work.get("direction"),)
            kinds.setdefault(kind, []).append(work)
    ax = _axes(ax)
    (dtype, slot, threads, *_), works = max(kinds.items(), key=lambda kind: len(kind[1]), default=(("", "", ""), []))
    works = sorted(works, key=lambda work: work["parameters"])
    for name, style in _contender_styles(report).items():
        records = [(work["parameters"], record) for work in works for record in work["results"]]
        points = [(n, 1 / record["ns_per_parameter"]) for n, record in records if record["contender"] == name]
        if points:
            ax.plot(*zip(*points, strict=True), label=_name_roof(report) if name == "roof" else name, **style)
    ax.set(xscale="log", yscale="log", xlabel="parameters of the array", ylabel="billion parameters a second")
    ax.set(title=f"one {dtype} array, {slot} slots, {f'{threads} threads' if threads != 0 else 'on a GPU'}")
    return _finish(ax)


def over_roof(report: Mapping[str, Any], ax: Any = None) -> Any:
    """Draw how many times as long as the roof each contender takes, with a row for each workload.

    Parameters
    ----------
    report : mapping
        What ``amos-ref bench --json`` prints.
    ax : matplotlib.axes.Axes, optional
    """
    ax = _axes(ax)
    works = list(reversed(report["workloads"]))
    for name, style in _contender_styles(report).items():
        records = [(record, place) for place, work in enumerate(works) for record in work["results"]]
        points = [(record["of_roof"], place) for record, place in records if record["contender"] == name]
        if points and name != "roof":
            ax.plot(*zip(*points, strict=True), label=name, **style | dict(linestyle="none"))
    roof = _name_roof(report)
    ax.axvline(1.0, label=roof, zorder=1, **_ROOF)
    ax.set_yticks(range(len(works)), [work["label"].replace(", ", "\n", 1) for work in works], fontsize=6)
    ax.set(xscale="log", xlabel=f"time of a step / time of the {roof}", title=f"over the {roof}")
    return _finish(ax)


def _name_roof(report: Mapping[str, Any]) -> str:
    """Return the name of the roof in a report: on a GPU it is a copy."""
    return "copy" if "gpu" in report.get("machine", ()) else "roof"


def figure(width: float = 6.4, height: float = 4.8) -> Any:
    """Return an empty figure of this size in inches, which pyplot does not know of."""
    try:
        with _unset("MPLBACKEND") as backend:
            import matplotlib
            from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("plots need matplotlib: pip install 'amos_ref[plot]'") from None
    if backend is not None:
        with contextlib.suppress(ValueError):  # as a notebook's backend that is not here; these figures need none
            matplotlib.rcParams["backend"] = backend
    return Figure(figsize=(width, height), layout="constrained")


@contextlib.contextmanager
def picture(path: str | None, width: float, height: float) -> Iterator[Any]:
    """Yield a figure and write it to `path` when the block ends; without a path yield None.

    A path that cannot be written to is an error at the start. If the block fails, or matplotlib does, the old file is
    what it was.
    """
    if path is None:
        yield None
        return
    form = path.rpartition(".")[2].lower()
    if f".{form}" not in ENDINGS:
        raise StorageError(f"cannot draw {path!r}: its name must end in {', '.join(ENDINGS)}")
    drawing = figure(width, height)
    with reserve_file(path) as file:
        yield drawing
        content = io.BytesIO()  # a picture's writer may want to seek, and close
        try:
            _save(drawing, content, form)
        except Exception as error:
            raise StorageError(f"cannot draw {path!r}: {type(error).__name__}: {error}") from error
        file.write(content.getvalue())


def _save(drawing: Any, content: io.BytesIO, form: str) -> None:
    """Write a figure without TeX, which may not be there, and without a warning for each letter that no font has."""
    import matplotlib
    from matplotlib.text import Text

    with warnings.catch_warnings(), matplotlib.rc_context({"text.usetex": False}):
        warnings.simplefilter("ignore")
        for text in drawing.findobj(Text):
            text.set_usetex(False)
        drawing.savefig(content, format=form, dpi=120)


@contextlib.contextmanager
def _unset(name: str) -> Iterator[str | None]:
    """Take a variable out of the environment while matplotlib is imported, unless it is already; yield its value."""
    value = None if "matplotlib" in sys.modules else os.environ.pop(name, None)
    try:
        yield value
    finally:
        if value is not None:
            os.environ[name] = value


def _contender_styles(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the style of each contender of a benchmark, the same in every picture; the roof is drawn first."""
    names = [name for name in report["contenders"] if name != "roof"]
    marks = dict(markersize=7, markeredgecolor="white", linewidth=1.2)
    styles = [_STYLES[i % len(_STYLES)] | dict(marker=_MARKERS[i % len(_MARKERS)]) | marks for i in range(len(names))]
    if styles:
        styles[0] |= dict(linewidth=2.4, markersize=9)  # our own
    return {"roof": _ROOF, **dict(zip(names, styles, strict=True))}


def _axes(ax: Any) -> Any:
    return figure().add_subplot() if ax is None else ax


def _label_steps(*rows: Any) -> str:
    """Return the label of an axis of steps; it says if some are left out, since a line may hide what is between."""
    every = max((int(np.diff(t).max(initial=1)) for t in rows), default=1)
    return "steps taken" if every == 1 else f"steps taken, one in {every} drawn"


def _next_style(ax: Any, t: Any) -> dict[str, Any]:
    """Return the style of the next line; its markers are shifted, so that lines on each other can be told apart."""
    i, every = len(ax.get_lines()), max(len(t) // 10, 1)
    shape = dict(marker=_MARKERS[i % len(_MARKERS)], markersize=7, markeredgecolor="white", linewidth=1.2)
    return _STYLES[i % len(_STYLES)] | shape | dict(markevery=(i % 5 * every // 5, every))


def _finish(ax: Any) -> Any:
    ax.grid(color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
    for text in (ax.title, ax.xaxis.label, ax.yaxis.label, *ax.legend().get_texts()):
        text.set_parse_math(False)  # a name may hold two dollars
    return ax
