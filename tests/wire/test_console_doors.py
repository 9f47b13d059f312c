"""Coming into the console and staying out: sign-in, back-off, sessions, second factor, forms of other sites, set-up."""

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select
from tests.support.console import PASSWORD, SAME_ORIGIN, Visit, add_account, add_member, visiting
from tests.support.server import Installation, running_installation

from chartwire.services.members import setup_token
from chartwire.services.second_factor import code_at
from chartwire.store import schema
from chartwire.store.vault import Vault

EMAIL = "ada@clinic.example"
OUT = "/console/sign-in"


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    async with running_installation(tmp_path) as installation:
        await add_member(installation, await add_account(installation), EMAIL)
        yield installation


@pytest.fixture
async def visit(installation: Installation) -> AsyncIterator[Visit]:
    async with visiting(installation) as visit:
        yield visit


def is_out(answer: httpx.Response) -> bool:
    return answer.status_code == 303 and answer.headers["location"] == OUT


def problem_in(answer: httpx.Response) -> str:
    found = re.search(r'role="alert">([^<]+)<', answer.text)
    assert found is not None, answer.text
    return found[1]


async def test_a_member_comes_in_and_goes_out(visit: Visit) -> None:
    assert is_out(await visit.get("/console"))
    assert (await visit.sign_in(" ADA@clinic.example ")).headers["location"] == "/console"
    assert "Needs attention" in (await visit.get("/console")).text
    token = visit.client.cookies["chartwire"]
    assert is_out(await visit.post("/console/sign-out"))
    visit.client.cookies.set("chartwire", token)
    assert is_out(await visit.get("/console"))  # the session is over, not only forgotten by the browser


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(visit: Visit) -> None:
    cookie = (await visit.sign_in(EMAIL)).headers["set-cookie"]
    assert re.fullmatch(r"chartwire=[\w-]{43}; HttpOnly; Path=/; SameSite=lax", cookie)


async def test_behind_https_the_cookie_is_of_this_host_and_tls_alone(tmp_path: Path) -> None:
    async with running_installation(tmp_path, public_url="https://chartwire.example") as installation:
        await add_member(installation, await add_account(installation), EMAIL)
        async with visiting(installation) as visit:
            form = {"email": EMAIL, "password": PASSWORD}
            answer = await visit.client.post(OUT, data=form, headers=SAME_ORIGIN)
    cookie = answer.headers["set-cookie"]
    assert re.fullmatch(r"__Host-chartwire=[\w-]{43}; HttpOnly; Path=/; SameSite=lax; Secure", cookie)


async def test_the_token_itself_is_not_in_the_database(installation: Installation, visit: Visit) -> None:
    await visit.sign_in(EMAIL)
    rows = {
        table.name: str(await installation.database.read(lambda it: it.execute(select(table)).all()))  # noqa: B023
        for table in schema.metadata.sorted_tables
    }
    assert hashlib.sha256(visit.client.cookies["chartwire"].encode()).hexdigest() in rows["member_session"]
    assert not [name for name, text in rows.items() if visit.client.cookies["chartwire"] in text]


async def test_nobody_learns_which_addresses_are_members(installation: Installation, visit: Visit) -> None:
    installation.clock.stop()  # an answer tells how many seconds to wait
    answers = []
    for email in (EMAIL, "nobody@clinic.example"):
        for _ in range(6):
            answer = await visit.sign_in(email, "wrong")
            answers.append((email, answer.status_code, problem_in(answer)))
    assert [each[1:] for each in answers[:6]] == [each[1:] for each in answers[6:]]


async def test_after_five_failures_signing_in_waits_longer_each_time(installation: Installation, visit: Visit) -> None:
    installation.clock.stop()
    for _ in range(5):
        assert (await visit.sign_in(EMAIL, "wrong")).status_code == 403
    for seconds in (30, 60, 120, 240, 480, 900, 900):
        blocked = await visit.sign_in(EMAIL)  # the right password gains nothing
        assert (blocked.status_code, f"in {seconds} s" in problem_in(blocked)) == (429, True)
        installation.clock.advance(seconds=seconds)
        assert (await visit.sign_in(EMAIL, "wrong")).status_code == 403
    installation.clock.advance(seconds=900)
    assert (await visit.sign_in(EMAIL)).status_code == 303
    await visit.post("/console/sign-out")
    assert (await visit.sign_in(EMAIL, "wrong")).status_code == 403  # a success begins anew


