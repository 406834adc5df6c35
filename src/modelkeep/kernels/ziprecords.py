"""Records of a zip archive's structure: APPNOTE.TXT, section 4.3."""

from __future__ import annotations

import struct

END = struct.Struct("<4s4H2LH")
END64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR = struct.Struct("<4sLQL")
ENTRY = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")
END_MAGIC = b"PK\x05\x06"
END64_MAGIC = b"PK\x06\x06"
LOCATOR_MAGIC = b"PK\x06\x07"
ENTRY_MAGIC = b"PK\x01\x02"
LOCAL_MAGIC = b"PK\x03\x04"
COMMENT_BYTES_MAX = 0xFFFF
# Readers take the last end record that fits; a hostile comment may imitate thousands.
END_PLACES_MAX = 16
FULL32 = 0xFFFFFFFF
FULL16 = 0xFFFF
