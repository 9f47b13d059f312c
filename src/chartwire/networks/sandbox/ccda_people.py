"""People and places as C-CDA writes them."""

from lxml import etree

from chartwire.networks.sandbox.cda import coded, element, identifier, template
from chartwire.networks.sandbox.records import Clinician, Organization


def assigned(tag: str, clinician: Clinician) -> "etree._Element":
    """Who acts: an assignedEntity or assignedAuthor with person and organization."""
    organization = clinician.organization
    return element(
        tag,
        element("id", root="2.16.840.1.113883.4.6", extension=clinician.npi),
        coded("code", clinician.specialty),
        address(organization),
        element("telecom", use="WP", value=f"tel:{organization.phone}"),
        element("assignedPerson", person_name(clinician)),
        element(
            "representedOrganization",
            identifier(f"2.{organization.number}"),
            element("name", organization.name),
            element("telecom", use="WP", value=f"tel:{organization.phone}"),
            address(organization),
        ),
    )


def person_name(clinician: Clinician) -> "etree._Element":
    """A clinician's name."""
    return element(
        "name",
        element("given", clinician.given),
        element("family", clinician.family),
        element("suffix", clinician.suffix),
        use="L",
    )


def address(organization: Organization) -> "etree._Element":
    """A place of work."""
    return element(
        "addr",
        element("streetAddressLine", organization.street),
        element("city", organization.city),
        element("state", organization.state),
        element("postalCode", organization.zip),
        element("country", "US"),
        use="WP",
    )


def place(organization: Organization) -> "etree._Element":
    """Service Delivery Location (22.4.32)."""
    name = element("playingEntity", element("name", organization.name), classCode="PLC")
    code = coded("code", organization.kind)
    phone = element("telecom", use="WP", value=f"tel:{organization.phone}")
    return element("participantRole", template("4.32"), code, address(organization), phone, name, classCode="SDLOC")
