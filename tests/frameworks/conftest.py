"""What pytest is not to import: Keras takes its backend from the environment of the process that imports it."""

collect_ignore = ["keras_amos.py"]
