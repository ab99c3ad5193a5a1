"""Keys that sign bundles, and roots that say whose signatures count.

    python -m edge.keys new [--name NAME]           a key, and the first root if there is none
    python -m edge.keys rotate --out FILE [...]     the next root: other keys, another threshold
    python -m edge.keys sign FILE                   add this machine's signatures to a next root
    python -m edge.keys trust FILE                  let this device trust the next root

Verifying needs none of this; signing needs PyNaCl.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edge.archive import check_name
from edge.manifest import key_id
from edge.trust import Root, Trust, fsync_folder, home, read_bounded, utc, write_atomic

SEED_BYTES = 32


@dataclass(frozen=True)
class Signer:
    """A private key; its seed never shows in messages."""

    public: bytes
    seed: bytes = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of the signature of a message; the same each time."""
        return bytes(_signing_key(self.seed).sign(message).signature)


def load_signer(path: str | Path) -> Signer:
    """Read a key file.

    Raises:
        ValueError: others may read it, or it holds no key.
        ModuleNotFoundError: PyNaCl is not installed.
    """
    path = Path(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ValueError(f"{path} has mode={mode:04o}, others may read it; chmod 600 and rotate it")
    text = read_bounded(path).decode("ascii", "replace").strip()
    try:
        seed = bytes.fromhex(text)
    except ValueError:
        seed = b""
    if len(seed) != SEED_BYTES:
        # The content may be a mistyped secret: not shown.
        raise ValueError(f"{path} holds no key of {SEED_BYTES} bytes in hex; name a key file")
    return Signer(public=bytes(_signing_key(seed).verify_key), seed=seed)


def load_signers(folder: Path | None = None) -> list[Signer]:
    """All keys of a trust folder, by file name."""
    return [load_signer(path) for path in sorted(((folder or home()) / "keys").glob("*.key"))]


def new_key(folder: Path, name: str = "default") -> Signer:
    """Make `keys/<name>.key`, and a root that trusts it where there is no root.

    Raises:
        FileExistsError: the key is there; keys are never overwritten.
    """
    if "/" in check_name(name):
        raise ValueError(f"name={name!r} is a path; give a plain name")
    keys = folder / "keys"
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = keys / f"{name}.key"
    seed = secrets.token_bytes(SEED_BYTES)
    signer = Signer(public=bytes(_signing_key(seed).verify_key), seed=seed)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise FileExistsError(
            f"{path} is there and is not overwritten; give another name"
        ) from None
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(seed.hex() + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    fsync_folder(keys)
    if not (folder / "root.json").exists():
        root = Root(1, 1, {key_id(signer.public): signer.public.hex()})
        write_atomic(folder / "root.json", sign_root(root, [signer]).to_bytes())
    return signer


def sign_root(root: Root, signers: Sequence[Signer]) -> Root:
    """The root with signatures of some keys added."""
    message = root.message()
    added = {key_id(signer.public): signer.sign(message).hex() for signer in signers}
    return replace(root, signatures={**root.signatures, **added})


def next_root(
    current: Root,
    *,
    add: Sequence[bytes] = (),
    remove: Sequence[str] = (),
    threshold: int | None = None,
    expires: int | None = None,
) -> Root:
    """The root after this one, not signed yet.

    Raises:
        ValueError: a key to remove is not there, or the threshold does not fit the keys.
    """
    keys = {**current.keys, **{key_id(public): public.hex() for public in add}}
    for id_ in remove:
        if keys.pop(id_, None) is None:
            raise ValueError(f"remove={id_} is not a key of the root: {', '.join(current.keys)}")
    threshold = current.threshold if threshold is None else threshold
    return Root(current.version + 1, threshold, keys, expires)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 1 and one line on stderr when it is refused."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options, options.trust or home())
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--trust", type=Path, help="folder; $DEEPKITS_HOME or ~/.config/deepkits")
    parser = argparse.ArgumentParser("python -m edge.keys", description="Keys that sign bundles.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(run: Callable[[argparse.Namespace, Path], None], text: str) -> argparse.ArgumentParser:
        name = run.__name__.removeprefix("_")
        added = verbs.add_parser(name, help=text, description=text, parents=[where])
        added.set_defaults(run=run)
        return added

    new = verb(_new, "make a key, and the first root if there is none")
    new.add_argument("--name", default="default", help="of the key file")
    rotate = verb(_rotate, "write the next root, signed with the keys found here")
    rotate.add_argument("--add", action="append", default=[], metavar="KEY", help="name or public")
    rotate.add_argument("--remove", action="append", default=[], metavar="KEY_ID")
    rotate.add_argument("--threshold", type=int, help="signatures that a bundle needs")
    rotate.add_argument("--expires", type=int, metavar="SECONDS", help="since 1970")
    rotate.add_argument("--out", type=Path, help="default: root-<version>.json in the folder")
    sign = verb(_sign, "add the signatures of the keys found here to a root")
    sign.add_argument("root", type=Path)
    trust = verb(_trust, "let this device trust the next root")
    trust.add_argument("root", type=Path)
    trust.add_argument("--first", action="store_true", help="there is none yet; compare the ids")
    return parser


def _new(options: argparse.Namespace, folder: Path) -> None:
    signer = new_key(folder, options.name)
    root = Trust.load(folder).root
    print(f"key      {key_id(signer.public)}  {folder / 'keys' / options.name}.key")
    print(f"public   {signer.public.hex()}")
    if key_id(signer.public) not in root.keys:
        print(f"not trusted yet: python -m edge.keys rotate --add {options.name}")
    _show(root)


def _rotate(options: argparse.Namespace, folder: Path) -> None:
    current = Trust.load(folder).root
    add = [_public(folder, key) for key in options.add]
    root = next_root(
        current,
        add=add,
        remove=options.remove,
        threshold=options.threshold,
        expires=options.expires,
    )
    out = options.out or folder / f"root-{root.version}.json"
    if out.exists():
        raise FileExistsError(f"{out} is there and is not overwritten; name another with --out")
    root = _signed_here(root, current, folder)
    write_atomic(out, root.to_bytes())
    print(f"written  {out}")
    _show(root, current)


def _sign(options: argparse.Namespace, folder: Path) -> None:
    current = Trust.load(folder).root
    root = Root.draft(read_bounded(options.root), str(options.root))
    root = _signed_here(root, current, folder)
    write_atomic(options.root, root.to_bytes())
    _show(root, current)


def _trust(options: argparse.Namespace, folder: Path) -> None:
    data, what = read_bounded(options.root), str(options.root)
    if options.first:
        root = install_root(folder, data, what)
    else:
        root = Trust.load(folder).replace_root(Root.from_bytes(data, what), what).root
    _show(root)


def install_root(folder: Path, data: bytes, what: str) -> Root:
    """Trust a first root; that it is the right one is for a person to compare.

    Raises:
        ValueError: there is a root, or this one is damaged.
    """
    root = Root.from_bytes(data, what)
    if (folder / "root.json").exists():
        raise ValueError(f"{folder / 'root.json'} is there; leave out --first to replace it")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(folder / "root.json", root.to_bytes())
    return root


def _signed_here(root: Root, current: Root, folder: Path) -> Root:
    known = {*root.keys, *current.keys}
    signers = [signer for signer in load_signers(folder) if key_id(signer.public) in known]
    if not signers:
        raise ValueError(f"{folder / 'keys'} has none of the keys {', '.join(sorted(known))}")
    return sign_root(root, signers)


def _public(folder: Path, key: str) -> bytes:
    """A public key given in hex, or that of a key file here."""
    if re.fullmatch("[0-9a-f]{64}", key):
        return bytes.fromhex(key)
    return load_signer(folder / "keys" / f"{check_name(key)}.key").public


def _show(root: Root, current: Root | None = None) -> None:
    until = "never expires" if root.expires is None else f"expires {utc(root.expires)}"
    print(f"root     version {root.version}, {root.threshold} of {len(root.keys)} keys, {until}")
    for id_ in sorted(root.keys):
        print(f"         {id_}{'  signed' if id_ in root.signatures else ''}")
    for by in (current, root) if current is not None else ():
        if missing := root.missing_signatures(by):
            print(f"lacks    {missing} signatures of the keys of root version {by.version}")


def _signing_key(seed: bytes) -> Any:
    try:
        from nacl.signing import SigningKey
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            "pynacl is not installed, which signing needs; pip install '.[convert]'",
            name=missing.name,
        ) from missing
    return SigningKey(seed)


if __name__ == "__main__":
    sys.exit(main())
