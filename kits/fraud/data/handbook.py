"""Simulated card transactions after the specification in the Fraud Detection Handbook.

Written from the description of chapter 3 (Le Borgne, Siblini, Lebichot, Bontempi: Reproducible
Machine Learning for Credit Card Fraud Detection, ULB 2022), and drawing from the same random
streams in the same order, so that seed 0 gives the published 1,754,155 transactions row by row.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kits.fraud.data.cache import cached_events, write_columns
from kits.fraud.data.config import HandbookData
from kits.fraud.data.events import Events
from kits.fraud.data.progress import progress_bar
from kits.fraud.data.tokens import token_array

# Raise this when the same settings begin to give other events.
VERSION = 1
START_S = 1_522_540_800  # 2018-04-01 00:00 UTC
DAY_S = 86_400
PATTERN_NAMES = ("none", "amount_over_220", "compromised_terminal", "stolen_credentials")
LARGE_AMOUNT = 220.0
TERMINAL_DAYS = 28
CUSTOMER_DAYS = 14
# Worlds of different seeds share no stream of any customer or day.
SEED_STRIDE = 10_000_019


@dataclass
class _Transactions:
    """Transactions of all customers; n rows."""

    time_s: np.ndarray  # (n,) int64 seconds since the first day
    customer: np.ndarray  # (n,) int64
    terminal: np.ndarray  # (n,) int64
    amount: np.ndarray  # (n,) float64


def load(cfg: HandbookData, *, smoke: bool = False) -> Events:
    """Return the simulated transactions, generated on first use and then read from the cache."""
    if smoke:
        cfg = shrink(cfg)
    settings = asdict(cfg)
    for name in ("label_delay_days", "max_reject_share", "cache_dir"):
        del settings[name]
    return cached_events(
        cfg.cache_path(), settings | {"version": VERSION}, lambda folder: _build(cfg, folder)
    )


def shrink(cfg: HandbookData) -> HandbookData:
    """Return a tenth of the world, up to 2018-07-31; customers still have terminals to go to."""
    return replace(
        cfg,
        num_customers=max(1, cfg.num_customers // 10),
        num_terminals=max(1, cfg.num_terminals // 10),
        num_days=min(cfg.num_days, 122),
        radius=cfg.radius * 10**0.5,
        terminals_per_day=min(cfg.terminals_per_day, 1),
        customers_per_day=min(cfg.customers_per_day, 1),
    )


def _build(cfg: HandbookData, folder: Path) -> dict[str, Any]:
    rows = _draw_transactions(cfg)
    # Ties keep the order that numpy's introsort gives them, as in the published set: dates are
    # sorted by it everywhere, integers by whatever the processor does fastest.
    order = np.argsort(rows.time_s.view("M8[s]"), kind="quicksort")
    rows = _Transactions(*(getattr(rows, name)[order] for name in _Transactions.__annotations__))
    pattern = _add_frauds(cfg, rows)
    num_rows = len(order)
    customers = token_array("account", range(cfg.num_customers))
    terminals = token_array("terminal", range(cfg.num_terminals))
    time_s = rows.time_s + START_S
    write_columns(
        folder,
        {
            "tx_id": np.arange(num_rows, dtype=np.int64),
            "time_s": time_s,
            "entities": np.stack([customers[rows.customer], terminals[rows.terminal]], axis=1),
            "amount": rows.amount,
            "categorical": np.empty((num_rows, 0), np.uint64),
            "numeric": np.empty((num_rows, 0), np.float32),
            "label": (pattern > 0).astype(np.int8),
            "label_time_s": time_s,
            "pattern": pattern,
        },
    )
    return {
        "entity_roles": ("account", "counterparty"),
        "entity_kinds": ("account", "terminal"),
        "categorical_names": (),
        "numeric_names": (),
        "pattern_names": PATTERN_NAMES,
        "clock": "seconds",
        "name": "handbook",
    }


def _draw_transactions(cfg: HandbookData) -> _Transactions:
    """Draw every customer's transactions, in the order of customers and of their draws."""
    shift = cfg.seed * SEED_STRIDE
    profiles = _random_state(shift).random_sample((cfg.num_customers, 4))
    place = 100.0 * profiles[:, :2]
    mean_amount = 5.0 + 95.0 * profiles[:, 2]
    per_day = 4.0 * profiles[:, 3]
    terminals = 100.0 * _random_state(shift + 1).random_sample((cfg.num_terminals, 2))

    times, amounts, chosen, counts = [], [], [], np.zeros(cfg.num_customers, np.int64)
    with progress_bar("handbook", cfg.num_customers) as advance:
        for customer in range(cfg.num_customers):
            distance = np.sqrt(((place[customer] - terminals) ** 2).sum(axis=1))
            near = np.flatnonzero(distance < cfg.radius).tolist()
            if near:
                seed = shift + customer
                time_s, amount = _draw_customer(
                    seed, cfg.num_days, mean_amount[customer].item(), per_day[customer].item()
                )
                # The choice of terminals has a stream of its own.
                choice = random.Random(seed).choice
                chosen.append(np.array([choice(near) for _ in time_s], np.int64))
                times.append(np.array(time_s, np.int64))
                amounts.append(np.array(amount, np.float64))
                counts[customer] = len(time_s)
            advance(1)
    if not counts.any():
        raise ValueError(
            f"data.radius={cfg.radius} gives no customer a terminal; set data.radius larger"
        )
    return _Transactions(
        time_s=np.concatenate(times),
        customer=np.repeat(np.arange(cfg.num_customers), counts),
        terminal=np.concatenate(chosen),
        amount=np.round(np.concatenate(amounts), 2),
    )


