"""Admission: pickles, archives, tensors, graphs."""
