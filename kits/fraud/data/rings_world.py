"""The everyday world of the rings generator: people, shops, devices, ips and habits.

Parties are numbered: accounts 0..A-1, then merchants A..A+M-1. Devices and ips have numbers too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kits.fraud.data.config import RingsData

DAY_S = 86_400
HOUR_S = 3_600
PAYMENT, TRANSFER = 0, 1
APP, WEB, SHOP = 0, 1, 2
NUM_FAVOURITES = 6
NUM_CONTACTS = 5


@dataclass
class EventTable:
    """Events as columns of equal length; numbers, not tokens yet."""

    time_s: np.ndarray  # seconds since the first day
    account: np.ndarray
    counterparty: np.ndarray
    device: np.ndarray
    ip: np.ndarray
    amount: np.ndarray
    type: np.ndarray
    channel: np.ndarray
    pattern: np.ndarray


class World:
    """Who lives with whom, who buys where, and what a usual event of an account looks like."""

    def __init__(self, cfg: RingsData, rng: np.random.Generator) -> None:
        self.num_accounts, self.num_merchants = cfg.num_accounts, cfg.num_merchants
        self.num_days = cfg.num_days
        self._settle(rng)
        self._equip(rng)
        self._form_habits(rng)

    def _settle(self, rng: np.random.Generator) -> None:
        """Put accounts into households, offices and mobile networks, each with its ips."""
        count = self.num_accounts
        sizes = rng.choice([1, 2, 3, 4], size=count, p=[0.35, 0.3, 0.2, 0.15])
        self.household = rng.permutation(np.repeat(np.arange(count), sizes)[:count])
        self.num_homes = int(self.household.max()) + 1
        num_offices = max(1, count // 60)
        self.office = np.where(rng.random(count) < 0.5, rng.integers(0, num_offices, count), -1)
        num_mobile, self.num_public = max(4, count // 200), max(8, count // 40)
        self.office_ip = self.num_homes
        self.mobile_ip = self.office_ip + num_offices
        self.public_ip = self.mobile_ip + num_mobile
        self.mobile = self.mobile_ip + rng.integers(0, num_mobile, (count, 3))

    def _equip(self, rng: np.random.Generator) -> None:
        """Give each account a phone, its successor, perhaps a computer; families share a tablet."""
        count = self.num_accounts
        has_computer = rng.random(count) < 0.35
        has_tablet = rng.random(self.num_homes) < 0.3
        self.computer = np.where(has_computer, 2 * count + np.arange(count), -1)
        self.tablet = np.where(has_tablet[self.household], 3 * count + self.household, -1)
        # About half of the phones are replaced once in 120 days' time or sooner.
        self.new_phone_s = rng.exponential(170 * DAY_S, count)
        self.num_devices = 3 * count + self.num_homes

    def _form_habits(self, rng: np.random.Generator) -> None:
        count, merchants = self.num_accounts, self.num_merchants
        popularity = 1.0 / np.arange(1, merchants + 1)
        self.popularity = np.cumsum(popularity / popularity.sum())
        self.favourites = self.popular_merchant(rng, (count, NUM_FAVOURITES))
        contacts = rng.integers(0, count, (count, NUM_CONTACTS))
        # Landlords, clubs, charities: some accounts are everybody's contact.
        hubs = rng.integers(0, count, max(4, count // 200))
        is_hub = rng.random((count, NUM_CONTACTS)) < 0.25
        contacts = np.where(is_hub, rng.choice(hubs, (count, NUM_CONTACTS)), contacts)
        own = np.arange(count)[:, None]
        self.contacts = np.where(contacts == own, (contacts + 1) % count, contacts)
        self.activity = np.cumsum(rng.lognormal(0.0, 0.8, count))
        self.activity /= self.activity[-1]
        self.wealth = rng.normal(0.0, 0.5, count)
        self.price = rng.normal(3.2, 0.8, merchants)
        self.peak_hour = rng.normal(14.0, 3.0, count)

    def popular_merchant(
        self, rng: np.random.Generator, shape: int | tuple[int, ...]
    ) -> np.ndarray:
        """Draw merchants (party numbers) by popularity."""
        return self.num_accounts + np.searchsorted(self.popularity, rng.random(shape))

    def usual_device(
        self, rng: np.random.Generator, account: np.ndarray, time_s: np.ndarray
    ) -> np.ndarray:
        """Draw the device that an account uses: mostly its phone, sometimes a shared one."""
        phone = account + self.num_accounts * (time_s > self.new_phone_s[account])
        draw = rng.random(len(account))
        device = np.where(
            (draw < 0.15) & (self.computer[account] >= 0), self.computer[account], phone
        )
        is_tablet = (draw >= 0.15) & (draw < 0.3) & (self.tablet[account] >= 0)
        device = np.where(is_tablet, self.tablet[account], device)
        friend = rng.integers(0, self.num_accounts, len(account))
        return np.where(draw > 0.985, friend, device)

    def usual_ip(
        self, rng: np.random.Generator, account: np.ndarray, time_s: np.ndarray
    ) -> np.ndarray:
        """Draw the ip of an account: home, mobile network, office in office hours, public."""
        size = len(account)
        draw = rng.random(size)
        ip = np.where(
            draw < 0.35, self.mobile[account, rng.integers(0, 3, size)], self.household[account]
        )
        hour = time_s % DAY_S / HOUR_S
        at_work = (draw > 0.5) & (self.office[account] >= 0) & (hour > 8) & (hour < 18)
        ip = np.where(at_work, self.office_ip + self.office[account], ip)
        is_public = rng.random(size) < 0.02
        return np.where(is_public, self.public_ip + rng.integers(0, self.num_public, size), ip)

    def borrowed_ip(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Draw ips of public networks and of strangers' homes."""
        public = self.public_ip + rng.integers(0, self.num_public, size)
        return np.where(rng.random(size) < 0.4, public, rng.integers(0, self.num_homes, size))

    def usual_amount(
        self, rng: np.random.Generator, account: np.ndarray, counterparty: np.ndarray
    ) -> np.ndarray:
        """Draw amounts within the habits of account and shop; heavy-tailed."""
        size = len(account)
        merchant = np.clip(counterparty - self.num_accounts, 0, None)
        is_payment = counterparty >= self.num_accounts
        level = np.where(is_payment, self.price[merchant], 4.4) + self.wealth[account]
        amount = np.exp(rng.normal(level, np.where(is_payment, 0.6, 1.0)))
        tail = np.where(rng.random(size) < 0.015, 1.0 + rng.pareto(1.5, size), 1.0)
        return np.clip(amount * tail, 0.5, 50_000.0)

    def usual_second(self, rng: np.random.Generator, account: np.ndarray) -> np.ndarray:
        """Draw seconds of the day around each account's own peak hour."""
        hour = rng.normal(self.peak_hour[account], 3.5)
        return (hour % 24 * HOUR_S).astype(np.int64)