def _draw_customer(
    seed: int, num_days: int, mean_amount: float, per_day: float
) -> tuple[list[int], list[float]]:
    """Draw times (seconds since the first day) and unrounded amounts of one customer."""
    state = _random_state(seed)
    poisson, gauss, uniform = state.poisson, state.standard_normal, state.random_sample
    deviation = mean_amount / 2
    times, amounts = [], []
    for start_s in range(0, num_days * DAY_S, DAY_S):
        for _ in range(poisson(per_day)):
            second = int(DAY_S / 2 + 20_000 * gauss())
            if 0 < second < DAY_S:
                amount = mean_amount + deviation * gauss()
                if amount < 0:
                    amount = mean_amount * 2 * uniform()
                times.append(start_s + second)
                amounts.append(amount)
    return times, amounts


def _add_frauds(cfg: HandbookData, rows: _Transactions) -> np.ndarray:
    """Give every transaction its scenario, later ones winning; raises stolen amounts in place."""
    shift = cfg.seed * SEED_STRIDE
    pattern = np.zeros(len(rows.time_s), np.int8)
    pattern[rows.amount > LARGE_AMOUNT] = 1
    day = rows.time_s // DAY_S
    by_terminal = _rows_by_value(rows.terminal, cfg.num_terminals)
    by_customer = _rows_by_value(rows.customer, cfg.num_customers)
    # The last day compromises nobody anew.
    for first_day in range(int(day[-1])):
        for terminal in _draw_distinct(shift + first_day, cfg.num_terminals, cfg.terminals_per_day):
            row = by_terminal[terminal]
            is_hit = (day[row] >= first_day) & (day[row] < first_day + TERMINAL_DAYS)
            pattern[row[is_hit]] = 2
    for first_day in range(int(day[-1])):
        customers = _draw_distinct(shift + first_day, cfg.num_customers, cfg.customers_per_day)
        if not len(customers):
            continue
        row = np.sort(np.concatenate([by_customer[customer] for customer in customers]))
        row = row[(day[row] >= first_day) & (day[row] < first_day + CUSTOMER_DAYS)]
        hit = random.Random(shift + first_day).sample(row.tolist(), k=len(row) // 3)
        rows.amount[hit] *= 5
        pattern[hit] = 3
    return pattern


def _rows_by_value(values: np.ndarray, num_values: int) -> list[np.ndarray]:
    order = np.argsort(values, kind="stable")
    return np.split(order, np.cumsum(np.bincount(values, minlength=num_values))[:-1])


def _draw_distinct(seed: int, num_values: int, count: int) -> np.ndarray:
    return _random_state(seed).choice(num_values, size=count, replace=False)


def _random_state(seed: int) -> np.random.RandomState:
    # The published set was drawn from numpy's legacy generator; no other gives the same numbers.
    return np.random.RandomState(seed % 2**32)
