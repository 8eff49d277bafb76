"""The options of an optimizer, which stay as they were given."""

from collections.abc import Callable
from typing import Any, Self

from amos_ref.errors import HyperParameterError
from amos_ref.options import ReadOnlyOptions, check_options, freeze


class Configured:
    """Something made with options, which are read-only: as a mapping, ``options``, and as attributes.

    Parameters
    ----------
    **options
        Mappings and lists among them are copied.
    """

    def __init__(self, **options: Any) -> None:
        checked = check_options(**options)
        try:
            self._set(ReadOnlyOptions({name: freeze(value) for name, value in checked.items()}))
        except RecursionError:
            raise HyperParameterError("an option holds itself, or is nested too deeply") from None

    def _set(self, options: ReadOnlyOptions) -> None:
        self.__dict__["options"] = options

    @property
    def options(self) -> ReadOnlyOptions:
        """The options that the optimizer was made with, as a mapping that cannot be changed."""
        return self.__dict__["options"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.options.items())})"

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["options"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "options" or name in self.__dict__.get("options", ()):
            how = "set_learning_rate sets it" if name == "learning_rate" else "make another one, for the same state"
            raise HyperParameterError(f"{name} of an optimizer is read-only; {how}")
        super().__setattr__(name, value)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the options by name. ``sklearn.clone`` calls this to make another optimizer with the same options."""
        return dict(self.options)

    def set_params(self, **params: Any) -> Self:
        """Set options by name, as scikit-learn does, and return this optimizer.

        A state goes on to work if it fits the new options too. A step that was bound before must be bound again.

        Raises
        ------
        HyperParameterError
            If there is no such option, or a value is out of its range. Then nothing is changed.

        Examples
        --------
        >>> import amos_ref
        >>> amos_ref.Amos(0.1).set_params(beta=0.9).beta
        0.9
        """
        if unknown := [name for name in params if name not in self.options]:
            raise HyperParameterError(f"{type(self).__name__} has no {unknown[0]}, but {', '.join(self.options)}")
        other = type(self)(**{**self.options, **params})
        self.__dict__.clear()
        self.__dict__.update(other.__dict__)
        return self

    def set_learning_rate(self, learning_rate: float | Callable[[int], float]) -> None:
        """Set the learning rate that the next step uses. A recorded step uses it after the next call of ``advance``.

        Parameters
        ----------
        learning_rate : float or callable
            >= 0, or a schedule, which is called with the step t = 1, 2, ... and returns such a number.

        Raises
        ------
        HyperParameterError
            If it is out of its range, or if this optimizer has no learning rate. ClosedFormAmos has none, because its
            step size follows from its schedule and from sigma.

        Examples
        --------
        >>> import amos_ref
        >>> opt = amos_ref.Amos(learning_rate=0.1)
        >>> opt.set_learning_rate(0.05)
        >>> opt.learning_rate
        0.05
        """
        if "learning_rate" not in self.options:
            raise HyperParameterError(f"{type(self).__name__} has no learning_rate, but {', '.join(self.options)}")
        self._set(ReadOnlyOptions({**self.options, **check_options(learning_rate=learning_rate)}))
