# https://mustafaerbay.com.tr/en/blog/tutorials/netplan-ile-policy-based-routing-ve-yedek-hat-tasarimi, systemd/systemd#33540: two uplinks; the rule `from` the second address asks a table without a default route, main decides: source of one uplink, device of the other
from ways import *
L = Lab("p23_two_uplinks").netns("a", "isp1", "isp2")
L.link("a", "ens18", "10.20.0.10/24", "isp1", "e0", "10.20.0.1/24"); L.link("a", "ens19", "172.16.30.10/24", "isp2", "e0", "172.16.30.1/24")
L.x("a", "ip route add default via 10.20.0.1; ip route add 172.16.30.0/24 via 172.16.30.1 table 200; ip rule add pref 100 from 172.16.30.10/32 lookup 200")
L.x("isp1", "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.e0.rp_filter=1; ip addr add 203.0.113.5/32 dev lo"); L.pyserve("isp1", "203.0.113.5", 443)
L.trace("a")
print(L.x("a", "curl -sS -m 3 http://203.0.113.5:443/; curl -sS -m 3 --interface 172.16.30.10 http://203.0.113.5:443/", check=False))
L.stop(); L.show()
o = [x for x in L.outcomes(port=443) if x["label"] != "established"]
judge(L, o, "sent from 172.16.30.10 (ens19) by ens18: table 200 has no default route; the first router drops the foreign source", ("wrong_source", "dropped_here", "local_firewall"), ("172.16.30.10", "ens18"), ("start the host",), ("certain", "likely"), ("timed_out",))
