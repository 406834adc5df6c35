"""The nouns: records, digests, artifacts, verdicts, errors, limits."""
