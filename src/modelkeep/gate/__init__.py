"""One call: its state table, authentication, authorisation, schema, limits, balancing decisions."""
