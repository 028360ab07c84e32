"""Whether SIORG answers, and which of the known ones is asked."""

from __future__ import annotations

from siorg_job.doctor.findings import Finding, error, ok
from siorg_job.settings import FIRST_WORKERS, OPEN_DATA, Settings
from siorg_job.siorg.errors import AccessRefused, SiorgError
from siorg_job.siorg.model import DomainTable
from siorg_job.siorg.rate_limiter import Unlimited
from siorg_job.siorg_session import breaker_for, client_for


def which(settings: Settings) -> str:
    """What is known of the address that is asked."""
    token = "with a token" if settings.siorg_api_token else "without a token"
    if settings.siorg_api_url.startswith(OPEN_DATA.removesuffix("/doc")):
        return f"the public open-data service, {token}"
    if settings.siorg_api_url.startswith(FIRST_WORKERS):
        return f"the first worker's address and the default, {token}; it wants one, and no answer of it was ever captured"
    return f"neither the public open-data service nor the default, {token}"


async def ask(settings: Settings) -> Finding:
    """Ask one small question."""
    asked = f"{settings.siorg_api_url} ({which(settings)})"
    async with client_for(settings, Unlimited(), breaker_for(settings)) as client:
        try:
            await client.domain(DomainTable.SPHERE)
        except SiorgError as failed:
            remedy = f"the public open-data service asks for no token: SIORG_API_URL={OPEN_DATA}"
            return error(
                f"SIORG: {asked}: {failed}",
                remedy if settings.siorg_api_url == FIRST_WORKERS else "",
                may_pass=not isinstance(failed, AccessRefused),
            )
    return ok(f"SIORG answers at {asked}")
