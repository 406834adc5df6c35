"""The primitives, thin over `cryptography`: secrets, AEAD, signatures, derivation, wrapping."""
