"""Our own generator: mule rings, card testing, account takeover and merchant collusion.

Every fraudulent scheme has legitimate look-alikes, and sharing a device or an ip is common
(families, offices, mobile networks, public places), so that no single account and no single
shared device gives a fraud away; what a group's members did before does.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from kits.fraud.data.cache import cached_events, write_columns
from kits.fraud.data.config import RingsData
from kits.fraud.data.events import Events
from kits.fraud.data.progress import progress_bar
from kits.fraud.data.rings_schemes import PATTERN_NAMES, Schemes, join_tables
from kits.fraud.data.rings_world import DAY_S, World, everyday_events
from kits.fraud.data.tokens import token, token_array

# Raise this when the same settings begin to give other events.
VERSION = 1
START_S = 1_704_067_200  # 2024-01-01 00:00 UTC, a Monday
TYPES = ("payment", "transfer")
CHANNELS = ("app", "web", "shop")


def load(cfg: RingsData, *, smoke: bool = False) -> Events:
    """Return the generated events, made on first use and then read from the cache."""
    if smoke:
        cfg = replace(cfg, num_accounts=max(200, cfg.num_accounts // 8), fraud_share=0.03)
    settings = asdict(cfg)
    for name in ("label_delay_days", "max_reject_share", "cache_dir"):
        del settings[name]
    return cached_events(
        cfg.cache_path(), settings | {"version": VERSION}, lambda folder: _build(cfg, folder)
    )


def _build(cfg: RingsData, folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(cfg.seed)
    with progress_bar("rings", 3) as advance:
        world = World(cfg, rng)
        everyday = everyday_events(cfg, world, rng)
        advance(1)
        schemes = Schemes(cfg, world, rng)
        tables = schemes.draw_all(len(everyday.time_s))
        advance(1)
        rows = join_tables([everyday, *tables], cfg.num_days * DAY_S)
        num_rows = len(rows.time_s)
        names = [f"a{i}" for i in range(cfg.num_accounts)]
        names += [f"m{i}" for i in range(cfg.num_merchants)]
        party = token_array("party", names)
        device = token_array("device", range(schemes.num_devices))
        ip = token_array("ip", range(world.public_ip + world.num_public))
        types = np.array([token("type", name) for name in TYPES], np.uint64)
        channels = np.array([token("channel", name) for name in CHANNELS], np.uint64)
        time_s = rows.time_s + START_S
        entities = [party[rows.account], party[rows.counterparty], device[rows.device], ip[rows.ip]]
        write_columns(
            folder,
            {
                "tx_id": np.arange(num_rows, dtype=np.int64),
                "time_s": time_s,
                "entities": np.stack(entities, axis=1),
                "amount": np.round(rows.amount, 2),
                "categorical": np.stack([types[rows.type], channels[rows.channel]], axis=1),
                "numeric": np.empty((num_rows, 0), np.float32),
                "label": (rows.pattern > 0).astype(np.int8),
                "label_time_s": time_s,
                "pattern": rows.pattern.astype(np.int8),
            },
        )
        advance(1)
    return {
        "entity_roles": ("account", "counterparty", "device", "ip"),
        "entity_kinds": ("party", "party", "device", "ip"),
        "categorical_names": ("type", "channel"),
        "numeric_names": (),
        "pattern_names": PATTERN_NAMES,
        "clock": "seconds",
        "name": "rings",
    }
