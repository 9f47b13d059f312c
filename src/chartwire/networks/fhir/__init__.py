"""A FHIR R4 server that serves documents: IHE MHD 4.2 (ITI-67, ITI-68), PDQm (ITI-78, ITI-119), US Core.

Read in this order: `network` (what is asked), `patients` and `listing` (who, and what there is), `documents` (what an
entry means), `retrieval` and `unwrapping` (the bytes), `client` and `auth` (how it is asked), `failures`.
"""

from chartwire.networks.fhir.network import FhirNetwork

__all__ = ["FhirNetwork"]
