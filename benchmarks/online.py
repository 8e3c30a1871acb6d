"""Print what the online parts do on planted truth: drift alarms, exploration, choice of labels.

    python benchmarks/online.py

Takes about a minute on one core.
"""

import numpy as np

from routers.data import RoutingDataset
from routers.decision import Candidate, Decision
from routers.drift import DriftMonitor, Rate
from routers.exploration import DayPurse, Explorer
from routers.labelling import next_cells

RUNS = 1000


def alarmed(skill: float, was: float, grades: int, outcomes: int, **settings: float) -> float:
    """Return the share of streams of grades that raise an alarm."""
    rng, raised = np.random.default_rng(0), 0
    for _ in range(RUNS):
        before = Rate(float(rng.binomial(outcomes, was)), outcomes)
        monitor = DriftMonitor({("c", "e"): before}, **settings)  # type: ignore[arg-type]
        stream = (rng.random(grades) < skill).astype(float)
        raised += any(monitor.observe("c", "e", q) for q in stream)
    return raised / RUNS


def drift() -> None:
    """Print false alarms and power."""
    print(f"drift alarms, {RUNS} streams each")
    for outcomes in (50, 100, 500, 1_000_000):
        false = [alarmed(p, p, 200, outcomes) for p in (0.3, 0.5, 0.7, 0.9)]
        power = [alarmed(0.4, 0.7, n, outcomes) for n in (50, 100)]
        print(
            f"  {outcomes:>7} outcomes: false in 200 grades {min(false):.3f} to {max(false):.3f}"
            f"; 0.7 -> 0.4 noticed in 50 grades {power[0]:.2f}, in 100 {power[1]:.2f}"
        )
    published = alarmed(0.7, 0.7, 200, 1_000_000, window=20, threshold=0.2)
    print(f"  published window 20, threshold 0.2: false in 200 grades {published:.3f}")


def bandit(explorer: Explorer | None, seed: int, rate: float = 0.3, steps: int = 400) -> float:
    """Return the regret of a learner that explores by Explorer, or uniformly."""
    rng, skill = np.random.default_rng(seed), np.array([0.3, 0.4, 0.5, 0.6, 0.8])
    count, regret = np.full(5, 2.0), 0.0
    total = rng.binomial(2, skill).astype(float)
    for _ in range(steps):
        mean = (total + 1) / (count + 2)
        error = np.sqrt(mean * (1 - mean) / (count + 2))
        order = np.argsort(-mean)
        e = int(rng.integers(5)) if rng.random() < rate else int(order[0])
        if explorer is not None:
            candidates = tuple(
                Candidate(expert=str(i), quality=mean[i], error=error[i], cost=0.0, utility=mean[i])
                for i in order
            )
            decision = Decision((str(order[0]),), (mean[order[0]],), "", candidates, "", "usd")
            e = int(explorer.choose(decision, DayPurse()).primary)
        regret += skill.max() - skill[e]
        total[e] += rng.random() < skill[e]
        count[e] += 1
    return regret


def exploration() -> None:
    """Print the regret of three ways to explore."""
    print("regret over 400 queries, 5 experts, exploring 30 % of them, 40 runs")
    for name, method in (("uniform", None), ("thompson", "thompson"), ("ucb", "ucb")):
        explorer = None if method is None else Explorer(method=method, rate=0.3, seed=0)  # type: ignore[arg-type]
        regrets = [bandit(explorer, seed) for seed in range(40)]
        print(f"  {name:<9} {np.mean(regrets):5.1f} ± {np.std(regrets) / np.sqrt(40):.1f}")


def labelled(skill: np.ndarray, is_chosen: bool, seed: int, rounds: int, batch: int = 24) -> float:
    """Return the quality lost by trusting the table that these labels gave."""
    c, m = skill.shape
    names, experts = [f"c{i}" for i in range(c)], tuple(f"e{i}" for i in range(m))
    rng = np.random.default_rng(seed)
    right, wrong = np.ones(skill.shape), np.ones(skill.shape)
    rows: list[tuple[int, int, float]] = []
    for turn in range(rounds):
        if is_chosen:
            quality = np.full((len(rows) + c, m), np.nan)
            for i, (_, e, q) in enumerate(rows):
                quality[i, e] = q
            labels = (*(names[k] for k, _, _ in rows), *names)
            queries = tuple(f"q{i}" for i in range(len(labels)))
            data = RoutingDataset(
                queries=queries, experts=experts, quality=quality, category=labels
            )
            found = next_cells(data, batch, seed=100 * seed + turn)
            cells = [(int(k[1:]), int(e[1:])) for (k, e), n in found.items() for _ in range(n)]
        else:
            cells = [divmod((turn * batch + i) % (c * m), m) for i in range(batch)]
        for k, e in cells:
            q = float(rng.random() < skill[k, e])
            rows.append((k, e, q))
            right[k, e] += q
            wrong[k, e] += 1 - q
    chosen = (right / (right + wrong)).argmax(axis=1)
    return float((skill.max(axis=1) - skill[np.arange(c), chosen]).mean())


def labelling() -> None:
    """Print the regret of a category table after equally many labels."""
    print("quality lost by a table of 6 categories x 8 experts, 100 runs")
    for rounds in (5, 10, 20):
        rng = np.random.default_rng(0)
        skills = [
            (rng.uniform(0.3, 0.7, (1, 8)) + rng.normal(0, 0.15, (6, 8))).clip(0.02, 0.98)
            for _ in range(100)
        ]
        ours, even = (
            np.array([labelled(s, flag, i, rounds) for i, s in enumerate(skills)])
            for flag in (True, False)
        )
        error = np.std(even - ours) / 10
        print(
            f"  {24 * rounds} labels: chosen {ours.mean():.3f}, spread evenly {even.mean():.3f}, "
            f"difference {np.mean(even - ours):.3f} ± {error:.3f}"
        )


if __name__ == "__main__":
    drift()
    exploration()
    labelling()
