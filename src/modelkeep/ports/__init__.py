"""What we need from the world, each port with its promises in the docstring."""
