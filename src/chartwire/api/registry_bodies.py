"""Bodies of the registry's routes: what is sent is normalised to the model, what is answered is made from it."""

from collections.abc import Callable
from datetime import date, datetime
from functools import partial
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    StrictBool,
    StringConstraints,
    model_validator,
)

from chartwire.api.models import ApiModel, Omittable
from chartwire.clock import iso
from chartwire.model import demographics as rules
from chartwire.model.registry import (
    Address,
    Contact,
    Demographics,
    Facility,
    Gender,
    IdentifierType,
    Organization,
    OrganizationType,
    Patient,
    PersonalIdentifier,
    etag,
)


def _none_if_blank(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _as_list(value: object) -> object:
    """Clients of 2023 send one address and one contact where later ones send lists."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _without_empty(value: object) -> object:
    """Clients fill forms with identifiers that have no value."""
    if not isinstance(value, list):
        return [] if value is None else value
    return [item for item in value if not (isinstance(item, dict) and _none_if_blank(item.get("value", "")) is None)]


def _state_of(allowed: frozenset[str]) -> Callable[[str], str]:
    return partial(rules.normalise_state, allowed=allowed)


_LONGEST_TEXT = 1000
"""Characters. No name or address comes near it, and comparing two texts costs time by the product of their lengths."""

ShortText = Annotated[str, StringConstraints(strip_whitespace=True, max_length=_LONGEST_TEXT)]
Text = Annotated[ShortText, StringConstraints(min_length=1)]
OptionalText = Annotated[ShortText | None, BeforeValidator(_none_if_blank)]
TwoLetters = Field(json_schema_extra={"pattern": r"^\s*[A-Za-z]{2}\s*$"}, examples=["CA"])
AddressState = Annotated[str, AfterValidator(_state_of(rules.STATES | rules.TERRITORIES)), TwoLetters]
LicenseState = Annotated[str, AfterValidator(_state_of(rules.STATES)), TwoLetters]
Zip = Annotated[
    str,
    Field(
        coerce_numbers_to_str=True,
        json_schema_extra={"pattern": r"^[^0-9]*([0-9][^0-9]*){5}$"},
        description="Five digits, and not an invented one as 00000",
        examples=["95482"],
    ),
    AfterValidator(rules.normalise_zip),
]
Phone = Annotated[
    str,
    Field(
        coerce_numbers_to_str=True,
        json_schema_extra={"pattern": r"^[^0-9]*(1[^0-9]*)?([0-9][^0-9]*){10}$"},
        description="Ten digits; a country code 1 is dropped",
        examples=["7075550100"],
    ),
    AfterValidator(rules.normalise_phone),
]
Email = Annotated[str, AfterValidator(rules.check_email), Field(json_schema_extra={"format": "email"})]
BirthDate = Annotated[
    str,
    AfterValidator(rules.check_birth_date),
    Field(json_schema_extra={"format": "date"}, description="1900 or later", examples=["1980-02-03"]),
]
Npi = Annotated[
    str,
    AfterValidator(rules.check_npi),
    Field(
        json_schema_extra={"pattern": "^[12][0-9]{9}$"},
        description="National Provider Identifier with a right check digit",
        examples=["1234567893"],
    ),
]
Moment = Annotated[datetime, PlainSerializer(iso, return_type=str)]


# --- what is sent -----------------------------------------------------------------------------------------------------


class AddressBody(ApiModel):
    """A US address."""

    address_line1: Text
    address_line2: OptionalText = None
    city: Text
    state: AddressState = Field(description="A state, DC, AS, GU, PR or VI")
    zip: Zip
    country: Literal["USA"] = "USA"

    def to_model(self) -> Address:
        """The address."""
        return Address(self.address_line1, self.city, self.state, self.zip, self.address_line2, self.country)


Addresses = Annotated[list[AddressBody], Field(min_length=1)]


class ContactBody(ApiModel):
    """A phone number, an e-mail address, or both."""

    phone: Phone | None = None
    email: Email | None = None

    @model_validator(mode="after")
    def _has_something(self) -> Self:
        if self.phone is None and self.email is None:
            raise ValueError("Either email or phone must be present")
        return self


class PeriodBody(ApiModel):
    """From when until when, either end open."""

    start: Omittable[ShortText] = None
    end: Omittable[ShortText] = None


class PersonalIdentifierBody(ApiModel):
    """A driver's licence, with its state, or a social security number."""

    type: IdentifierType
    value: Text
    state: LicenseState | None = None
    period: PeriodBody | None = None
    assigner: ShortText | None = None

    @model_validator(mode="after")
    def _license_has_a_state(self) -> Self:
        if self.type is IdentifierType.DRIVERS_LICENSE and self.state is None:
            raise ValueError("A driversLicense needs a state")
        return self

    def to_model(self) -> PersonalIdentifier:
        """The identifier; a social security number has no state."""
        period = self.period or PeriodBody()
        state = self.state if self.type is IdentifierType.DRIVERS_LICENSE else None
        return PersonalIdentifier(self.type, self.value, state, period.start, period.end, self.assigner)


class DemographicsBody(ApiModel):
    """Who a patient is."""

    first_name: Text = Field(description="Several names are separated by commas or spaces")
    last_name: Text
    dob: BirthDate
    gender_at_birth: Gender
    address: Annotated[Addresses, BeforeValidator(_as_list, json_schema_input_type=Addresses | AddressBody)]
    contact: Annotated[
        tuple[ContactBody, ...],
        BeforeValidator(_as_list, json_schema_input_type=list[ContactBody] | ContactBody | None),
    ] = ()
    personal_identifiers: Annotated[
        tuple[PersonalIdentifierBody, ...],
        BeforeValidator(_without_empty, json_schema_input_type=list[PersonalIdentifierBody] | None),
    ] = ()

    def to_model(self) -> Demographics:
        """The demographics."""
        return Demographics(
            first_name=self.first_name,
            last_name=self.last_name,
            dob=date.fromisoformat(self.dob),
            gender_at_birth=self.gender_at_birth,
            address=tuple(place.to_model() for place in self.address),
            contact=tuple(Contact(entry.phone, entry.email) for entry in self.contact),
            personal_identifiers=tuple(entry.to_model() for entry in self.personal_identifiers),
        )


class PatientBody(DemographicsBody):
    """What a customer says of a patient."""

    external_id: ShortText = Field(default="", description="The customer's own id of the patient")


class PatientUpdateBody(PatientBody):
    """The whole of what is to be known of a patient from now on."""

    e_tag: str | None = None


class PatientFacilitiesBody(ApiModel):
    """The facilities that a patient belongs to from now on."""

    facility_ids: list[Text] = Field(min_length=1)
    e_tag: str | None = None


class OrganizationBody(ApiModel):
    """What a customer says of the organization."""

    name: Text
    type: OrganizationType
    location: AddressBody


class OrganizationUpdateBody(OrganizationBody):
    """The whole of what is to be known of the organization from now on."""

    e_tag: str | None = None


class FacilityBody(ApiModel):
    """What a customer says of a facility."""

    name: Text
    npi: Npi
    tin: OptionalText = None
    active: StrictBool | None = None
    address: AddressBody


class FacilityUpdateBody(FacilityBody):
    """The whole of what is to be known of a facility from now on."""

    e_tag: str | None = None


# --- what is answered -------------------------------------------------------------------------------------------------


class AddressAnswer(ApiModel):
    """A US address."""

    address_line1: str
    address_line2: Omittable[str] = None
    city: str
    state: str
    zip: str
    country: str

    @classmethod
    def of(cls, address: Address) -> Self:
        """The answer for an address."""
        return cls(
            address_line1=address.address_line1,
            address_line2=address.address_line2,
            city=address.city,
            state=address.state,
            zip=address.zip,
            country=address.country,
        )


class OrganizationAnswer(ApiModel):
    """The organization."""

    id: str
    e_tag: str
    oid: str
    name: str
    type: OrganizationType
    location: AddressAnswer

    @classmethod
    def of(cls, record: Organization) -> Self:
        """The answer for an organization."""
        return cls(
            id=record.id,
            e_tag=etag(record.id, record.version),
            oid=record.oid,
            name=record.name,
            type=record.type,
            location=AddressAnswer.of(record.location),
        )


class FacilityAnswer(ApiModel):
    """A facility."""

    id: str
    e_tag: str
    oid: str
    name: str
    npi: str
    tin: Omittable[str] = None
    active: Omittable[bool] = None
    address: AddressAnswer

    @classmethod
    def of(cls, record: Facility) -> Self:
        """The answer for a facility."""
        return cls(
            id=record.id,
            e_tag=etag(record.id, record.version),
            oid=record.oid,
            name=record.name,
            npi=record.npi,
            tin=record.tin,
            active=record.active,
            address=AddressAnswer.of(record.address),
        )


class FacilityList(ApiModel):
    """Facilities by ascending id."""

    facilities: list[FacilityAnswer]


class ContactAnswer(ApiModel):
    """A phone number, an e-mail address, or both."""

    phone: Omittable[str] = None
    email: Omittable[str] = None


class PersonalIdentifierAnswer(ApiModel):
    """A driver's licence or a social security number."""

    type: IdentifierType
    value: str
    state: Omittable[str] = None
    period: Omittable[PeriodBody] = None
    assigner: Omittable[str] = None

    @classmethod
    def of(cls, identifier: PersonalIdentifier) -> Self:
        """The answer for an identifier."""
        period = PeriodBody(start=identifier.period_start, end=identifier.period_end)
        return cls(
            type=identifier.type,
            value=identifier.value,
            state=identifier.state,
            period=period if period.start or period.end else None,
            assigner=identifier.assigner,
        )


class PatientAnswer(ApiModel):
    """A patient."""

    id: str
    e_tag: str
    facility_ids: list[str]
    external_id: Omittable[str] = None
    additional_ids: Omittable[dict[str, list[str]]] = None
    date_created: Moment
    first_name: str
    last_name: str
    dob: str
    gender_at_birth: Gender
    personal_identifiers: list[PersonalIdentifierAnswer]
    address: list[AddressAnswer]
    contact: list[ContactAnswer]

    @classmethod
    def of(cls, record: Patient) -> Self:
        """The answer for a patient."""
        known = record.demographics
        return cls(
            id=record.id,
            e_tag=etag(record.id, record.version),
            facility_ids=list(record.facility_ids),
            external_id=record.external_id,
            additional_ids=record.additional_ids or None,
            date_created=record.created_at,
            first_name=known.first_name,
            last_name=known.last_name,
            dob=known.dob.isoformat(),
            gender_at_birth=known.gender_at_birth,
            personal_identifiers=[PersonalIdentifierAnswer.of(item) for item in known.personal_identifiers],
            address=[AddressAnswer.of(place) for place in known.address],
            contact=[ContactAnswer(phone=entry.phone, email=entry.email) for entry in known.contact],
        )


class PageMeta(ApiModel):
    """Where in a list one is; the links are called as they are. No link: no such part."""

    items_on_page: int
    items_in_total: Omittable[int] = None
    next_page: Omittable[str] = None
    prev_page: Omittable[str] = None


class PatientList(ApiModel):
    """Patients, the newest first."""

    meta: PageMeta
    patients: list[PatientAnswer]


class OptOutAnswer(ApiModel):
    """Whether networks are no longer asked about a patient."""

    id: str
    hie_opt_out: bool
    message: str
