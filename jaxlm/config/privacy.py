"""The section `prepare.privacy`: addresses and numbers that lead to a person."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt

from jaxlm.config.rules import Rules

PrivateKind = Literal["email", "ip", "phone", "credit_card", "secret", "national_id"]


def _known(region: str) -> str:
    from phonenumbers import SUPPORTED_REGIONS

    if region not in SUPPORTED_REGIONS:
        raise ValueError(f"{region!r} is no region with telephone numbers (US, GB, CN, ...)")
    return region


class Privacy(Rules):
    """Replaces e-mail addresses by [EMAIL_ADDRESS], IP addresses by [IP_ADDRESS], telephone numbers
    by [PHONE_NUMBER], by choice also [CREDIT_CARD], [SECRET] and [NATIONAL_ID]. Documents with more
    than `max_spans` of them are dropped, as in Dolma (Soldaini et al. 2024)."""

    find: Annotated[tuple[PrivateKind, ...], Field(min_length=1)] = ("email", "ip", "phone")
    """What is looked for. credit_card: with Luhn's check digit; secret: keys and tokens of known
    forms, private keys; national_id: numbers of social security (US) and national insurance (GB),
    identity cards (CN) with their check digit."""
    regions: tuple[Annotated[str, AfterValidator(_known)], ...] = ("US",)
    """ISO 3166 codes of the countries whose telephone numbers are found without +COUNTRY."""
    private_ips: bool = False
    """Also IP addresses that are not public: of local networks, loopback, documentation."""
    max_spans: NonNegativeInt | None = 5
    """Places in a document, at most."""
