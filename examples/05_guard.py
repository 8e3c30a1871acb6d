"""Pin a baseline, leave it only on evidence, and let a policy pick more than one expert."""

from routers.auto import AutoRouter
from routers.guard import Guard
from routers.selection import TopP
from routers.testing import HashingEncoder, synthetic_outcomes

QUESTIONS = 600


def main() -> None:
    """Fit the default router on made-up outcomes, in which each expert has its own category."""
    data = synthetic_outcomes(n=QUESTIONS)
    train, test = data.select(range(400)), data.select(range(400, QUESTIONS))
    router = AutoRouter(encoder=HashingEncoder()).fit(train).rehearse(train)

    guard = Guard.fit(router.state_, router.experts_, "expert-0", confidence=0.95)
    for name, evidence in (("no dearer", guard.cheap), ("dearer", guard.dear)):
        gain = "none" if evidence.gain is None else f"{evidence.gain:+.2f}"
        print(f"{name} experts: paired gain {gain} on {evidence.queries} queries")

    free = [router.route(query).primary for query in test.queries]
    safe = [router.route(query, transforms=[guard]).primary for query in test.queries]
    for label, chosen in (("router", free), ("with guard", safe)):
        columns = [data.experts.index(name) for name in chosen]
        mean = sum(row[c] for row, c in zip(test.quality, columns, strict=True)) / len(test)
        leaves = 1 - chosen.count("expert-0") / len(test)
        print(f"{label}: quality {mean:.2f}, leaves the baseline {leaves:.0%}")

    decision = router.route(test.queries[0], policy=TopP(p=0.9), temperature=0.2)
    shares = zip(decision.experts, decision.weights, strict=True)
    print("top-p:", ", ".join(f"{name} {share:.2f}" for name, share in shares))
    print("explained:", router.route("something else entirely", transforms=[guard]).reason)


if __name__ == "__main__":
    main()
