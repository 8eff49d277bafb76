"""Measures how fast the kernels are on this machine, beside the memory's roof and other optimizers."""
