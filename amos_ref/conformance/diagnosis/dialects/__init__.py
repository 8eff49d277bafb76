"""Published readings of Amos, each a named set of deviations: the files beside this one."""

import functools
import importlib.resources
import tomllib
from typing import NamedTuple

from amos_ref.conformance.diagnosis.catalogue import in_order


class Dialect(NamedTuple):
    """A published reading.

    Attributes
    ----------
    name : str
        Of the package, with the versions that read so.
    about : str
        Where it is and how it was found.
    deviations : list of str
    algorithm : str
        Which algorithm's.
    """

    name: str
    about: str
    deviations: list[str]
    algorithm: str = "paper"

    @property
    def names(self) -> tuple[str, ...]:
        """The deviations in the catalogue's order."""
        return in_order(self.deviations, self.algorithm)


@functools.cache
def dialects() -> tuple[Dialect, ...]:
    """Return all published readings."""
    files = importlib.resources.files(__name__).iterdir()
    texts = [f.read_text(encoding="utf-8") for f in sorted(files, key=lambda f: f.name) if f.name.endswith(".toml")]
    return tuple(Dialect(**tomllib.loads(text)) for text in texts)
