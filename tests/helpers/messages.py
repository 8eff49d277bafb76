"""What every error message must be."""


def one_line(error, parts):
    message = str(error)
    assert "\n" not in message
    # A number is shown as itself, not as NumPy's repr of a scalar.
    assert "np.float64" not in message
    assert [part for part in parts if part not in message] == []
