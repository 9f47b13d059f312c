"""Every list of the console: in parts, filtered and sorted by its address, nothing twice and nothing left out."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from sqlalchemy import Connection, case, insert, update
from tests.support.console import Visit, add_account, add_member, visiting
from tests.support.documents import a_document, a_held_document, add_patient
from tests.support.server import Installation, running_installation

from chartwire.errors import BadRequestError
from chartwire.model.document import DocumentQuery, NetworkStep, QueryStatus, RemoteDocument
from chartwire.model.member import Role
from chartwire.model.webhook import AttemptFilter, DeliveryFilter, Outcome, ReplayState
from chartwire.services.browsing import BrowseService
from chartwire.services.listing import Asked, Listed
from chartwire.store import audit, documents, quarantine, queries, registry, replays, schema
from chartwire.store.audit import AuditFilter
from chartwire.store.documents import DocumentFilter
from chartwire.store.patient_lists import PatientFilter

pytestmark = pytest.mark.asyncio(loop_scope="module")

EMAIL = "ada@clinic.example"
COUNT = 7

OUT_OF_TIME = ("/console/attempts?from=soon", "/console/attempts?from=0001-01-01T00:00%2B14:00")


@dataclass(frozen=True, slots=True)
class Scene:
    """An account with some of everything, much of it alike."""

    installation: Installation
    account_id: str
    visit: Visit

    @property
    def lists(self) -> BrowseService:
        """The lists of the installation."""
        return self.installation.parts[0].console.lists


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with running_installation(tmp_path_factory.mktemp("lists")) as installation:
        account_id = await fill(installation)
        async with visiting(installation, EMAIL) as visit:
            yield Scene(installation, account_id, visit)


async def fill(installation: Installation) -> str:
    """Make some of everything; returns the account's id."""
    account_id = await add_account(installation)
    await add_member(installation, account_id, EMAIL)
    services = installation.parts[0]
    for number in range(COUNT):
        role = Role.VIEWER if number % 2 else Role.DEVELOPER
        await add_member(installation, account_id, f"m{number}@clinic.example", role)
        changes = {"url": f"https://app.example/{number}", "description": f"Hook {number % 3}"}
        endpoint = await services.webhooks.create_endpoint(account_id, "operator", changes)  # type: ignore[arg-type]  # a part of it
        await services.webhooks.ping(account_id, endpoint.id)
    now = installation.clock()

    def unit(connection: Connection) -> None:
        add_patient(connection, account_id, "p0", external_id="known")
        for number in range(1, COUNT):
            person = {"last_name": f"Roe {number % 3}", "first_name": "Ana" if number % 2 else "bea"}
            add_patient(connection, account_id, f"p{number}", person=person)
        for number in range(COUNT):
            changes = {"title": f"Visit {number % 2}", "network": f"net{number % 3}", "description": None}
            documents.insert_document(
                connection, a_document(account_id, f"p{number % 2}", f"{number}".encode(), **changes)
            )
            aside = a_held_document(account_id, f"p{number % 2}", f"{number}".encode(), network=f"net{number % 3}")
            quarantine.hold(connection, aside)
            registry.create_api_key(connection, account_id, f"app {number % 2}", now)
            replays.start(connection, account_id, DeliveryFilter(), now)
            audit.record(connection, now, account_id, "engine", f"thing.{number % 2}", "p0")
        make_attempts(connection, now)
        list_untaken(connection, account_id, now)

    await installation.database.write(unit)
    return account_id


def make_attempts(connection: Connection, now: datetime) -> None:
    """Give each delivery two attempts, of which some took equally long."""
    seqs = connection.execute(schema.delivery.select()).scalars().all()
    for seq in seqs:
        for number in (1, 2):
            connection.execute(
                insert(schema.attempt).values(
                    delivery_seq=seq,
                    number=number,
                    started_at=now - timedelta(minutes=number),
                    duration_ms=seq % 3,
                    outcome=Outcome.DELIVERED if number == 2 else Outcome.TIMEOUT,
                    url="https://app.example/",
                    first_byte_us=None if number == 1 else 100 * (seq % 2),
                )
            )
    connection.execute(update(schema.delivery).where(schema.delivery.c.seq % 2 == 0).values(state="failed", attempts=3))


