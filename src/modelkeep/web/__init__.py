"""HTTP surfaces: the gateway's protocols."""
