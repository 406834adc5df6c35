"""The command line: one verb, one function; errors and exit codes in one place."""