def list_untaken(connection: Connection, account_id: str, now: datetime) -> None:
    """Queries whose documents could not be fetched."""
    for number in range(COUNT):
        query = DocumentQuery(f"q{number}", account_id, "p0", None, QueryStatus.COMPLETED, now)
        queries.start_query(connection, query, [])
        step = NetworkStep(query.id, account_id, "p0", f"net{number % 3}", 0, "")
        queries.add_intake_steps(connection, step, [RemoteDocument(key=f"k{number}")], now)
    issue = case((schema.intake_step.c.id % 2 == 0, "too-large"), else_="gone")
    connection.execute(update(schema.intake_step).values(state="failed", issue=issue))


async def browse(scene: Scene, name: str, asked: Asked) -> Listed[Any]:
    """A part of a list by its name."""
    lists, account_id = scene.lists, scene.account_id
    console = scene.installation.parts[0].console
    match name:
        case "endpoints":
            return lists.endpoints(await console.overview.endpoints(account_id), asked)
        case "networks":
            return lists.networks(await console.overview.networks(account_id), asked)
        case "keys":
            return lists.keys(await console.keys.list(account_id), asked)
        case "members":
            return lists.members(await console.members.list(account_id), asked)
    readers: dict[str, Callable[[], Awaitable[Listed[Any]]]] = {
        "deliveries": lambda: lists.deliveries(account_id, DeliveryFilter(), asked),
        "attempts": lambda: lists.attempts(account_id, AttemptFilter(), asked),
        "replays": lambda: lists.replays(account_id, None, asked),
        "patients": lambda: lists.patients(account_id, "member:m", PatientFilter(), asked),
        "documents": lambda: lists.documents(account_id, "member:m", DocumentFilter(), None, asked),
        "quarantine": lambda: console.quarantine.list(account_id, "member:m", None, None, asked),
        "untaken": lambda: console.quarantine.list_untaken(account_id, "member:m", None, None, asked),
        "audit": lambda: console.audit.search(account_id, AuditFilter(action="thing."), asked),
    }
    return await readers[name]()


PAGES = {
    "deliveries": "/console/events",
    "attempts": "/console/attempts",
    "replays": "/console/replays",
    "patients": "/console/patients",
    "documents": "/console/documents",
    "endpoints": "/console/webhooks",
    "networks": "/console/networks",
    "keys": "/console/keys",
    "members": "/console/members",
    "quarantine": "/console/quarantine",
    "untaken": "/console/quarantine/untaken",
    "audit": "/console/audit",
}


async def orders_of(scene: Scene, name: str) -> list[str]:
    """What a list can be sorted by, as it says itself to who asks for something else."""
    with pytest.raises(BadRequestError) as refused:
        await browse(scene, name, Asked("nonsense"))
    words = str(refused.value).removeprefix("The list can be sorted by ").partition(";")[0].split(", ")
    return [*words, *(f"-{word}" for word in words)]


@pytest.mark.parametrize("name", PAGES)
async def test_the_parts_of_a_list_are_the_list_in_every_order(scene: Scene, name: str) -> None:
    for sort in await orders_of(scene, name):
        whole = (await browse(scene, name, Asked(sort, limit=1000))).items
        assert len(whole) >= 3, name
        walked: list[Any] = []
        after: str | None = None
        while not walked or after:
            part = await browse(scene, name, Asked(sort, after, 2))
            walked += part.items
            after = part.next
        assert [repr(each) for each in walked] == [repr(each) for each in whole], (name, sort)
        assert len({repr(each) for each in walked}) == len(walked), (name, sort)


