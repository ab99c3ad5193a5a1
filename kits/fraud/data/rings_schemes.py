"""Fraudulent schemes of the rings generator, and their legitimate look-alikes.

A scheme is a group of accounts that act together for hours or days. A crew's scheme and a
look-alike (a kiosk, a shared tablet, a club's treasurers, a street of small shops) come out of
the same code. What tells them apart is not in any single account: the crew reuses accounts, ips
and counterparties of its older frauds for some of the events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from kits.fraud.data.config import RingsData
from kits.fraud.data.rings_world import DAY_S, HOUR_S, EventTable, World, draw_channel

PATTERN_NAMES = (
    "none",
    "mule_ring",
    "card_testing",
    "account_takeover",
    "merchant_collusion",
)
# Share of the fraudulent events that each pattern gets.
PATTERN_SHARES = (0.0, 0.3, 0.25, 0.2, 0.25)
NUM_CREWS = 4
# A crew reuses what it used this long ago.
REUSE_DAYS = (8, 35)


@dataclass
class _Draft:
    """Who does what in a scheme; device or ip -1 = the account's usual one, amount NaN likewise."""

    time_s: np.ndarray
    account: np.ndarray
    counterparty: np.ndarray
    device: np.ndarray
    ip: np.ndarray
    amount: np.ndarray


