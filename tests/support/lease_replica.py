"""One replica as a process: waits for the lead, acts while it has it, gives it back on SIGTERM.

``python -m support.lease_replica URL ACTS [FIELD=SECONDS …]``; ``URL`` is that of the API server, or ``kubeconfig``. For each
act, a line with the time is appended to the file ``ACTS``, by the clock that all processes of this machine share.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from kubernetes import client, config

from siorg_operator.cluster.leader import Leadership
from siorg_operator.settings import OperatorSettings
from siorg_runtime.logs import configure

ACT_SECONDS = 0.01


def main(url: str, acts: str, *seconds: str) -> None:
    configure("json", "info")
    configuration = client.Configuration()
    if url == "kubeconfig":
        config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        configuration.host = url
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    times: dict[str, Any] = {name: int(value) for name, _, value in (one.partition("=") for one in seconds)}
    settings = OperatorSettings(namespace=os.environ.get("POD_NAMESPACE", "siorg"), identity=Path(acts).stem, **times)
    leadership = Leadership(client.ApiClient(configuration), settings)
    if leadership.wait_until_leading(stop):
        with Path(acts).open("a") as file:
            while not stop.is_set():
                if leadership.is_leader:
                    file.write(f"{time.monotonic()}\n")
                    file.flush()
                time.sleep(ACT_SECONDS)
    leadership.release()


if __name__ == "__main__":
    main(*sys.argv[1:])
