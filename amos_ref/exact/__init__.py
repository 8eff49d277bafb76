"""The oracle: both algorithms over the real numbers, from an independent reading of each.

:func:`step`, :func:`trajectory` and :func:`enclose` are paper Amos; :mod:`amos_ref.exact.closed_form` has the closed
form's, and its schedules. Every result is the float that is nearest to the real number; :mod:`amos_ref.exact.reals`
explains how that is found.
"""

from amos_ref.exact import closed_form
from amos_ref.exact.paper import enclose, step, trajectory
from amos_ref.exact.reals import FLOAT_FORMATS, nearest, ulp_error

__all__ = ["FLOAT_FORMATS", "closed_form", "enclose", "nearest", "step", "trajectory", "ulp_error"]
