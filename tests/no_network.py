"""A machine without a network: a namespace in which there is nothing but the loopback interface."""

import os
import subprocess
import sys

LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh22x", b"lo", 0x41))  # SIOCSIFFLAGS: IFF_UP | IFF_RUNNING
os.execvp(sys.argv[1], sys.argv[1:])
"""

WITHOUT_NETWORK = ["unshare", "--net" if os.geteuid() == 0 else "-rn", sys.executable, "-c", LOOPBACK_UP]
"""Goes before a command."""

CANNOT_REACH = """
import socket
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError as error:
    assert error.errno == 101, error  # ENETUNREACH
else:
    raise SystemExit("there is a network")
listener = socket.create_server(("127.0.0.1", 0))
socket.create_connection(listener.getsockname(), timeout=5)
print("closed")
"""


def missing() -> str | None:
    """Why there can be no such namespace here."""
    try:
        tried = subprocess.run([*WITHOUT_NETWORK, sys.executable, "-c", CANNOT_REACH], capture_output=True, text=True)
    except OSError as error:
        return f"unshare cannot be run ({error}): apt-get install util-linux"
    return None if tried.stdout == "closed\n" else f"no right to make a network namespace: {tried.stderr.strip()[-200:]}"


RECORDER = """
import os, socket, sys
OWN = {None, "", "localhost", "0.0.0.0", "::", "::1", socket.gethostname()}
def record(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        host = arguments[1][0] if isinstance(arguments[1], tuple) else None
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in OWN and not str(host).startswith("127."):
        with open(os.environ["NETWORK_RECORD"], "a") as file:
            file.write(f"{event} {host} by {sys.argv}\\n")
sys.addaudithook(record)
"""
"""sitecustomize.py: writes into the file NETWORK_RECORD whom a Python process looks up or connects to, itself apart."""
