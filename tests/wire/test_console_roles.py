"""What each role may do, page by page, and that nothing of another account is ever found."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from fastapi.routing import APIRoute
from sqlalchemy import Connection, insert, select
from tests.support.console import Visit, add_account, add_member, visiting
from tests.support.documents import LIMIT, NOW, Shelf, a_document, a_held_document, add_patient, chunks
from tests.support.server import Installation, running_installation

from chartwire.api.console.pages import PAGES
from chartwire.model.member import Permission, Role
from chartwire.model.webhook import DeliveryFilter, Outcome
from chartwire.store import documents, endpoints, quarantine, registry, replays, schema
from chartwire.store.vault import Purpose, Vault

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANY, READ, STEER = None, Permission.READ_RECORDS, Permission.STEER
KEYS, AUDIT, MEMBERS = Permission.MANAGE_KEYS, Permission.READ_AUDIT, Permission.MANAGE_MEMBERS

WALK: dict[tuple[str, str], Permission | None] = {
    ("GET", "/console"): ANY,
    ("GET", "/console/webhooks"): ANY,
    ("GET", "/console/webhooks/{endpoint_id}"): ANY,
    ("GET", "/console/webhooks/new"): STEER,
    ("GET", "/console/events"): ANY,
    ("GET", "/console/events/{event_id}"): ANY,
    ("GET", "/console/attempts"): ANY,
    ("GET", "/console/replays"): ANY,
    ("GET", "/console/replays/{replay_id}"): ANY,
    ("GET", "/console/networks"): ANY,
    ("GET", "/console/operations"): ANY,
    ("GET", "/console/disclosures"): AUDIT,
    ("GET", "/console/disclosures/export"): AUDIT,
    ("GET", "/console/me"): ANY,
    ("GET", "/console/patients"): READ,
    ("GET", "/console/patients/new"): STEER,
    ("GET", "/console/patients/{patient_id}"): READ,
    ("GET", "/console/documents"): READ,
    ("GET", "/console/documents/{document_id}"): READ,
    ("GET", "/console/documents/{document_id}/view"): READ,
    ("GET", "/console/documents/{document_id}/file"): READ,
    ("GET", "/console/quarantine"): READ,
    ("GET", "/console/quarantine/untaken"): READ,
    ("GET", "/console/quarantine/{held_id}"): READ,
    ("GET", "/console/quarantine/{held_id}/file"): READ,
    ("GET", "/console/keys"): KEYS,
    ("GET", "/console/audit"): AUDIT,
    ("GET", "/console/audit/export"): AUDIT,
    ("GET", "/console/members"): MEMBERS,
    ("POST", "/console/me/second-factor"): ANY,
    ("POST", "/console/me/second-factor/confirm"): ANY,
    ("POST", "/console/me/second-factor/end"): ANY,
    ("POST", "/console/me/password"): ANY,
    ("POST", "/console/try"): STEER,
    ("POST", "/console/webhooks"): STEER,
    ("POST", "/console/webhooks/retry"): STEER,
    ("POST", "/console/webhooks/{endpoint_id}"): STEER,
    ("POST", "/console/webhooks/{endpoint_id}/ping"): STEER,
    ("POST", "/console/webhooks/{endpoint_id}/sample"): STEER,
    ("POST", "/console/webhooks/{endpoint_id}/hasten"): STEER,
    ("POST", "/console/webhooks/{endpoint_id}/disable"): STEER,
    ("POST", "/console/webhooks/{endpoint_id}/enable"): STEER,
    ("POST", "/console/webhooks/{endpoint_id}/keys"): KEYS,
    ("POST", "/console/webhooks/{endpoint_id}/rotate"): KEYS,
    ("POST", "/console/webhooks/{endpoint_id}/delete"): STEER,
    ("POST", "/console/events/{event_id}/reveal"): READ,
    ("POST", "/console/events/{event_id}/payload"): READ,
    ("POST", "/console/events/{event_id}/resend"): STEER,
    ("POST", "/console/replays"): STEER,
    ("POST", "/console/replays/{replay_id}/cancel"): STEER,
    ("POST", "/console/patients"): STEER,
    ("POST", "/console/facilities"): STEER,
    ("POST", "/console/patients/{patient_id}/ask"): STEER,
    ("POST", "/console/patients/{patient_id}/consent"): STEER,
    ("POST", "/console/quarantine/{held_id}/release"): STEER,
    ("POST", "/console/quarantine/{held_id}/discard"): STEER,
    ("POST", "/console/keys"): KEYS,
    ("POST", "/console/keys/{key_id}/revoke"): KEYS,
    ("POST", "/console/members"): MEMBERS,
    ("POST", "/console/members/{member_id}/role"): MEMBERS,
    ("POST", "/console/members/{member_id}/reset"): MEMBERS,
    ("POST", "/console/members/{member_id}/remove"): MEMBERS,
}
"""What a route asks of whoever calls it."""

ELSEWHERE = {
    *(("GET", "/console/sign-in"), ("POST", "/console/sign-in"), ("POST", "/console/sign-in/code")),
    *(("GET", "/console/setup"), ("POST", "/console/setup"), ("POST", "/console/sign-out")),
    *(("GET", "/console/sso"), ("GET", "/console/sso/callback")),
    *(("GET", "/console/live"), ("GET", "/console/static/{name}"), ("GET", "/console/{path:path}")),
}
"""Routes that everybody may call, and those that have tests of their own."""

FORM: dict[str, Any] = {
    "url": "https://app.example/hook",
    "description": "x",
    "label": "x",
    "version": "2023-04",
    "mode": "as-available",
    "scheme": "v1",
    "type": "medical.document-download",
    "opted_out": "no",
    "role": "viewer",
    "note": "looked at",
}


@dataclass(frozen=True, slots=True)
class Account:
    """An account with one of everything."""

    account_id: str
    ids: dict[str, str]


@dataclass(frozen=True, slots=True)
class Scene:
    """Two accounts of one installation."""

    installation: Installation
    own: Account
    other: Account


async def settle(installation: Installation, name: str) -> Account:
    """Make an account that has something behind every id, and a member of each role."""
    account_id = await add_account(installation, name)
    members = {role: await add_member(installation, account_id, f"{role}@{name}.example", role) for role in Role}
    await add_member(installation, account_id, f"second@{name}.example")
    services, now = installation.parts[0], installation.clock()
    endpoint = await services.webhooks.create_endpoint(account_id, "operator", {"url": "https://app.example/hook"})
    event_id = await services.webhooks.ping(account_id, endpoint.id)
    await Shelf(installation).blobs.put(chunks(name.encode()), LIMIT)

    def unit(connection: Connection) -> tuple[str, str, str]:
        add_patient(connection, account_id, f"patient-{name}")
        document = a_document(account_id, f"patient-{name}", name.encode(), mime_type="text/plain")
        documents.insert_document(connection, document)
        quarantine.hold(connection, a_held_document(account_id, f"patient-{name}", name.encode(), id=f"held-{name}"))
        key, _ = registry.create_api_key(connection, account_id, "app", now)
        return document.id, key.id, replays.start(connection, account_id, DeliveryFilter(), now).id

    document_id, key_id, replay_id = await installation.database.write(unit)
    ids = {
        "endpoint_id": endpoint.id,
        "event_id": event_id,
        "replay_id": replay_id,
        "patient_id": f"patient-{name}",
        "document_id": document_id,
        "held_id": f"held-{name}",
        "key_id": key_id,
        "member_id": members[Role.VIEWER].id,
    }
    return Account(account_id, ids)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with running_installation(tmp_path_factory.mktemp("roles")) as installation:
        yield Scene(installation, await settle(installation, "own"), await settle(installation, "other"))


async def send(visit: Visit, method: str, path: str, ids: dict[str, str]) -> tuple[int, str]:
    """Status and text of a route, with these ids in its address."""
    address = path.format(**ids)
    answer = await (visit.get(address) if method == "GET" else visit.post(address, **FORM))
    return answer.status_code, answer.text


def routes() -> Iterator[tuple[str, str]]:
    for router in PAGES:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            yield from ((method, route.path) for method in route.methods or ())


async def test_every_route_is_walked() -> None:
    assert set(routes()) == set(WALK) | ELSEWHERE


@pytest.mark.parametrize("role", Role)
async def test_a_role_does_what_it_may_and_nothing_else(scene: Scene, role: Role) -> None:
    mine = {permission for permission in Permission if may(role, permission)}
    async with visiting(scene.installation, f"{role}@own.example") as visit:
        absent = dict.fromkeys(scene.own.ids, "absent")  # so that what is allowed changes nothing
        for (method, path), permission in WALK.items():
            status, text = await send(visit, method, path, absent if method == "POST" else scene.own.ids)
            refused = status == 403 and "role does not allow" in text
            assert refused == (permission is not None and permission not in mine), f"{method} {path}: {status}"
            assert status < 500


def may(role: Role, permission: Permission) -> bool:
    """The table of `docs/how-to/use-the-console.md`, written down once more."""
    return {
        Role.OWNER: True,
        Role.DEVELOPER: permission in {READ, STEER, KEYS},
        Role.VIEWER: permission is READ,
        Role.AUDITOR: permission is AUDIT,
    }[role]


@pytest.mark.parametrize("role", [Role.VIEWER, Role.AUDITOR])
async def test_who_may_not_steer_is_shown_no_button(scene: Scene, role: Role) -> None:
    async with visiting(scene.installation, f"{role}@own.example") as visit:
        for (method, path), permission in WALK.items():
            if method == "GET" and may(role, permission or READ) and "/view" not in path and "/file" not in path:
                text = (await visit.get(path.format(**scene.own.ids))).text
                posts = {each.split('"')[0] for each in text.split('method="post" action="')[1:]}
                allowed = ("/console/sign-out", "/console/me/", *(("/console/events/",) if role is Role.VIEWER else ()))
                assert all(post.startswith(allowed) for post in posts), (path, posts)


async def test_an_auditor_sees_no_answers_and_no_bodies(scene: Scene) -> None:
    event_id = scene.own.ids["event_id"]
    await scene.installation.database.write(lambda connection: answer(connection, event_id, b"what the app said"))
    for role, may_look in ((Role.VIEWER, True), (Role.AUDITOR, False)):
        async with visiting(scene.installation, f"{role}@own.example") as visit:
            page = await visit.get(f"/console/events/{event_id}")
            assert (page.status_code, "what the app said" in page.text) == (200, may_look)
            revealed = await visit.post(f"/console/events/{event_id}/reveal")
            assert revealed.status_code == (200 if may_look else 403)


def answer(connection: Connection, event_id: str, said: bytes) -> None:
    """An attempt of an event's only delivery."""
    of_event = select(schema.delivery.c.seq).join(schema.event, schema.event.c.seq == schema.delivery.c.event_seq)
    values = {
        "delivery_seq": connection.execute(of_event.where(schema.event.c.id == event_id)).scalar_one(),
        "number": 1,
        "started_at": NOW,
        "duration_ms": 1,
        "outcome": Outcome.HTTP_ERROR,
        "http_status": 500,
        "url": "https://app.example/hook",
        "answer": Vault(bytes(32)).seal(Purpose.ANSWER, said),
    }
    connection.execute(insert(schema.attempt).values(**values))


