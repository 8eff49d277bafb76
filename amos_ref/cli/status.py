"""The exit statuses of the command line."""

OK = 0  # done, or the port conforms
DEPARTS = 1
USAGE = 2  # or bad input
MISSING = 3  # something that is needed is not installed
INTERRUPTED = 130
