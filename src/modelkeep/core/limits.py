"""Every bound that is not a setting, with its unit and its reason."""

from __future__ import annotations

# Names of objects in a store: hex digests, tile paths and series numbers need under 100 bytes.
OBJECT_NAME_BYTES_MAX = 200
# One object in a store: packs aim at 16 MiB; a single put stays far under S3's 5 GiB.
OBJECT_BYTES_MAX = 256 * 1024 * 1024
# Plaintext of one AEAD segment. 1 and 4 MiB decrypt at the same speed (design page, section 7);
# 4 MiB keeps the index a quarter of the size.
SEGMENT_BYTES_MAX = 4 * 1024 * 1024
# Where a pack is closed: one fsync for 16 MiB costs under 2 % of writing it.
PACK_BYTES_TARGET = 16 * 1024 * 1024
# GPT-class models list about 1,500 tensors a shard; 1,000,000 bounds a hostile header.
TENSORS_MAX = 1_000_000
# ONNX and NumPy allow 32-64; a header that claims more is hostile.
TENSOR_RANK_MAX = 64
# Model names appear in URLs, object names and metric labels.
MODEL_NAME_CHARS_MAX = 100
# A verdict is read by a person: past a hundred findings only the gravest matter.
FINDINGS_MAX = 100
# A numbered series: 12 digits hold one number a second for 30,000 years.
SERIES_DIGITS = 12
# modelkeep.toml: ours is 3 kB.
CONFIG_BYTES_MAX = 1024 * 1024
# A passphrase is typed or stands alone in a file.
PASSPHRASE_BYTES_MAX = 4096
# A control entry's body: facts, never content.
ENTRY_BODY_BYTES_MAX = 64 * 1024
KEYHOLDER_MESSAGE_BYTES_MAX = 32 * 1024 * 1024  # a ring of 100,000 domains has 10 MB
# Members of a zip archive whose layout is read: torch writes one per storage, and one costs about
# a kilobyte and ten microseconds.
ARCHIVE_MEMBERS_MAX = 200_000
