"""amqtt (MQTT 3.1.1) with sessions in memory, on a free port, which it prints. It ends with its input."""

import asyncio
import socket
import sys

from amqtt.broker import Broker


async def main():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    broker = Broker({
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    })
    await broker.start()
    print(f"port {port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await broker.shutdown()


asyncio.run(main())
