"""The last steps before a container's program: runs as `python -I -S launch.py PLAN REPORT`, then becomes the program.

It stands between the node and the program because these steps must happen in a process of one thread, after the fork:
an own mount view, host name, limits, and the promise of the kernel to kill it with the node. It imports next to
nothing, so that a container starts only about 15 ms later. PLAN and REPORT are file descriptors: a `Plan` as marshal,
and a socket on which it says `view` (a byte is the answer) and, when it fails, `error TEXT`.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandlane.local.node.view import Plan, View

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWUSER = 0x00020000, 0x04000000, 0x10000000
_RDONLY, _REMOUNT, _BIND, _REC, _SLAVE = 1, 32, 4096, 16384, 1 << 19
_KEPT_FLAGS = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}
"""ST_ flags of statvfs that a remount must repeat, as MS_ flags: nosuid, nodev, noexec, noatime, nodiratime, relatime."""
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _SIGKILL, _SIGPIPE, _SIGXFSZ = 1, 9, 13, 25
_RLIMIT_DATA = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41}
_MOST_LINKS = 40
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    result = _libc.mount(*words, ctypes.c_ulong(flags), None if data is None else data.encode())
    _check(result, f"mount {target}")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def own_namespaces() -> None:
    """Own mounts and host name; in an own user namespace unless this process may have them without."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0 and _libc.unshare(_CLONE_NEWNS | _CLONE_NEWUTS) == 0:
        pass
    else:
        _check(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWUTS), "unshare")
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    _mount("none", "/", None, _REC | _SLAVE)


class Builder:
    """Builds a view: paths are as seen inside; what is missing on the host is made in memory, never on the host."""

    def __init__(self, root: str, targets: list[str]) -> None:
        self._root = ""
        self._ours: set[str] = set()  # folders in memory; what they hold may be the host's
        self._volumes: dict[str, bool] = {}  # where we have mounted something: whether it may be written
        if any(not os.path.lexists("/" + target.strip("/").split("/")[0]) for target in targets):
            self._root = root
            self._copy("/", "/")

    def mount(self, source: int, target: str, read_only: bool) -> None:
        """Bind an open file or folder to a path."""
        path = self._place(target, stat.S_ISDIR(os.fstat(source).st_mode))
        _mount(f"/proc/self/fd/{source}", self._root + path, None, _BIND | _REC)
        if read_only:
            here = os.statvfs(self._root + path).f_flag
            kept = sum(flag for mask, flag in _KEPT_FLAGS.items() if here & mask)
            _mount("none", self._root + path, None, _BIND | _REMOUNT | _RDONLY | kept)
        self._volumes[path] = not read_only
        self._ours.discard(path)

    def enter(self) -> None:
        """Make the new root the root."""
        if self._root:
            os.chdir(self._root)
            number = _PIVOT_ROOT.get(os.uname().machine)
            if number is None:
                raise OSError(38, f"pivot_root is not known for {os.uname().machine}")
            _check(_libc.syscall(number, b".", b"."), "pivot_root")
            _check(_libc.umount2(b".", _MNT_DETACH), "umount of the old root")
            os.chdir("/")

    def _place(self, target: str, folder: bool) -> str:
        """A path to mount on, with symbolic links followed as they are inside; what is missing is made."""
        path, links = "/", 0
        words = target.split("/")[::-1]
        while words:
            word = words.pop()
            if word in ("", "."):
                continue
            if word == "..":
                path = os.path.dirname(path)
                continue
            step = os.path.join(path, word)
            if os.path.islink(self._root + step):
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(40, f"too many symbolic links in {target}")
                link = os.readlink(self._root + step)
                path = "/" if link.startswith("/") else path
                words += link.split("/")[::-1]
                continue
            if not os.path.lexists(self._root + step):
                self._make(path, step, folder or any(words))
            path = step
        return path

    def _make(self, parent: str, path: str, folder: bool) -> None:
        if parent not in self._ours and not self._in_writable_volume(parent):
            self._copy(parent, self._root + parent)
        if folder:
            os.mkdir(self._root + path, 0o755)
            if parent in self._ours:
                self._ours.add(path)
        else:
            os.close(os.open(self._root + path, os.O_WRONLY | os.O_CREAT, 0o644))

    def _in_writable_volume(self, path: str) -> bool:
        while path not in self._volumes and path != "/":
            path = os.path.dirname(path)
        return self._volumes.get(path, False)

    def _copy(self, folder: str, source: str) -> None:
        """Put a folder in memory in a folder's place, with all that `source` holds: links copied, the rest bound."""
        target = self._root + folder
        self._ours.add(folder)
        fd = os.open(source, os.O_PATH | os.O_DIRECTORY)
        try:
            mode = stat.S_IMODE(os.fstat(fd).st_mode)
            _mount("tmpfs", target, "tmpfs", 0, f"mode={mode:o}")
            with os.scandir(f"/proc/self/fd/{fd}") as entries:
                for entry in entries:
                    try:
                        _copy_entry(entry, os.path.join(target, entry.name))
                    except FileNotFoundError:
                        continue  # gone since the listing
        finally:
            os.close(fd)


