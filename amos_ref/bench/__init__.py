"""Measuring here, in one run: the kernels, the roof of the memory, and other optimizers (``amos-ref bench``)."""