async def test_a_session_ends_when_it_is_not_used_and_after_its_time(installation: Installation, visit: Visit) -> None:
    await visit.sign_in(EMAIL)
    for _ in range(25):
        installation.clock.advance(minutes=28)
        assert (await visit.get("/console/me")).status_code == 200
    installation.clock.advance(minutes=28)  # used all the time, for more than 12 hours
    assert is_out(await visit.get("/console/me"))
    await visit.sign_in(EMAIL)
    installation.clock.advance(minutes=31)
    assert is_out(await visit.get("/console/me"))


async def test_a_token_that_was_planted_is_not_taken_over(visit: Visit) -> None:
    planted = "A" * 43
    visit.client.cookies.set("chartwire", planted)
    answer = await visit.client.post(OUT, data={"email": EMAIL, "password": PASSWORD}, headers=SAME_ORIGIN)
    assert answer.status_code == 303
    assert planted not in answer.headers["set-cookie"]


async def test_a_new_password_ends_every_other_session(installation: Installation, visit: Visit) -> None:
    await visit.sign_in(EMAIL)
    async with visiting(installation, EMAIL) as other:
        new = "another long pass phrase"
        assert (await visit.post("/console/me/password", current="wrong", new=new)).status_code == 400
        assert (await visit.post("/console/me/password", current=PASSWORD, new="short")).status_code == 400
        assert (await visit.post("/console/me/password", current=PASSWORD, new=new)).status_code == 303
        assert is_out(await other.get("/console/me"))
        assert (await visit.get("/console/me")).status_code == 200
        assert (await other.sign_in(EMAIL)).status_code == 403
        assert (await other.sign_in(EMAIL, new)).status_code == 303


async def test_with_a_second_factor_the_password_alone_opens_nothing(installation: Installation, visit: Visit) -> None:
    installation.clock.stop()
    await visit.sign_in(EMAIL)
    page = (await visit.post("/console/me/second-factor")).text
    secret = base64.b32decode(re.search(r'id="totp-secret">([A-Z2-7]+)<', page)[1])  # type: ignore[index]
    ticket = re.search(r'name="ticket" value="([0-9a-f]+)"', page)[1]  # type: ignore[index]
    confirm = "/console/me/second-factor/confirm"
    assert (await visit.post(confirm, ticket=ticket, code="000000")).status_code == 400
    assert (await visit.post(confirm, ticket=ticket, code=code_at(secret, installation.clock()))).status_code == 303
    await visit.post("/console/sign-out")

    async def with_code(code: str) -> httpx.Response:
        asked = await visit.sign_in(EMAIL)
        word = re.search(r'name="ticket" value="([0-9a-f]+)"', asked.text)[1]  # type: ignore[index]
        assert is_out(await visit.get("/console"))
        return await visit.client.post(f"{OUT}/code", data={"ticket": word, "code": code}, headers=SAME_ORIGIN)

    assert (await with_code(code_at(secret, installation.clock()))).status_code == 403  # used when it was confirmed
    assert (await with_code("123456")).status_code == 403
    installation.clock.advance(seconds=30)
    code = code_at(secret, installation.clock())
    assert (await with_code(code)).status_code == 303
    await visit.get("/console/me")
    await visit.post("/console/sign-out")
    assert (await with_code(code)).status_code == 403  # once each


