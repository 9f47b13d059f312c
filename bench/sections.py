"""What is compared, a section at a time; the goals are those of `docs/explanation/performance.md`.

R, A, T and F are the bare machine (`bench.bare`); M is the engine on a database that no disk is behind.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from bench import bare, broker, cluster, engine, intake, parts
from bench.comparing import Comparison, Goal, Take, compare
from bench.engine import Ground
from bench.sink import Crowd, Receivers, receivers
from bench.turns import Turn, take_turn
from chartwire.settings import Settings

_INGEST_PER_SECOND = 2_500.0
_IN_FLIGHT = Settings().webhook_concurrency


@dataclass(frozen=True, slots=True)
class Scale:
    """How thoroughly to measure: `count` messages per turn, open loops for `seconds`."""

    folder: str
    rounds: int = 5
    count: int = 10_000
    seconds: float = 5
    hosts: tuple[int, ...] = (1, 10, 100)
    backlog: int = 1_000_000
    postgres: str = ""


Section = Callable[[Scale], Iterator[Comparison]]


def throughput(scale: Scale) -> Iterator[Comparison]:
    """G1, G3, G5, G6: messages per second, 2 KB."""
    goals = (
        Goal("G1", "drain a durable backlog ÷ R", "drain", "R", at_least=0.70),
        Goal("G3", "commit and deliver ÷ R", "full", "R", at_least=0.55),
        Goal("G5", "commit and deliver ÷ bare aiohttp", "full", "A", at_least=2.5),
        Goal("G6", "commit and deliver ÷ the same in memory", "full", "M full", at_least=0.50),
        Goal("", "the parts of a drain alone ÷ R", "parts", "R"),
        Goal("", "drain a durable backlog ÷ its parts alone", "drain", "parts"),
        Goal("", "the parts of committing and delivering alone ÷ R", "parts full", "R"),
        Goal("", "the parts of committing and delivering alone ÷ bare aiohttp", "parts full", "A"),
        Goal("", "commit and deliver ÷ its parts alone", "full", "parts full"),
    )
    for hosts in scale.hosts:
        yield _throughput(scale, hosts, 2048, goals)


def large(scale: Scale) -> Iterator[Comparison]:
    """G4: messages per second, 17 KB."""
    goals = (
        Goal("", "drain a durable backlog ÷ R", "drain", "R"),
        Goal("G4", "commit and deliver ÷ R", "full", "R", at_least=0.40),
        Goal("", "the parts of committing and delivering alone ÷ R", "parts full", "R"),
    )
    yield _throughput(scale, max(scale.hosts), 17 * 1024, goals)


def _throughput(scale: Scale, hosts: int, body: int, goals: tuple[Goal, ...]) -> Comparison:
    with receivers(Crowd(hosts)) as them:
        ground, memory = Ground(scale.folder, them, body), Ground(engine.memory_folder(), them, body)
        in_flight = min(_IN_FLIGHT, 128 * hosts)  # as many as the engine
        sides: dict[str, Take] = {
            "R": partial(take_turn, bare.post_all, bare.bare, them, 2 * scale.count, body, in_flight),
            "parts": partial(take_turn, parts.drain, ground, scale.count),
            "parts full": partial(take_turn, parts.full, ground, scale.count),
            "drain": partial(take_turn, engine.drain, ground, scale.count),
            "full": partial(take_turn, engine.full, ground, scale.count),
            "A": partial(take_turn, bare.post_all, bare.with_aiohttp, them, scale.count // 2, body, in_flight),
            "M full": partial(take_turn, engine.full, memory, scale.count),
        }
        asked = {name for goal in goals for name in (goal.ours, goal.bare)}
        chosen = {name: side for name, side in sides.items() if name in asked}
        return compare(f"{hosts} hosts, {body / 1024:.0f} KiB", chosen, goals, scale.rounds)


def latency(scale: Scale) -> Iterator[Comparison]:
    """G7 to G10, G12: how long a message takes at half of what the full path can do, and an acknowledgement."""
    hosts = max(scale.hosts)
    with receivers(Crowd(hosts)) as them:
        ground, memory = Ground(scale.folder, them), Ground(engine.memory_folder(), them)
        most = take_turn(engine.full, ground, scale.count).per_second
        half, ingest = most / 2, min(_INGEST_PER_SECOND, most * 0.8)

        def steadily(where: Ground, per_second: float) -> Take:
            return partial(take_turn, engine.steady, where, per_second, scale.seconds)

        yield compare(
            f"{hosts} hosts, {half:,.0f}/s, half of what it can do",
            {
                "T": partial(take_turn, bare.post_all, bare.bare, them, 2_000, 2048, 1),
                "half": steadily(ground, half),
                "M half": steadily(memory, half),
            },
            (
                Goal("G7", "commit to answer, p50 ÷ T's p50", "half", "T", "p50_milliseconds", at_most=5),
                Goal("G8", "commit to answer, p99 ÷ M's p99", "half", "M half", "p99_milliseconds", at_most=2),
            ),
            scale.rounds,
        )
        yield compare(
            f"{hosts} hosts, {ingest:,.0f}/s",
            {
                "F": partial(take_turn, bare.sync_writes, scale.folder, 2_000),
                "ingest": steadily(ground, ingest),
            },
            (
                Goal("G9", "ingest acknowledged, p50 ÷ F's p50", "ingest", "F", "ack_p50_milliseconds", at_most=5),
                Goal("G10", "ingest acknowledged, p99 ÷ F's p99", "ingest", "F", "ack_p99_milliseconds", at_most=10),
            ),
            scale.rounds,
        )
        calm = min(1_000.0, most * 0.8)
        yield compare(
            f"{hosts} hosts, {calm:,.0f}/s",
            {"calm": steadily(ground, calm), "M calm": steadily(memory, calm)},
            (Goal("G12", "CPU per message ÷ M's", "calm", "M calm", "cpu_microseconds", at_most=1.4),),
            scale.rounds,
        )


def tls(scale: Scale) -> Iterator[Comparison]:
    """G13: what TLS costs over connections that are kept, and how often one is used again."""
    hosts = max(scale.hosts)
    with receivers(Crowd(hosts)) as plain, receivers(Crowd(hosts), encrypted=True) as encrypted:
        sides: dict[str, Take] = {
            "plain": partial(take_turn, engine.drain, Ground(scale.folder, plain), scale.count),
            "TLS": partial(take_turn, engine.drain, Ground(scale.folder, encrypted), scale.count),
            "all": lambda: take_turn(_whole),
        }
        goals = (
            Goal("G13", "drain over TLS ÷ plain", "TLS", "plain", at_least=0.75),
            Goal("G13", "posts over a connection that was there (after a warm-up)", "TLS", "all", "reuse", 0.99),
        )
        yield compare(f"{hosts} hosts", sides, goals, scale.rounds)


async def _whole() -> Turn:
    return Turn(reuse=1)


def client(scale: Scale) -> Iterator[Comparison]:
    """The delivery client alone beside the bare one and aiohttp (`docs/decisions/0014`)."""
    for encrypted in (False, True):
        for hosts in scale.hosts:
            with receivers(Crowd(hosts), encrypted=encrypted) as them:
                clients = {"R": bare.bare, "ours": bare.ours, "A": bare.with_aiohttp}
                sides: Mapping[str, Take] = {
                    name: partial(take_turn, bare.post_all, each, them, scale.count, 2048, 128)
                    for name, each in clients.items()
                }
                goals = (
                    Goal("", "the delivery client alone ÷ R", "ours", "R"),
                    Goal("", "aiohttp alone ÷ R", "A", "R"),
                )
                where = f"{hosts} hosts, {'TLS' if encrypted else 'plain'}"
                yield compare(where, sides, goals, scale.rounds)


_AS_INSTALLED = 16  # attempts at one endpoint: the limit is a part of what keeps others apart


def isolation(scale: Scale) -> Iterator[Comparison]:
    """What endpoints that are ill cost those that are well."""
    hosts = max(scale.hosts)
    with (
        receivers(Crowd(hosts - 1)) as well,
        receivers(Crowd(hosts, hanging=1)) as hanging,
        receivers(Crowd(hosts - hosts * 3 // 10)) as most,
        receivers(Crowd(hosts, failing=hosts * 3 // 20, slow=hosts * 3 // 20)) as ill,
    ):
        most_per_second = take_turn(engine.full, Ground(scale.folder, well), scale.count).per_second
        rate = min(1_000.0, most_per_second / 2)

        def steadily(them: Receivers, waiting: int) -> Take:
            ground = Ground(scale.folder, them, endpoint_limit=_AS_INSTALLED)
            return partial(take_turn, engine.steady, ground, rate, scale.seconds, waiting)

        yield compare(
            f"{rate:,.0f}/s to {hosts - 1} that are well",
            {"alone": steadily(well, 0), "beside": steadily(hanging, 10_000)},
            (
                Goal("", "p99 beside one that hangs with 10,000 waiting ÷ without", "beside", "alone",
                     "p99_milliseconds", at_most=1.2),
            ),
            scale.rounds,
        )  # fmt: skip
        yield compare(
            f"{rate:,.0f}/s to {hosts - hosts * 3 // 10} that are well",
            {"alone": steadily(most, 0), "beside": steadily(ill, 300)},
            (
                Goal("", "p99 beside 30 % that answer 500 or late ÷ without", "beside", "alone",
                     "p99_milliseconds", at_most=1.2),
            ),
            scale.rounds,
        )  # fmt: skip


def backlog(scale: Scale) -> Iterator[Comparison]:
    """What a backlog costs: its first messages beside a thousand that wait again and again."""
    with receivers(Crowd(max(scale.hosts))) as them:
        ground = Ground(scale.folder, them)
        sides: dict[str, Take] = {
            "1,000": partial(take_turn, engine.backlog, ground, 1_000, scale.count),
            f"{scale.backlog:,}": partial(take_turn, engine.backlog, ground, scale.backlog, scale.count),
        }
        goals = (
            Goal("", f"drain of {scale.backlog:,} waiting ÷ of 1,000", f"{scale.backlog:,}", "1,000", at_least=0.9),
        )
        yield compare(f"{max(scale.hosts)} hosts", sides, goals, scale.rounds)


def postgres(scale: Scale) -> Iterator[Comparison]:
    """G2: messages per second with a PostgreSQL that has the other core; measured only if there is one."""
    if not scale.postgres:
        return
    with receivers(Crowd(max(scale.hosts))) as them:
        ground = Ground(scale.folder, them, postgres=scale.postgres)
        sides: dict[str, Take] = {
            "R": partial(take_turn, bare.post_all, bare.bare, them, scale.count, 2048, _IN_FLIGHT),
            "drain": partial(take_turn, engine.drain, ground, scale.count),
            "full": partial(take_turn, engine.full, ground, scale.count),
        }
        goals = (
            Goal("G2", "drain a durable backlog in PostgreSQL ÷ R", "drain", "R", at_least=0.80),
            Goal("", "commit and deliver ÷ R", "full", "R"),
        )
        yield compare(f"{max(scale.hosts)} hosts", sides, goals, scale.rounds)


def documents(scale: Scale) -> Iterator[Comparison]:
    """Megabytes per second of a document into the sealed store, beside a plain copy with a hash."""
    sides: dict[str, Take] = {"ours": partial(take_turn, intake.store), "copy": partial(take_turn, intake.copy)}
    goals = (Goal("", "store a document (MB/s) ÷ copy a file with a hash", "ours", "copy"),)
    yield compare("64 MiB", sides, goals, scale.rounds)


_PROCESSES = (0, 1, 2, 4)


def several(scale: Scale) -> Iterator[Comparison]:
    """Messages per second by delivery processes of the cluster profile, beside the embedded profile (0)."""
    cluster.expect_postgres()
    with receivers(Crowd(max(scale.hosts))) as them:
        sides: dict[str, Take] = {
            str(number): partial(take_turn, cluster.deliver, them, number, scale.count) for number in _PROCESSES
        }
        goals = tuple(
            Goal("", f"deliver by {number} processes on PostgreSQL ÷ embedded", str(number), "0")
            for number in _PROCESSES[1:]
        )
        yield compare(f"{max(scale.hosts)} hosts", sides, goals, scale.rounds)


def intake_of_several(scale: Scale) -> Iterator[Comparison]:
    """Documents per second by ingesting processes of the cluster profile with a bucket, beside the embedded profile."""
    cluster.expect_postgres()
    documents = cluster.Documents(patients=max(4, scale.count // 100), each=10, size=100_000)
    sides: dict[str, Take] = {
        str(number): partial(take_turn, cluster.intake, documents, number) for number in _PROCESSES
    }
    goals = tuple(
        Goal("", f"keep documents by {number} processes, PostgreSQL and a bucket ÷ embedded", str(number), "0")
        for number in _PROCESSES[1:]
    )
    yield compare(f"{documents.size / 1000:.0f} kB each", sides, goals, scale.rounds)


def tickets(scale: Scale) -> Iterator[Comparison]:
    """Tickets per second of NATS JetStream: published, acknowledged, taken."""
    yield compare("3 KiB", {"tickets": partial(take_turn, broker.carry, scale.count)}, (), scale.rounds)


SECTIONS: Mapping[str, Section] = {
    "throughput": throughput,
    "large": large,
    "latency": latency,
    "tls": tls,
    "isolation": isolation,
    "backlog": backlog,
    "client": client,
    "postgres": postgres,
    "documents": documents,
    "cluster": several,
    "intake": intake_of_several,
    "tickets": tickets,
}


def measure(name: str, scale: Scale) -> Iterator[tuple[Comparison, float]]:
    """The comparisons of a section, each with the seconds it took."""
    started = time.monotonic()
    for comparison in SECTIONS[name](scale):
        yield comparison, time.monotonic() - started
        started = time.monotonic()
