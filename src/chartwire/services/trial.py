"""A first look with nothing to type: ask for the documents of one of the sandbox network's invented patients."""

from chartwire.errors import ConflictError
from chartwire.model.registry import Address, Facility
from chartwire.networks.sandbox.charts import CHARTS
from chartwire.services.documents import DocumentService
from chartwire.services.patients import PatientDraft
from chartwire.services.registry import FacilityDraft, RegistryService
from chartwire.settings import SandboxNetworkSettings, Settings
from chartwire.store.patient_lists import PatientFilter

_EXTERNAL_ID = "sandbox-{}"
_FACILITY = FacilityDraft("Sandbox clinic", "1234567893", Address("1 Market St", "San Francisco", "CA", "94105"))


class TrialService:
    """Makes what a first document query needs."""

    def __init__(self, registry: RegistryService, documents: DocumentService, settings: Settings) -> None:
        self._registry = registry
        self._documents = documents
        self.is_possible = any(isinstance(network, SandboxNetworkSettings) for network in settings.networks)
        """Whether a sandbox network is there to be asked."""

    async def ask_for_next(self, account_id: str, actor: str) -> str:
        """Start a query of the next invented patient whom the account has not yet; returns the patient's id.

        Raises `ConflictError` without a sandbox, and after the last one.
        """
        if not self.is_possible:
            raise ConflictError("This installation asks no sandbox network: add patients of your own")
        listing = await self._registry.patients.list(account_id, actor, PatientFilter(), None)
        known = {patient.external_id for patient in listing.page.patients}
        chart = next((chart for chart in CHARTS if _EXTERNAL_ID.format(chart.key) not in known), None)
        if chart is None:
            raise ConflictError("Every invented patient is here already: open one and ask again")
        facility = await self._facility(account_id)
        draft = PatientDraft(chart.demographics, _EXTERNAL_ID.format(chart.key))
        patient = await self._registry.patients.create(account_id, actor, facility.id, draft)
        await self._documents.start_query(account_id, actor, patient.id, facility.id, None, override=False)
        return patient.id

    async def _facility(self, account_id: str) -> Facility:
        known = await self._registry.list_facilities(account_id)
        return known[0] if known else await self._registry.create_facility(account_id, _FACILITY)
