"""The S-FFSD file: Time is an order, so that 1,000 events make one day of the event clock."""

from __future__ import annotations

from pathlib import Path

from kits.fraud.data import table
from kits.fraud.data.config import SFfsdData, TableData
from kits.fraud.data.events import Events


def load(cfg: SFfsdData) -> Events:
    """Return the events of the file that cfg.path names, or that lies in the folder it names.

    Args:
        cfg: where the file is.

    Raises:
        ValueError: there is no such file, or it is not as the mapping s_ffsd says.
    """
    path = Path(cfg.path).expanduser()
    if path.is_dir():
        found = sorted(file for file in path.glob("*.csv*") if "ffsd" in file.name.lower())
        if len(found) != 1:
            raise ValueError(
                f"data.path={cfg.path!r} holds {len(found)} files like *ffsd*.csv or .csv.gz, "
                "not one; set data.path to the file"
            )
        path = found[0]
    as_table = TableData(
        label_delay_days=cfg.label_delay_days,
        max_reject_share=cfg.max_reject_share,
        cache_dir=cfg.cache_dir,
        path=str(path),
        mapping="s_ffsd",
    )
    as_table.name = cfg.name
    return table.load(as_table)
