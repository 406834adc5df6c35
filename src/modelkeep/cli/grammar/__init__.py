"""The grammar of the command line, a file per group of verbs."""