class Schemes:
    """Draws schemes one after the other and remembers what each crew has used."""

    def __init__(self, cfg: RingsData, world: World, rng: np.random.Generator) -> None:
        self.cfg, self.world, self.rng = cfg, world, rng
        self.num_devices = world.num_devices
        self.used: list[list[EventTable]] = [[] for _ in range(NUM_CREWS)]
        self.draw_draft: dict[int, Callable[[int], _Draft]] = {
            1: self._ring,
            2: self._counter,
            3: self._shared_device,
            4: self._shops,
        }

    def draw_all(self, num_everyday: int) -> list[EventTable]:
        """Draw all schemes of the world in the order of their start."""
        rng = self.rng
        budget = self.cfg.fraud_share * num_everyday / (1 - self.cfg.fraud_share)
        plan = []
        for pattern in self.draw_draft:
            size = len(self.draw_draft[pattern](0).time_s)
            sizes = [size]
            while sum(sizes) < PATTERN_SHARES[pattern] * budget:
                sizes.append(len(self.draw_draft[pattern](0).time_s))
            num_look_alikes = round(self.cfg.lookalikes * len(sizes))
            plan += [(pattern, True)] * len(sizes) + [(pattern, False)] * num_look_alikes
        starts = np.sort(rng.integers(0, (self.cfg.num_days - 4) * DAY_S, len(plan)))
        order = rng.permutation(len(plan))
        return [
            self._draw(*plan[which], int(start)) for which, start in zip(order, starts, strict=True)
        ]

    def _draw(self, pattern: int, is_fraud: bool, start_s: int) -> EventTable:
        rng, world = self.rng, self.world
        draft = self.draw_draft[pattern](start_s)
        crew = int(rng.integers(NUM_CREWS))
        if is_fraud:
            self._reuse(draft, crew, start_s)
        account, time_s = draft.account, draft.time_s
        usual_device = world.usual_device(rng, account, time_s)
        usual_ip = world.usual_ip(rng, account, time_s)
        usual_amount = world.usual_amount(rng, account, draft.counterparty)
        if pattern == 3:
            # A stolen account is emptied, a holiday is expensive: loud for some, not for most.
            is_loud = rng.random(len(account)) < (0.3 if is_fraud else 0.1)
            usual_amount *= np.where(is_loud, rng.uniform(2.5, 6.0, len(account)), 1.0)
        is_transfer = draft.counterparty < world.num_accounts
        table = EventTable(
            time_s=time_s,
            account=account,
            counterparty=draft.counterparty,
            device=np.where(draft.device < 0, usual_device, draft.device),
            ip=np.where(draft.ip < 0, usual_ip, draft.ip),
            amount=np.where(np.isnan(draft.amount), usual_amount, draft.amount),
            type=is_transfer.astype(np.int64),
            channel=draw_channel(rng, is_transfer),
            pattern=np.full(len(account), pattern if is_fraud else 0),
        )
        if is_fraud:
            self.used[crew].append(table)
        return table

    def _reuse(self, draft: _Draft, crew: int, start_s: int) -> None:
        """Let some events touch one thing of the crew's older frauds."""
        rng = self.rng
        first, last = (start_s - days * DAY_S for days in reversed(REUSE_DAYS))
        old = [table for table in self.used[crew] if first <= table.time_s[0] <= last]
        if not old:
            return
        size = len(draft.time_s)
        is_reusing = rng.random(size) < self.cfg.reuse_share
        what = rng.choice(["ip", "counterparty", "account"], size, p=[0.45, 0.3, 0.25])
        for name in ("ip", "counterparty", "account"):
            stock = np.concatenate([getattr(table, name) for table in old])
            chosen = rng.choice(stock, size)
            fits = is_reusing & (what == name)
            if name == "counterparty":
                # Payments stay payments, transfers transfers; nobody pays himself.
                limit = self.world.num_accounts
                fits &= (chosen < limit) == (draft.counterparty < limit)
                fits &= chosen != draft.account
            if name == "account":
                fits &= chosen != draft.counterparty
            column = getattr(draft, name)
            column[fits] = chosen[fits]

    def _ring(self, start_s: int) -> _Draft:
        """Money comes in at a few accounts, goes round among them, and leaves to shops."""
        rng, world = self.rng, self.world
        num_members, num_payers, num_out = (
            rng.integers(3, 6),
            rng.integers(8, 17),
            rng.integers(6, 12),
        )
        members = rng.choice(world.num_accounts, num_members, replace=False)
        payers = rng.integers(0, world.num_accounts, num_payers)
        payers = np.where(np.isin(payers, members), (payers + 1) % world.num_accounts, payers)
        payee = rng.choice(members, num_payers)
        payee = np.where(payee == payers, members[0], payee)
        rounds = int(rng.integers(3, 6))
        source = np.tile(members, rounds)
        target = np.tile(np.roll(members, -1), rounds)
        spender = rng.choice(members, num_out)
        shops = rng.choice(world.popular_merchant(rng, 2), num_out)
        account = np.concatenate([payers, source, spender])
        counterparty = np.concatenate([payee, target, shops])
        days = np.concatenate(
            [
                rng.uniform(0.0, 3.0, num_payers),
                rng.uniform(0.3, 3.5, len(source)),
                rng.uniform(0.5, 4.0, num_out),
            ]
        )
        # Payers use their own devices; members share one for part of what they do.
        shares = np.arange(len(account)) >= num_payers
        shares &= rng.random(len(account)) < 0.75
        device, ip = self._place(len(account), num_devices=2, num_ips=2)
        return self._draft(
            start_s,
            days,
            account,
            counterparty,
            np.where(shares, device, -1),
            np.where(shares, ip, -1),
        )

    def _counter(self, start_s: int) -> _Draft:
        """Many accounts pay tiny amounts to one or two shops from one device within hours."""
        rng, world = self.rng, self.world
        size = int(rng.integers(25, 50))
        account = rng.integers(0, world.num_accounts, size)
        shops = rng.integers(world.num_merchants // 40, world.num_merchants, 2)
        counterparty = world.num_accounts + rng.choice(shops, size)
        device, ip = self._place(size, num_devices=int(rng.integers(1, 3)), num_ips=2)
        draft = self._draft(
            start_s, rng.uniform(0.0, 8 * HOUR_S / DAY_S, size), account, counterparty, device, ip
        )
        draft.amount[:] = rng.gamma(2.0, 2.0, size) + 0.5
        return draft

    def _shared_device(self, start_s: int) -> _Draft:
        """Several accounts, one after the other, are used for days from one new device."""
        rng, world = self.rng, self.world
        num_accounts = int(rng.integers(8, 18))
        account = np.repeat(
            rng.choice(world.num_accounts, num_accounts, replace=False),
            rng.integers(1, 4, num_accounts),
        )
        size = len(account)
        to_contact = world.contacts[account, rng.integers(0, world.contacts.shape[1], size)]
        counterparty = np.where(
            rng.random(size) < 0.3, to_contact, world.popular_merchant(rng, size)
        )
        device, ip = self._place(size, num_devices=1, num_ips=2)
        return self._draft(start_s, rng.uniform(0.0, 4.0, size), account, counterparty, device, ip)

    def _shops(self, start_s: int) -> _Draft:
        """A group of accounts keeps paying ordinary amounts at a few small shops."""
        rng, world = self.rng, self.world
        size = int(rng.integers(40, 80))
        account = rng.choice(rng.integers(0, world.num_accounts, int(rng.integers(14, 28))), size)
        num_shops = int(rng.integers(2, 5))
        shops = rng.integers(world.num_merchants // 4, world.num_merchants, num_shops)
        counterparty = world.num_accounts + rng.choice(shops, size)
        device, ip = self._place(size, num_devices=num_shops, num_ips=2)
        at_shop = rng.random(size) < 0.65
        return self._draft(
            start_s,
            rng.uniform(0.0, 6.0, size),
            account,
            counterparty,
            np.where(at_shop, device, -1),
            np.where(at_shop, ip, -1),
        )

    def _place(self, size: int, *, num_devices: int, num_ips: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw devices never seen before, and borrowed ips, for the events of a scheme."""
        device = self.num_devices + self.rng.integers(0, num_devices, size)
        self.num_devices += num_devices
        return device, self.rng.choice(self.world.borrowed_ip(self.rng, num_ips), size)

    def _draft(
        self,
        start_s: int,
        days: np.ndarray,
        account: np.ndarray,
        counterparty: np.ndarray,
        device: np.ndarray,
        ip: np.ndarray,
    ) -> _Draft:
        time_s = start_s + (days * DAY_S).astype(np.int64)
        if days.max() > 1:
            # Over days, everybody keeps to the usual hours.
            time_s = time_s // DAY_S * DAY_S + self.world.usual_second(self.rng, account)
        amount = np.full(len(account), np.nan)
        return _Draft(time_s, account, counterparty, device, ip, amount)


def join_tables(tables: list[EventTable], before_s: int) -> EventTable:
    """Join events, drop those after the last day, and sort by time."""
    joined = EventTable(
        *(
            np.concatenate([getattr(table, field.name) for table in tables])
            for field in fields(EventTable)
        )
    )
    order = np.argsort(joined.time_s, kind="stable")
    order = order[joined.time_s[order] < before_s]
    return EventTable(*(getattr(joined, field.name)[order] for field in fields(EventTable)))
