"""A `python` that finds torch and the frameworks imported: each of its programs is forked from a process that has.

What a program then does is its own: arguments, folder, environment, output, exit status and signals. Importing costs
seconds, which tests of many programs would spend for the most part.

    python warm.py SOCKET              imports, prints a line, and serves
    python -I -S warm.py SOCKET ...    runs `python ...`; of Python's own flags it heeds -c and -m
"""

from __future__ import annotations

import array
import fcntl
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys

HEAVY = (
    "torch.distributed.launcher.api",
    "focalnet_backbone.command.train",
    "focalnet_backbone.command.test",
    "focalnet_backbone.command.train_net",
    "focalnet_backbone.command.predict",
    "focalnet_backbone.command.see",
    "mmdet.models",
    "mmdet.datasets",
    "mmseg.models",
    "mmseg.datasets",
    "mmengine.visualization",
    "detectron2.model_zoo",
)
MOST_FILES = 200
"""That a program is given, counted from 0; one message has no place for more than 253."""
FORWARDED = (signal.SIGINT, signal.SIGTERM)


def ask(address: str, arguments: list[str]) -> int:
    """Have a program run with this process's folder, environment, streams and what else it was given open, as
    `multiprocessing` does; returns how it ended, as `waitpid`."""
    files = [number for number in range(MOST_FILES) if is_open(number)]
    asked = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ), "files": files}
    request = json.dumps(asked)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        connection.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))])
        for number in FORWARDED:
            signal.signal(number, lambda number, _: connection.send(bytes([number])))
        connection.sendall(f"{request}\n".encode())
        answer = connection.makefile().readline()
    # Without an answer, whoever was to give it was killed.
    return int(answer or signal.SIGKILL)


def is_open(number: int) -> bool:
    """Whether this process has such a file."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def end_alike(status: int) -> None:
    """End this process as another one ended."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    sys.exit(os.waitstatus_to_exitcode(status))


def serve(address: str) -> dict:
    """Fork for each program that is asked for. Returns, in the program's process, what was asked."""
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # Here, folders are named as modules are.
    gc.disable()
    for module in HEAVY:
        __import__(module)
    gc.enable()
    gc.freeze()  # Shared by all processes, as long as none writes to it.
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(16)
    print("serves", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # So that they need not be waited for.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A terminal sends it to all; those who wait hand it on.
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            return watch(connection)
        connection.close()


def watch(connection: socket.socket) -> dict:
    """Fork the program, hand on signals, kill it when nobody waits for it any more, and tell how it ended."""
    _, data, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(MOST_FILES * 4))
    given = array.array("i")
    given.frombytes(data[0][2])
    request = json.loads(connection.makefile().readline())
    program = os.fork()
    if program == 0:
        # First away from all places that are to be taken.
        away = [fcntl.fcntl(file, fcntl.F_DUPFD, MOST_FILES) for file in given]
        for file in (connection.detach(), *given):
            os.close(file)
        for file, place in zip(away, request.pop("files"), strict=True):
            os.dup2(file, place)
            os.close(file)
        return request
    for file in (0, 1, 2, *given):
        os.close(file)
    handle = os.pidfd_open(program)
    while handle not in select.select([handle, connection], [], [])[0]:
        os.kill(program, (connection.recv(1) or bytes([signal.SIGKILL]))[0])
    connection.sendall(f"{os.waitpid(program, 0)[1]}\n".encode())
    os._exit(0)


def open_streams() -> None:
    """Python's streams anew: those of before know what their files could do, which are others now."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        before, lines = getattr(sys, name), name == "stderr" or os.isatty(number)
        stream = open(  # noqa: SIM115
            number,
            "w" if number else "r",
            buffering=1 if lines and number else -1,
            encoding=before.encoding,
            errors=before.errors,
            closefd=False,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def run(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """What `python` does with such arguments."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    open_streams()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.executable = environment.get("PYTHON_EXEC", sys.executable)  # As torchrun has it, for all that it starts.
    if "torch" in sys.modules and "OMP_NUM_THREADS" in environment:
        sys.modules["torch"].set_num_threads(int(environment["OMP_NUM_THREADS"]))
    sys.path[1:1] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path not in sys.path]
    while arguments[0].startswith("-") and arguments[0] not in ("-c", "-m"):
        arguments = arguments[2 if arguments[0] in ("-W", "-X") else 1 :]
    what, *rest = arguments
    if what == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif what == "-m":
        sys.argv, sys.path[0] = ["-m", *rest[1:]], folder
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = [what, *rest], os.path.dirname(os.path.abspath(what))
        runpy.run_path(what, run_name="__main__")


if __name__ == "__main__":
    if sys.flags.isolated:
        end_alike(ask(sys.argv[1], sys.argv[2:]))
    run(**serve(sys.argv[1]))
