"""Updates added to parameters."""

from typing import Any

import numpy as np

from amos_ref import tree
from amos_ref.checks import check_array, check_shape
from amos_ref.dtypes import round_like
from amos_ref.float_mode import check_mode
from amos_ref.foreign import as_array, like_given


def apply_updates(params: Any, updates: Any) -> Any:
    """Return new parameters: ``theta + delta``, computed in float64 and rounded once to the parameter's dtype.

    Parameters
    ----------
    params : tree of arrays
        Of float16, bfloat16, float32 or float64. They are not changed.
    updates : tree like `params`
        What :meth:`amos_ref.Amos.update` returned.

    Returns
    -------
    tree like `params`
        New arrays, with the dtypes of `params`.

    Raises
    ------
    TreeError, DtypeError, ShapeError
        If `updates` is not a tree of float arrays like `params`.
    FloatModeError
        If the processor does not compute as IEEE 754 says.

    Examples
    --------
    >>> import numpy as np, amos_ref
    >>> amos_ref.apply_updates({"w": np.float16([1, 2])}, {"w": np.array([0.5, -0.25])})
    {'w': array([1.5 , 1.75], dtype=float16)}
    """
    check_mode()
    thetas = tree.present(params)
    given = {name: u for name, u in tree.flatten(updates, "updates").items() if u is not None or name in thetas}
    deltas = tree.match(given, thetas, "updates")
    new = {}
    for name, theta in thetas.items():
        given, theta = theta, check_array(as_array(theta, f"params leaf {name!r}"), f"params leaf {name!r}")
        delta = check_array(as_array(deltas[name], f"update of leaf {name!r}"), f"update of leaf {name!r}")
        check_shape(delta, theta.shape, f"update of leaf {name!r}")
        with np.errstate(all="ignore"):
            new[name] = like_given(round_like(theta.astype(np.float64) + delta.astype(np.float64), theta), given)
    return tree.unflatten(new, params)
