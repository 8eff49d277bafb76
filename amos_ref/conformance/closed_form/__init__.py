"""The closed form as the judge's machine takes it: cases, formulas, bounds."""
