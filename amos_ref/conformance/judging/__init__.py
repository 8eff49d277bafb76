"""Whether a port conforms: cases driven, bounds derived, verdicts given."""
