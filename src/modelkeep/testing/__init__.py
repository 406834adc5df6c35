"""Contract suites per port, memory adapters, power cuts: shipped to prove adapters with."""
