# cloudnativelabs/kube-router#1069, kubernetes/kubernetes#40182 (comment 2020-05-15): rules in iptables-legacy drop what iptables (nft) shows nothing of. Control: an nft chain is there and accepts
from ways import *
L = Lab("p26_legacy_and_nft").netns("node", "pod", "back")
pod(L, "node", "pod", "10.244.0.5", "10.244.0.1", "veth1"); pod(L, "node", "back", "10.244.0.6", "10.244.1.1", "veth2")
L.x("node", "sysctl -qw net.ipv4.ip_forward=1; iptables-nft -A FORWARD -s 10.244.9.9 -j DROP; iptables-nft -A FORWARD -j ACCEPT; iptables-legacy -P FORWARD DROP; iptables-legacy -A FORWARD -i docker0 -j ACCEPT")
L.pyserve("back", "0.0.0.0", 8080)
L.trace("pod")
print(L.x("pod", "curl -sS -m 3 http://10.244.0.6:8080/", check=False).stderr)
L.stop(); L.show()
judge(L, L.outcomes(port=8080), "a netfilter drop on this machine; the nft rules accept it, so the legacy rules must be looked at", ("local_firewall", "dropped_here"), ("iptables-legacy",), ("10.244.9.9", "conntrack table is full"), ("likely", "possible", "certain"), ("timed_out",))
