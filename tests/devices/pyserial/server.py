"""A serial server by pyserial (RFC 2217) on a port that hears what it sends.

Prints `port N`, and how the port is set whenever that changes. With `deaf` it takes no baud rate but 9600.
"""

import socket
import sys
import threading
import time

import serial
import serial.rfc2217

port = serial.serial_for_url("loop://", timeout=0.1)
if "deaf" in sys.argv:
    cls = type(port)
    rate = cls.baudrate
    cls.baudrate = property(lambda self: rate.fget(self), lambda self, value: rate.fset(self, 9600))


def settings():
    flow = "rtscts" if port.rtscts else "xonxoff" if port.xonxoff else "none"
    return f"set {port.baudrate} {port.bytesize}{port.parity}{port.stopbits:g} {flow}"


class Connection:
    """What PortManager writes its answers to."""

    def __init__(self, stream):
        self.stream = stream
        self.lock = threading.Lock()

    def write(self, data):
        with self.lock:
            self.stream.sendall(data)


def serve(stream):
    connection = Connection(stream)
    manager = serial.rfc2217.PortManager(port, connection)
    alive = True
    told = None

    def to_network():
        while alive:
            data = port.read(max(1, port.in_waiting))
            if data:
                connection.write(b"".join(manager.escape(data)))

    reader = threading.Thread(target=to_network, daemon=True)
    reader.start()
    while True:
        data = stream.recv(1024)
        if not data:
            break
        port.write(b"".join(manager.filter(data)))
        if told != settings():
            told = settings()
            print(told, flush=True)
    alive = False
    reader.join()
    stream.close()


server = socket.socket()
server.bind(("127.0.0.1", 0))
server.listen()
print(f"port {server.getsockname()[1]}", flush=True)
while True:
    client, _ = server.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        serve(client)
    except OSError:
        time.sleep(0)