@pytest.mark.parametrize(("method", "path"), [each for each in WALK if "{" in each[1]])
async def test_what_is_of_another_account_is_as_absent(scene: Scene, method: str, path: str) -> None:
    absent = {name: value[:-1] + ("0" if value[-1] != "0" else "1") for name, value in scene.other.ids.items()}
    async with visiting(scene.installation, f"{Role.OWNER}@own.example") as visit:
        status, text = await send(visit, method, path, scene.other.ids)
        assert status == 404
        hidden = text.replace("absent", "")
        assert (status, hidden) == await send(visit, method, path, absent)
        assert not [each for each in scene.other.ids.values() if each in text]


async def test_lists_hold_the_own_alone(scene: Scene) -> None:
    async with visiting(scene.installation, f"{Role.OWNER}@own.example") as visit:
        for method, path in WALK:
            if method == "GET" and "{" not in path:
                text = (await visit.get(path)).text
                assert not [each for each in (*scene.other.ids.values(), "other.example") if each in text], path


async def test_what_the_walk_asks_is_answered_to_the_owner(scene: Scene) -> None:
    """Otherwise the walk would prove nothing: a misspelt address is refused to everybody."""
    third = await settle(scene.installation, "third")
    last = ("/delete", "/remove", "/password", "/confirm", "/end")
    async with visiting(scene.installation, f"{Role.OWNER}@third.example") as visit:
        for method, path in sorted(WALK, key=lambda each: (each[0], each[1].endswith(last))):
            if method == "POST" and path.endswith(
                ("/me/password", "/confirm", "/end", "/console/webhooks", "/patients", "/facilities", "/resend")
            ):
                continue  # these need more than the form of this walk has
            status, _ = await send(visit, method, path, third.ids)
            needs_more = path.endswith(
                ("/role", "/members", "/ping", "/sample", "/ask", "/cancel", "/release", "/disclosures/export")
            )
            assert status in {200, 303} or (needs_more and status in {400, 409}), f"{method} {path}: {status}"


