"""Settings of the fraud kit's data sources; plain dataclasses that need neither numpy nor torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass
class DataConfig:
    """What every source of events understands."""

    # The option's own name; decides which loader runs.
    name: str = ""
    # A label may be used this many days after the source knew it.
    label_delay_days: float = 7.0
    # More rejected rows than this share stop the run.
    max_reject_share: float = 0.01
    # Another seed is another simulated world; files ignore it.
    seed: int = 0
    # None: $XDG_CACHE_HOME/deepkits, else ~/.cache/deepkits.
    cache_dir: str | None = None

    def __post_init__(self) -> None:
        """Check the values that do not depend on the source."""
        _require_name(self, type(self).name)
        _require(self.label_delay_days >= 0, "label_delay_days", self.label_delay_days, ">= 0")
        share = self.max_reject_share
        _require(0 <= share <= 1, "max_reject_share", share, "between 0 and 1")
        _require(0 <= self.seed < 2**31, "seed", self.seed, "between 0 and 2147483647")

    def cache_path(self) -> Path:
        """Return the folder that keeps generated and converted columns."""
        if self.cache_dir:
            return Path(self.cache_dir).expanduser()
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        return Path(base).expanduser() / "deepkits"


@dataclass
class HandbookData(DataConfig):
    """The simulated card transactions specified in the Fraud Detection Handbook (ULB, 2022)."""

    name: str = "handbook"
    num_customers: int = 5000
    num_terminals: int = 10000
    num_days: int = 183
    # Customers use terminals nearer than this, on a square of 100 x 100.
    radius: float = 5.0
    # Compromised anew on each day: terminals for 28 days, customers for 14.
    terminals_per_day: int = 2
    customers_per_day: int = 3

    def __post_init__(self) -> None:
        """Check that the world can be drawn."""
        super().__post_init__()
        _require(0 <= self.terminals_per_day, "terminals_per_day", self.terminals_per_day, ">= 0")
        _require(0 <= self.customers_per_day, "customers_per_day", self.customers_per_day, ">= 0")
        minimum = max(1, self.customers_per_day)
        _require(
            self.num_customers >= minimum, "num_customers", self.num_customers, f">= {minimum}"
        )
        minimum = max(1, self.terminals_per_day)
        _require(
            self.num_terminals >= minimum, "num_terminals", self.num_terminals, f">= {minimum}"
        )
        _require(self.num_days >= 1, "num_days", self.num_days, ">= 1")
        _require(self.radius > 0, "radius", self.radius, "> 0")


@dataclass
class RingsData(DataConfig):
    """Our own generator: four fraud patterns over accounts, merchants, devices and ips."""

    name: str = "rings"
    num_accounts: int = 12_000
    num_merchants: int = 2_000
    num_days: int = 120
    # Everyday events of an account per day, on average.
    events_per_account_day: float = 0.2
    # Wanted share of fraudulent events over all patterns.
    fraud_share: float = 0.01
    # Legitimate look-alikes for each fraudulent scheme: same devices, ips, amounts and rhythm.
    lookalikes: float = 4.0
    # Share of a crew's events that touch an account, ip or counterparty of its older frauds.
    reuse_share: float = 0.5

    def __post_init__(self) -> None:
        """Check that the world can be drawn."""
        super().__post_init__()
        _require(self.num_accounts >= 200, "num_accounts", self.num_accounts, ">= 200")
        _require(self.num_merchants >= 100, "num_merchants", self.num_merchants, ">= 100")
        _require(self.num_days >= 30, "num_days", self.num_days, ">= 30")
        rate = self.events_per_account_day
        _require(rate > 0, "events_per_account_day", rate, "> 0")
        share = self.fraud_share
        _require(0 < share <= 0.2, "fraud_share", share, "above 0 and at most 0.2")
        _require(self.lookalikes >= 0, "lookalikes", self.lookalikes, ">= 0")
        share = self.reuse_share
        _require(0 <= share <= 1, "reuse_share", share, "between 0 and 1")


@dataclass
class SFfsdData(DataConfig):
    """The S-FFSD file of the antifraud repository, read from the user's disk."""

    name: str = "s_ffsd"
    # The event clock: 1,000 events are a day.
    label_delay_days: float = 1.0
    # The CSV (also .gz), or a folder that holds it.
    path: str = ""

    def __post_init__(self) -> None:
        """Check that a file is named."""
        super().__post_init__()
        _require(bool(self.path), "path", self.path, "a path")


@dataclass
class TableData(DataConfig):
    """The user's own CSV or Parquet file, read through a column mapping."""

    name: str = "table"
    # One .csv, .csv.gz or .parquet file, or the folder of a mapping that joins several.
    path: str = ""
    # A YAML file, or the name of a ready mapping (kits/fraud/data/mappings).
    mapping: str = ""
    # Where the rejected rows go; empty: beside the converted columns in the cache.
    rejects_path: str = ""
    # DuckDB sorts and joins within this much memory, then on disk.
    memory_limit_mib: int = 1024
    # Rows converted at a time.
    chunk_rows: int = 200_000

    def __post_init__(self) -> None:
        """Check that a file and a mapping are named."""
        super().__post_init__()
        _require(bool(self.path), "path", self.path, "a path")
        _require(bool(self.mapping), "mapping", self.mapping, "a mapping")
        _require(self.memory_limit_mib >= 128, "memory_limit_mib", self.memory_limit_mib, ">= 128")
        _require(self.chunk_rows >= 1, "chunk_rows", self.chunk_rows, ">= 1")


def _require(holds: bool, key: str, value: object, rule: str) -> None:
    if not holds:
        raise ValueError(f"data.{key}={value!r} is not {rule}; set data.{key}")


def _require_name(cfg: DataConfig, name: str) -> None:
    if cfg.name != name:
        raise ValueError(f"data.name={cfg.name!r} is not {name!r}; choose the source with data=...")