def _copy_entry(entry: os.DirEntry[str], place: str) -> None:
    if entry.is_symlink():
        os.symlink(os.readlink(entry.path), place)
        return
    if entry.is_dir():
        os.mkdir(place)
    else:
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT, 0o644))
    try:
        _mount(entry.path, place, None, _BIND | _REC)
    except OSError as error:
        if error.errno != 22:  # EINVAL: its owner made it unbindable; the empty place stays
            raise


def make_view(view: View) -> None:
    """Enter namespaces of our own and mount everything."""
    own_namespaces()
    sources = [os.open(mount["source"], os.O_PATH) for mount in view["mounts"]]
    # Outer targets first; sources are open already, so that no mount hides them.
    pairs = sorted(zip(view["mounts"], sources, strict=True), key=lambda pair: len(pair[0]["target"].rstrip("/")))
    builder = Builder(view["root"], [mount["target"] for mount in view["mounts"]])
    for mount, source in pairs:
        try:
            builder.mount(source, mount["target"], mount["read_only"])
        except OSError as error:
            raise OSError(error.errno, f"cannot mount at {mount['target']}: {error}") from error
    for source in sources:
        os.close(source)
    builder.enter()
    if view["hostname"]:
        name = os.fsencode(view["hostname"])
        _check(_libc.sethostname(name, len(name)), "sethostname")


def join_view(pid: int) -> None:
    """Enter the namespaces of a process, where they are not ours already."""
    opened = []
    for name in ("user", "mnt", "uts"):
        theirs = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
        if os.fstat(theirs).st_ino != os.stat(f"/proc/self/ns/{name}").st_ino:
            opened.append((name, theirs))
    for name, theirs in opened:
        _check(_libc.setns(theirs, 0), f"setns {name}")
        os.close(theirs)


def _limit_memory(limit: int) -> None:
    pair = (ctypes.c_ulong * 2)(limit, limit)
    _check(_libc.setrlimit(_RLIMIT_DATA, pair), "setrlimit")


def _exec(argv: list[str], env: dict[str, str]) -> None:
    try:
        os.execvpe(argv[0], argv, env)
    except OSError as error:
        raise OSError(error.errno, f"cannot start {argv[0]}: {os.strerror(error.errno or 0)}") from error


def main() -> None:
    """Follow the plan; returns only by an exception."""
    plan_fd, report = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(report, False)
    try:
        with os.fdopen(plan_fd, "rb") as file:
            plan: Plan = marshal.load(file)
        if plan.get("cpu_group"):
            _write(plan["cpu_group"], "0")  # before a user namespace takes the right to
        if plan.get("view"):
            make_view(plan["view"])  # type: ignore[arg-type]
            os.write(report, b"view\n")
            os.read(report, 1)  # the node has opened our mount namespace
        elif plan.get("join"):
            join_view(plan["join"])  # type: ignore[arg-type]
        try:
            os.chdir(plan["folder"] or "/")
        except OSError as error:
            raise OSError(
                error.errno, f"cannot use the working directory {plan['folder']}: {error.strerror}"
            ) from error
        if plan.get("tty"):
            _check(_libc.ioctl(0, ctypes.c_ulong(0x540E), 0), "TIOCSCTTY")
        # After the namespaces: the kernel forgets this whenever a process gains capabilities.
        _check(_libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL), "prctl")
        if os.getppid() != plan["parent"]:
            os._exit(1)
        for number in (_SIGPIPE, _SIGXFSZ):  # Python ignores them, and exec would pass that on
            _libc.signal(number, None)
        if plan.get("memory") is not None:
            _limit_memory(plan["memory"])  # type: ignore[arg-type]
        _exec(plan["argv"], plan["env"])
    except (OSError, ValueError, IndexError) as error:
        os.write(report, f"error {error.args[-1]}\n".encode(errors="replace"))
        os._exit(1)


if __name__ == "__main__":
    main()
