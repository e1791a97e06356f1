# systemd/systemd#33540 kind, control: the same at a router with rp_filter that has not been asked before: its ARP request carries the foreign source, so the gateway "does not answer", though it is up
from ways import *
L = Lab("p27_two_uplinks_arp").netns("a", "isp1", "isp2")
L.link("a", "ens18", "10.20.0.10/24", "isp1", "e0", "10.20.0.1/24"); L.link("a", "ens19", "172.16.30.10/24", "isp2", "e0", "172.16.30.1/24")
L.x("a", "ip route add default via 10.20.0.1; ip route add 172.16.30.0/24 via 172.16.30.1 table 200; ip rule add pref 100 from 172.16.30.10/32 lookup 200")
L.x("isp1", "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.e0.rp_filter=1; ip addr add 203.0.113.5/32 dev lo"); L.pyserve("isp1", "203.0.113.5", 443)
L.trace("a")
print(L.x("a", "curl -sS -m 4 --interface 172.16.30.10 http://203.0.113.5:443/", check=False))
L.stop(); L.show()
judge(L, L.outcomes(port=443), "sent from 172.16.30.10 (ens19) by ens18: the router is up, the source is wrong", ("wrong_source", "neighbour_unresolved"), ("172.16.30.10", "ens18", "ens19"), (), ("certain", "likely"))