async def test_the_last_owner_stays(scene: Scene) -> None:
    account_id = await add_account(scene.installation, "lone")
    owner = await add_member(scene.installation, account_id, "lone@lone.example")
    async with visiting(scene.installation, "lone@lone.example") as visit:
        assert (await visit.post(f"/console/members/{owner.id}/role", role="viewer")).status_code == 409
        assert (await visit.post(f"/console/members/{owner.id}/remove")).status_code == 409
        assert (await visit.get("/console/members")).status_code == 200


async def test_who_is_removed_is_out_at_once(scene: Scene) -> None:
    account_id = await add_account(scene.installation, "brief")
    await add_member(scene.installation, account_id, "stays@brief.example")
    goes = await add_member(scene.installation, account_id, "goes@brief.example", Role.DEVELOPER)
    async with (
        visiting(scene.installation, "stays@brief.example") as owner,
        visiting(scene.installation, "goes@brief.example") as gone,
    ):
        assert (await owner.post(f"/console/members/{goes.id}/role", role="viewer")).status_code == 303
        assert (await gone.get("/console/keys")).status_code == 403  # the role holds from the next request on
        assert (await owner.post(f"/console/members/{goes.id}/remove")).status_code == 303
        assert (await gone.get("/console")).status_code == 303


async def test_what_members_do_is_in_the_audit_trail(scene: Scene) -> None:
    endpoint_id = scene.own.ids["endpoint_id"]
    async with visiting(scene.installation, f"{Role.OWNER}@own.example") as visit:
        await visit.post(f"/console/webhooks/{endpoint_id}/keys")
        await visit.get(f"/console/patients/{scene.own.ids['patient_id']}")
        page = (await visit.get("/console/audit", action="endpoint.reveal-key")).text
        assert f"{Role.OWNER}@own.example" in page
        exported = await visit.get("/console/audit/export", patient=scene.own.ids["patient_id"])
    rows = exported.text.splitlines()
    assert rows[0] == "at,actor,action,patient_id,subject,outcome"
    assert any("patient.read" in row and "member:" in row for row in rows)
    assert all(scene.own.ids["patient_id"] in row for row in rows[1:])
    assert exported.headers["content-disposition"] == 'attachment; filename="audit.csv"'


