"""Single sign-on by a real OpenID provider: who is let in, as what, and what the others are told."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from tests.support.client import http_client
from tests.support.console import Visit, add_account, add_member, visiting
from tests.support.oidc_provider import OidcProvider, running_provider
from tests.support.ports import closed_port
from tests.support.server import Installation, running_installation

from chartwire.api.console.words import SIGN_ON_FAILURES
from chartwire.identity import Failure
from chartwire.model.member import Role
from chartwire.services.listing import Asked
from chartwire.store import members, schema
from chartwire.store.audit import AuditFilter

EMAIL = "ada@clinic.example"


@asynccontextmanager
async def signing_on(folder: Path, provider: OidcProvider, **settings: Any) -> AsyncIterator[Installation]:
    """An installation whose members sign in by the provider."""
    known = {"oidc_issuer": provider.issuer, "oidc_client_id": provider.client_id, **settings}
    async with running_installation(folder, **known) as installation:
        yield installation


async def sign_on(visit: Visit, change: Callable[[str], str] = lambda url: url) -> httpx.Response:
    """As a browser does it; `change` is done to the address that the provider sends it back to."""
    begun = await visit.client.get("/console/sso")
    if begun.status_code != 303:
        return begun
    async with http_client() as elsewhere:  # our cookies are not for the provider
        back = await elsewhere.get(begun.headers["location"])
    return await visit.get(change(back.headers["location"]))


async def whoami(visit: Visit) -> str:
    """What the first page says of who is signed in; empty if nobody is."""
    text = (await visit.get("/console")).text
    return text.partition('<a href="/console/me">')[2].partition("</span>")[0]


async def test_whom_an_owner_let_in_is_known_from_then_on_whatever_the_address(tmp_path: Path) -> None:
    async with running_provider() as provider, signing_on(tmp_path, provider) as installation:
        account_id = await add_account(installation)
        await add_member(installation, account_id, EMAIL, Role.AUDITOR)
        async with visiting(installation) as visit:
            assert "Single sign-on" in (await visit.get("/console/sign-in")).text
            answer = await sign_on(visit)
            assert (answer.status_code, answer.headers["location"]) == (303, "/console")
            assert EMAIL in await whoami(visit)
            left = await visit.post("/console/sign-out")
            page = (await visit.get(left.headers["location"])).text
            assert f"{provider.issuer}/logout?client_id=chartwire" in page
            assert await whoami(visit) == ""
        provider.person["email"] = "ada@elsewhere.example"
        async with visiting(installation) as visit:
            await sign_on(visit)
            assert EMAIL in await whoami(visit)
        provider.person |= {"sub": "43", "email": EMAIL}  # the address is somebody else's by now
        async with visiting(installation) as visit:
            assert_refused(await sign_on(visit), Failure.UNKNOWN_PERSON)
        audit = installation.parts[0].console.audit
        entries = (await audit.search(account_id, AuditFilter(action="console.sign-in"), Asked())).items
        assert [each.outcome for each in entries] == ["ok", "ok"]


def assert_refused(answer: httpx.Response, failure: Failure) -> None:
    """Nobody was let in, and the page says what to do."""
    assert answer.status_code in {403, 503}
    word = SIGN_ON_FAILURES[failure]
    assert word.label in answer.text.replace("&#39;", "'")
    assert word.advice in answer.text.replace("&#39;", "'")
    assert "set-cookie" not in answer.headers


FAULTS: dict[str, tuple[Callable[[OidcProvider], Any], Failure]] = {
    "nonce": (lambda it: it.claims.update(nonce="another"), Failure.NOT_PROVEN),
    "no nonce": (lambda it: it.claims.update(nonce=None), Failure.NOT_PROVEN),
    "audience": (lambda it: it.claims.update(aud="another"), Failure.NOT_PROVEN),
    "no audience": (lambda it: it.claims.update(aud=None), Failure.NOT_PROVEN),
    "party": (lambda it: it.claims.update(aud=["chartwire", "another"], azp="another"), Failure.NOT_PROVEN),
    "issuer": (lambda it: it.claims.update(iss="https://another.example"), Failure.NOT_PROVEN),
    "expired": (lambda it: it.claims.update(exp=1_700_000_000), Failure.NOT_PROVEN),
    "no end": (lambda it: it.claims.update(exp=None), Failure.NOT_PROVEN),
    "to come": (lambda it: it.claims.update(iat=4_000_000_000), Failure.NOT_PROVEN),
    "nobody": (lambda it: it.claims.update(sub=None), Failure.NOT_PROVEN),
    "foreign key": (lambda it: setattr(it, "published", False), Failure.NOT_PROVEN),
    "shared secret": (lambda it: setattr(it, "algorithm", "HS256"), Failure.NOT_PROVEN),
    "unverified": (lambda it: it.claims.update(email_verified=False), Failure.UNVERIFIED_EMAIL),
    "not said": (lambda it: it.claims.update(email_verified=None), Failure.UNVERIFIED_EMAIL),
    "no address": (lambda it: it.claims.update(email=None), Failure.UNVERIFIED_EMAIL),
    "stranger": (lambda it: it.claims.update(email="eve@clinic.example"), Failure.UNKNOWN_PERSON),
    "other issuer": (lambda it: it.metadata.update(issuer="https://another.example"), Failure.MISCONFIGURED),
    "no endpoint": (lambda it: it.metadata.update(authorization_endpoint=None), Failure.MISCONFIGURED),
    "no keys": (lambda it: it.metadata.update(jwks_uri=it.issuer + "/nowhere"), Failure.UNREACHABLE),
    "no token": (lambda it: it.metadata.update(token_endpoint=it.issuer + "/nowhere"), Failure.REFUSED),
    "down": (lambda it: it.metadata.update(token_endpoint="http://127.0.0.1:1/"), Failure.UNREACHABLE),
}


async def test_what_proves_nothing_lets_nobody_in(tmp_path: Path) -> None:
    secret_file = tmp_path / "secret"
    secret_file.write_text("s" * 32)
    async with (
        running_provider(secret="s" * 32) as provider,
        signing_on(tmp_path, provider, oidc_client_secret_file=secret_file) as installation,
        visiting(installation) as visit,
    ):
        await add_member(installation, await add_account(installation), EMAIL)
        provider.clock, sound = installation.clock, replace(provider, clock=installation.clock)
        for break_it, failure in FAULTS.values():
            break_it(provider)
            assert_refused(await sign_on(visit), failure)
            assert await whoami(visit) == ""
            installation.clock.advance(hours=2)  # what was learned of the provider is asked for anew
            provider.claims, provider.metadata = {}, {}
            provider.published, provider.algorithm = sound.published, sound.algorithm
        assert (await sign_on(visit)).status_code == 303


async def test_keys_that_we_do_not_understand_are_passed_over(tmp_path: Path) -> None:
    newer = {"kty": "EC", "crv": "P-999", "x": "AA", "y": "AA", "kid": "newer"}
    async with running_provider() as provider, signing_on(tmp_path, provider) as installation:
        await add_member(installation, await add_account(installation), EMAIL)
        provider.others = [
            newer,
            {"kty": "PQ", "kid": "newest"},
            {"kty": "EC"},
            {"kty": "RSA", "n": "!", "e": "!"},
            "x",
        ]
        async with visiting(installation) as visit:
            assert (await sign_on(visit)).status_code == 303
        provider.others, provider.published = [newer], False
        installation.clock.advance(hours=2)  # what was learned of the provider is asked for anew
        async with visiting(installation) as visit:
            assert_refused(await sign_on(visit), Failure.NOT_PROVEN)


async def test_what_comes_back_must_be_what_was_begun_here_and_lately(tmp_path: Path) -> None:
    async with running_provider() as provider, signing_on(tmp_path, provider) as installation:
        await add_member(installation, await add_account(installation), EMAIL)
        seen: list[str] = []

        def remember(url: str) -> str:
            seen.append(url)
            return url

        async with visiting(installation) as visit, visiting(installation) as other:
            assert_refused(await sign_on(visit, lambda url: url.replace("state=", "state=x")), Failure.STALE)
            assert_refused(await sign_on(visit, lambda url: url.replace("code=", "error=")), Failure.REFUSED)
            assert (await sign_on(visit, remember)).status_code == 303
            assert_refused(await visit.get(seen[0]), Failure.STALE)  # the ticket was taken back
            assert_refused(await other.get(seen[0]), Failure.STALE)  # it never had it
            assert_refused(await other.get("/console/sso/callback"), Failure.STALE)
            begun = await other.client.get("/console/sso")
            async with http_client() as elsewhere:
                back = await elsewhere.get(begun.headers["location"])
            other.client.cookies.set("chartwire-sso", "00")
            assert_refused(await other.get(back.headers["location"]), Failure.STALE)
            other.client.cookies.clear()
            changed = await sign_on(other, lambda url: url.partition("&iss=")[0] + "&iss=https%3A%2F%2Fanother.example")
            assert_refused(changed, Failure.NOT_PROVEN)


async def test_a_code_is_good_once_and_with_its_verifier_alone(tmp_path: Path) -> None:
    async with running_provider() as provider, signing_on(tmp_path, provider) as installation:
        await add_member(installation, await add_account(installation), EMAIL)

        def of_another(url: str) -> str:
            for asked in provider.codes.values():
                asked["code_challenge"] = "of another sign-in"
            return url

        def too_late(url: str) -> str:
            installation.clock.advance(minutes=10)
            return url

        async with visiting(installation) as visit:
            assert_refused(await sign_on(visit, of_another), Failure.REFUSED)
            assert_refused(await sign_on(visit, too_late), Failure.STALE)


async def test_keys_may_change_addresses_come_from_user_info_and_secrets_are_shown(tmp_path: Path) -> None:
    secret_file = tmp_path / "secret"
    secret_file.write_text("a secret: 100 %\n")
    person = {"sub": "42"}
    user_info = {"sub": "42", "email": EMAIL.upper(), "email_verified": True}
    async with (
        running_provider(secret="a secret: 100 %", person=person, user_info=user_info) as provider,
        signing_on(tmp_path, provider, oidc_client_secret_file=secret_file) as installation,
    ):
        await add_member(installation, await add_account(installation), EMAIL)
        for _ in range(2):
            async with visiting(installation) as visit:
                assert (await sign_on(visit)).status_code == 303
                assert EMAIL in await whoami(visit)
            provider.rotate()
        provider.user_info = {**user_info, "sub": "43"}
        async with visiting(installation) as visit:
            assert_refused(await sign_on(visit), Failure.NOT_PROVEN)


ROLES = {"cw-admins": "owner", "cw-devs": "developer", "cw-view": "viewer"}


async def test_where_roles_are_mapped_the_provider_decides_and_an_owner_stays(tmp_path: Path) -> None:
    async with (
        running_provider() as provider,
        signing_on(tmp_path, provider, oidc_roles=ROLES, oidc_account="acc1") as installation,
    ):
        provider.person["groups"] = ["staff", "cw-view", "cw-devs"]

        async def role_after(*groups: str) -> str:
            provider.person["groups"] = list(groups)
            async with visiting(installation) as visit:
                assert (await sign_on(visit)).status_code == 303
                return (await whoami(visit)).rpartition(">")[2]

        async with visiting(installation) as visit:
            assert_refused(await sign_on(visit), Failure.MISCONFIGURED)  # there is no such account
            row = schema.account.insert().values(id="acc1", name="Clinic", created_at=installation.clock())
            await installation.database.write(lambda connection: connection.execute(row))
            provider.person["groups"] = ["staff"]
            assert_refused(await sign_on(visit), Failure.NO_ROLE)
        assert await role_after("staff", "cw-view", "cw-devs") == "Developer"
        assert await role_after("cw-view") == "Viewer"
        assert await role_after("cw-admins") == "Owner"
        assert await role_after("cw-view") == "Owner"  # nobody else is one
        provider.person["groups"] = "cw-view"
        await add_member(installation, "acc1", "other@clinic.example")
        assert await role_after("cw-view") == "Viewer"
        known = await installation.database.read(lambda connection: members.list_members(connection, "acc1"))
        assert [(each.email, each.role) for each in known] == [
            (EMAIL, Role.VIEWER), ("other@clinic.example", Role.OWNER)
        ]  # fmt: skip


async def test_a_member_of_another_account_is_there_what_its_owners_made_it(tmp_path: Path) -> None:
    async with (
        running_provider() as provider,
        signing_on(tmp_path, provider, oidc_roles=ROLES, oidc_account="acc1") as installation,
    ):
        other = await add_account(installation, "Other clinic")
        await add_member(installation, other, EMAIL, Role.AUDITOR)
        provider.person["groups"] = ["cw-admins"]
        async with visiting(installation) as visit:
            assert (await sign_on(visit)).status_code == 303
            assert (await whoami(visit)).rpartition(">")[2] == "Auditor"


async def test_without_a_provider_there_is_no_such_way(tmp_path: Path) -> None:
    async with running_installation(tmp_path) as installation, visiting(installation) as visit:
        assert "Single sign-on" not in (await visit.get("/console/sign-in")).text
        assert_refused(await visit.get("/console/sso"), Failure.MISCONFIGURED)
        assert_refused(await visit.get("/console/sso/callback"), Failure.STALE)


async def test_a_provider_that_is_down_says_so_and_passwords_work(tmp_path: Path) -> None:
    with closed_port() as port:
        async with signing_on(tmp_path, OidcProvider(f"http://127.0.0.1:{port}")) as installation:
            await add_member(installation, await add_account(installation), EMAIL)
            async with visiting(installation, EMAIL) as visit:
                assert EMAIL in await whoami(visit)
                assert (await visit.get((await visit.post("/console/sign-out")).headers["location"])).status_code == 200
                assert_refused(await visit.get("/console/sso"), Failure.UNREACHABLE)
