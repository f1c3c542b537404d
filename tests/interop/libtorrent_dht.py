"""How libtorrent takes part in a DHT that is all on one private network."""


def entering_by(node):
    """The settings of a session whose DHT node enters by this one."""
    return {
        "enable_dht": True,
        "dht_bootstrap_nodes": node,
        "dht_restrict_routing_ips": False,
        "dht_restrict_search_ips": False,
        "dht_ignore_dark_internet": False,
    }
