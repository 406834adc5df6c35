"""Pure functions over bytes and arrays: tensor headers, arrays on the wire, hashing."""
