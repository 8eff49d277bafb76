"""Updates added to parameters."""

from typing import Any

import numpy as np

from amos_ref import tree
from amos_ref.checks import check_array, check_shape
from amos_ref.dtypes import round_like
from amos_ref.float_mode import check_mode


def apply_updates(params: Any, updates: Any) -> Any:
    """Return new parameters: ``theta + delta`` in float64, rounded once to the parameter's dtype.

    Parameters
    ----------
    params : tree of arrays
    updates : tree like `params`
        What :meth:`amos_ref.Amos.update` returned.

    Raises
    ------
    TreeError, DtypeError, ShapeError
        If `updates` is no tree of float arrays like `params`.
    FloatModeError
        If the processor does not compute as IEEE 754 says.
    """
    check_mode()
    thetas = tree.present(params)
    given = {name: u for name, u in tree.flatten(updates, "updates").items() if u is not None or name in thetas}
    deltas = tree.match(given, thetas, "updates")
    new = {}
    for name, theta in thetas.items():
        check_array(theta, f"params leaf {name!r}")
        delta = check_array(deltas[name], f"update of leaf {name!r}")
        check_shape(delta, theta.shape, f"update of leaf {name!r}")
        with np.errstate(all="ignore"):
            new[name] = round_like(theta.astype(np.float64) + delta.astype(np.float64), theta)
    return tree.unflatten(new, params)