def everyday_events(cfg: RingsData, world: World, rng: np.random.Generator) -> EventTable:
    """Draw the legitimate events that follow habits alone."""
    size = int(rng.poisson(cfg.events_per_account_day * cfg.num_accounts * cfg.num_days))
    account = np.searchsorted(world.activity, rng.random(size))
    # Fewer events at weekends.
    day_weight = np.where(np.arange(cfg.num_days) % 7 < 5, 1.0, 0.75)
    day = rng.choice(cfg.num_days, size, p=day_weight / day_weight.sum())
    time_s = day * DAY_S + world.usual_second(rng, account)
    is_transfer = rng.random(size) < 0.2
    favourite = world.favourites[account, rng.integers(0, NUM_FAVOURITES, size)]
    merchant = np.where(rng.random(size) < 0.7, favourite, world.popular_merchant(rng, size))
    contact = world.contacts[account, rng.integers(0, NUM_CONTACTS, size)]
    counterparty = np.where(is_transfer, contact, merchant)
    return EventTable(
        time_s=time_s,
        account=account,
        counterparty=counterparty,
        device=world.usual_device(rng, account, time_s),
        ip=world.usual_ip(rng, account, time_s),
        amount=world.usual_amount(rng, account, counterparty),
        type=is_transfer.astype(np.int64),
        channel=draw_channel(rng, is_transfer),
        pattern=np.zeros(size, np.int64),
    )


def draw_channel(rng: np.random.Generator, is_transfer: np.ndarray) -> np.ndarray:
    """Draw app, web or shop; a shop takes payments alone."""
    draw = rng.random(len(is_transfer))
    channel = np.where(draw < 0.55, APP, np.where(draw < 0.8, WEB, SHOP))
    return np.where(is_transfer & (channel == SHOP), APP, channel)
