"""Ports for servers of tests: a server listens on its port some seconds after it was found free."""

from __future__ import annotations

import socket
from itertools import islice

from servers.ports import free_ports, own_ports


def test_processes_side_by_side_are_given_different_ports() -> None:
    first, second = (set(islice(own_ports(number), 750)) for number in (0, 1))

    assert not first & second
    assert len(first) == len(second) == 750


def test_a_port_that_is_not_listened_on_yet_is_not_given_again() -> None:
    assert not set(free_ports(300)) & set(free_ports(300))


def test_a_port_that_somebody_listens_on_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", free_ports(1)[0])) as server:
        taken = server.getsockname()[1]

        assert taken not in free_ports(700)
