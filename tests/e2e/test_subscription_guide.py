"""The guide to FHIR subscriptions does what it says: its commands are run as they are printed there."""

import asyncio
import re
import shutil
from pathlib import Path

import pytest
from tests.support.customer import JANE, SANDBOX, patient_of
from tests.support.journey import journey
from tests.support.people import NPIS
from tests.support.process import ChartwireProcess
from tests.support.receiver import Receiver

pytestmark = pytest.mark.embedded


GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "use-fhir-subscriptions.md"
needs_tools = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("bash", "curl", "jq")), reason="the guide's commands need bash, curl and jq"
)


@needs_tools
async def test_the_commands_of_the_guide(tmp_path: Path) -> None:
    subscribe, recover = re.findall(r"^```bash\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    async with Receiver() as receiver, ChartwireProcess(tmp_path / "data", SANDBOX) as server:
        _, api_key = await server.create_account("Clinic")
        script = f"set -euo pipefail\nCHARTWIRE={server.base_url}\nAPI_KEY={api_key}\n" + subscribe
        await run(tmp_path, script.replace("https://app.example/fhir-hook", receiver.url))
        await receiver.wait_for(lambda it: b'"valueCode":"handshake"' in it.requests[0].body if it.requests else False)
        async with journey(server.base_url, api_key) as app:
            facility_id = await app.add_facility(NPIS[0])
            patient = await app.call("POST", "patient", patient_of(JANE), facilityId=facility_id)
            await app.start_query(patient["id"], facility_id)
        await receiver.wait_for(lambda it: sum(each.body.count(b'"event-number"') for each in it.requests) == 7)
        setting = f"set -euo pipefail\nFHIR={server.base_url}/oauth/fhir\nAPI_KEY={api_key}\n"
        told = await run(tmp_path, setting + recover.replace("eventsSinceNumber=17", "eventsSinceNumber=6"))
        assert told.count('"event-number"') == 2
        assert '"status":"requested"' in told
        await receiver.wait_for(lambda it: sum(b'"valueCode":"handshake"' in each.body for each in it.requests) == 2)


async def run(folder: Path, script: str) -> str:
    """What a script prints."""
    bash = await asyncio.create_subprocess_exec(
        "bash", "-c", script, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    printed, complaint = await bash.communicate()
    assert bash.returncode == 0, complaint.decode()
    return printed.decode()