async def test_codes_cannot_be_guessed_one_after_the_other(installation: Installation, visit: Visit) -> None:
    installation.clock.stop()
    await visit.sign_in(EMAIL)
    page = (await visit.post("/console/me/second-factor")).text
    secret = base64.b32decode(re.search(r'id="totp-secret">([A-Z2-7]+)<', page)[1])  # type: ignore[index]
    ticket = re.search(r'name="ticket" value="([0-9a-f]+)"', page)[1]  # type: ignore[index]
    await visit.post("/console/me/second-factor/confirm", ticket=ticket, code=code_at(secret, installation.clock()))
    await visit.post("/console/sign-out")
    asked = await visit.sign_in(EMAIL)
    word = re.search(r'name="ticket" value="([0-9a-f]+)"', asked.text)[1]  # type: ignore[index]
    statuses = [
        (
            await visit.client.post(f"{OUT}/code", data={"ticket": word, "code": f"{n:06}"}, headers=SAME_ORIGIN)
        ).status_code
        for n in range(8)
    ]
    assert statuses[:4] == [403] * 4
    assert statuses[-1] == 429


@pytest.mark.parametrize(
    ("word", "headers"),
    [
        ("", SAME_ORIGIN),
        ("0" * 64, SAME_ORIGIN),
        ("right", {"sec-fetch-site": "cross-site"}),
        ("right", {"sec-fetch-site": "same-site"}),
        ("right", {"origin": "https://evil.example"}),
        ("right", {"origin": "null"}),
    ],
)
async def test_a_form_of_another_site_does_nothing(visit: Visit, word: str, headers: dict[str, str]) -> None:
    await visit.sign_in(EMAIL)
    form = {"form_word": visit.word if word == "right" else word, "label": "planted"}
    answer = await visit.client.post("/console/keys", data=form, headers=headers)
    assert answer.status_code == 403
    assert "No key yet" in (await visit.get("/console/keys")).text


async def test_another_session_of_the_same_member_has_another_word(installation: Installation, visit: Visit) -> None:
    await visit.sign_in(EMAIL)
    async with visiting(installation, EMAIL) as other:
        assert other.word != visit.word
        answer = await visit.client.post("/console/keys", data={"form_word": other.word}, headers=SAME_ORIGIN)
        assert answer.status_code == 403


async def test_another_site_cannot_sign_somebody_in(visit: Visit) -> None:
    form = {"email": EMAIL, "password": PASSWORD}
    answer = await visit.client.post(OUT, data=form, headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


async def test_the_first_owner_comes_by_the_printed_link_once(tmp_path: Path) -> None:
    async with running_installation(tmp_path) as installation, visiting(installation) as visit:
        assert "Nobody can sign in yet" in (await visit.get(OUT)).text
        form = {"account": "My clinic", "email": "Ada@clinic.example", "password": PASSWORD}
        assert (await visit.post("/console/setup", token="0" * 40, **form)).status_code == 403
        token = setup_token(Vault(bytes(32)))
        for wrong in ({"password": "short"}, {"email": "nonsense"}, {"account": " "}):
            assert (await visit.post("/console/setup", token=token, **{**form, **wrong})).status_code == 400
        assert (await visit.post("/console/setup", token=token, **form)).headers["location"] == "/console"
        assert "First steps" in (await visit.get("/console")).text
        assert is_out(await visit.client.get("/console/setup", params={"token": token}))
        async with visiting(installation) as late:
            late_form = {**form, "email": "eve@clinic.example"}
            assert (await late.post("/console/setup", token=token, **late_form)).status_code == 403


async def test_odd_forms_get_a_page_that_says_so(visit: Visit) -> None:
    await visit.sign_in(EMAIL)
    for fields in ({"label": "a\0b"}, {"label": "x" * 20_000}):
        assert (await visit.post("/console/keys", **fields)).status_code == 400
    files = {"label": ("a.txt", b"content")}
    answer = await visit.client.post("/console/keys", data={"form_word": visit.word}, files=files, headers=SAME_ORIGIN)
    assert answer.status_code == 400
    for path in ("events?state=nonsense", "events?from=yesterday", "events?after=nonsense", "audit?after=x", "nowhere"):
        answer = await visit.get(f"/console/{path}")
        assert answer.status_code in {400, 404}, path
        assert "Nothing was changed" in answer.text
