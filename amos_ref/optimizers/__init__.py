"""The optimizers: one base, and a file for each member of the family."""