@pytest.mark.parametrize("name", PAGES)
async def test_the_other_way_round_is_the_same_backwards(scene: Scene, name: str) -> None:
    orders = await orders_of(scene, name)
    for sort in orders[: len(orders) // 2]:
        up = (await browse(scene, name, Asked(sort, limit=1000))).items
        down = (await browse(scene, name, Asked(f"-{sort}", limit=1000))).items
        assert [repr(each) for each in down] == [repr(each) for each in reversed(up)], (name, sort)


@pytest.mark.parametrize(("name", "path"), PAGES.items())
async def test_a_page_links_to_its_orders_and_says_which_it_is_in(scene: Scene, name: str, path: str) -> None:
    text = (await scene.visit.get(path)).text
    shown = re.findall(r'class="sort" href="[^"]*sort=-?([a-z-]+)', text)
    assert set(shown) <= {order.removeprefix("-") for order in await orders_of(scene, name)}
    assert len(shown) >= 3
    for column in shown:
        for sort, said in ((column, "ascending"), (f"-{column}", "descending")):
            page = await scene.visit.get(path, sort=sort)
            assert page.status_code == 200
            assert page.text.count(f'aria-sort="{said}"') == page.text.count("aria-sort") == 1


@pytest.mark.parametrize(("name", "path"), PAGES.items())
async def test_an_order_that_there_is_not_is_explained(scene: Scene, name: str, path: str) -> None:
    page = await scene.visit.get(path, sort="colour")
    assert page.status_code == 400
    for order in await orders_of(scene, name):
        assert order.removeprefix("-") in page.text


@pytest.mark.parametrize("path", PAGES.values())
async def test_a_place_that_was_not_given_out_is_refused(scene: Scene, path: str) -> None:
    other = await browse(scene, "keys" if path != "/console/keys" else "members", Asked(limit=1))
    assert other.next is not None
    for after in (other.next, "made-up", "AAAA"):
        assert (await scene.visit.get(f"{path}?after={quote(after)}")).status_code == 400


async def test_what_comes_meanwhile_neither_repeats_nor_hides(scene: Scene) -> None:
    first = await browse(scene, "replays", Asked(limit=3))
    now = scene.installation.clock()
    added = await scene.installation.database.write(
        lambda connection: replays.start(connection, scene.account_id, DeliveryFilter(), now)
    )
    rest = await browse(scene, "replays", Asked(after=first.next, limit=100))
    ids = [each.id for each in (*first.items, *rest.items)]
    assert len(ids) == len(set(ids)) == COUNT
    assert added.id not in ids
    await scene.installation.database.write(
        lambda connection: connection.execute(schema.replay.delete().where(schema.replay.c.id == added.id))
    )


async def test_filters_choose(scene: Scene) -> None:
    lists, account_id = scene.lists, scene.account_id
    slow = await lists.attempts(account_id, AttemptFilter(outcomes=(Outcome.TIMEOUT,)), Asked())
    assert {each.outcome for each in slow.items} == {Outcome.TIMEOUT}
    assert (await lists.replays(account_id, ReplayState.CANCELLED, Asked())).items == []
    mine = await lists.documents(account_id, "member:m", DocumentFilter(content="VISIT 1"), "net1", Asked())
    assert {(each.title, each.network) for each in mine.items} == {("Visit 1", "net1")}
    for path, params, here, gone in (
        ("/console/webhooks", {"text": "/3"}, "app.example/3", "app.example/4"),
        ("/console/keys", {"text": "APP 1"}, "app 1", "app 0"),
        ("/console/members", {"of": "viewer"}, "m1@clinic", "m2@clinic"),
        ("/console/members", {"text": "m2"}, "m2@clinic", "m1@clinic"),
        ("/console/networks", {"text": "net1"}, "net1", "net2"),
        ("/console/attempts", {"outcome": "timeout"}, "Timed out", "Delivered"),
        ("/console/quarantine", {"network": "net0"}, "net0", "net1"),
        ("/console/quarantine/untaken", {"why": "gone"}, "<code>gone", "<code>too-large"),
        ("/console/documents", {"network": "net0", "patient": "p0"}, "patient p0", "patient p1"),
    ):
        text = (await scene.visit.get(path, **params)).text.partition("<tbody>")[2]
        assert here in text, path
        assert gone not in text, path
    for path in ("/console/webhooks?state=x", "/console/members?of=x", "/console/attempts?outcome=x", *OUT_OF_TIME):
        assert (await scene.visit.get(path)).status_code == 400