async def test_endpoints_of_the_settings_are_those_of_the_console(scene: Scene) -> None:
    account_id = await add_account(scene.installation, "fresh")
    await add_member(scene.installation, account_id, "dev@fresh.example", Role.DEVELOPER)
    async with visiting(scene.installation, "dev@fresh.example") as visit:
        created = await visit.post("/console/webhooks", url="https://app.example/first", description="")
        assert created.status_code == 303
        settings = await scene.installation.parts[0].webhooks.get_settings(account_id)
        assert settings.url == "https://app.example/first"
        assert (await visit.post("/console/webhooks", url="https://app.example/second")).status_code == 303
        known = await scene.installation.database.read(lambda it: endpoints.endpoints_of(it, account_id))
        assert [each.url for each in known] == ["https://app.example/first", "https://app.example/second"]
        refused = await visit.post("/console/webhooks", url="http://169.254.169.254/")
        assert refused.status_code == 400
        assert "Invalid URL" in refused.text


async def test_a_page_that_refreshes_itself_is_one_look(scene: Scene) -> None:
    patient_id, refresh = scene.own.ids["patient_id"], {"hx-request": "true"}
    read = {"action": "patient.read", "patient": patient_id}

    async def looks() -> int:
        async with visiting(scene.installation, f"{Role.AUDITOR}@own.example") as auditor:
            exported = (await auditor.get("/console/audit/export", **read)).text
        return exported.count(f"patient.read,{patient_id}")

    async with visiting(scene.installation, f"{Role.VIEWER}@own.example") as visit:
        before = await looks()
        await visit.get(f"/console/patients/{patient_id}")
        for _ in range(3):
            assert (await visit.client.get(f"/console/patients/{patient_id}", headers=refresh)).status_code == 200
        assert await looks() == before + 1
        await visit.get(f"/console/patients/{patient_id}")  # looked at anew
        assert await looks() == before + 2
        scene.installation.clock.advance(minutes=16)
        await visit.client.get(f"/console/patients/{patient_id}", headers=refresh)
        assert await looks() == before + 3
