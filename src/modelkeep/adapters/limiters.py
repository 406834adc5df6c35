"""Opens what gateways count limits with, as `[limiter]` of modelkeep.toml says."""

from __future__ import annotations

from pathlib import Path

from modelkeep.adapters.keysources import secret_of
from modelkeep.adapters.limiter_fallback import FallbackLimiter
from modelkeep.adapters.limiter_shared import SharedLimiter
from modelkeep.core.errors import UsageError, extra_hint
from modelkeep.core.reference import parsed_secret_reference
from modelkeep.gate.limit_settings import LimiterSettings
from modelkeep.ports.limiter import Limiter


def opened_limiter(settings: LimiterSettings, *, path: Path, keep: str) -> Limiter:
    """One worker's access; to be called inside the loop that it serves.

    Args:
        path: of this machine's file; it stays when the service stops.
        keep: tells the keeps of one Redis apart.

    Raises:
        UnavailableError: `gate.limiter`.
        IntegrityError: `limits.file`.
        UsageError: `extra.missing`.
    """
    if not settings.redis:
        return SharedLimiter(path)
    try:
        from modelkeep.adapters.limiter_redis import RedisLimiter  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(
            "extra.missing",
            "limits over several machines need the extra `redis`",
            hint=extra_hint("redis"),
        ) from error
    password = None
    if settings.password:
        password = secret_of(parsed_secret_reference(settings.password))
    shared = RedisLimiter(settings, prefix=f"modelkeep:{keep}", password=password)
    if settings.away == "refuse":
        return shared
    local = SharedLimiter(path)
    return FallbackLimiter(shared, local, share=settings.share)
