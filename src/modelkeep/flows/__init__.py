"""The stories: what happens, in which order, across capabilities and ports."""
