"""What a port does instead: known deviations, and the search among them."""
