# containernetworking/plugins#683, projectcalico/calico#3412: the rule of a deleted pod's hostPort stays and comes first: No route to host, though the new pod runs
from ways import *
L = Lab("p08_stale_hostport").netns("node", "pod", "new", "out")
L.link("node", "eth0", "192.0.2.10/24", "out", "eth0", "192.0.2.1/24"); bridge(L, "node", "cni0", "10.244.0.1", pod="10.244.0.5", new="10.244.0.12")
L.x("node", "sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=0; ip route add default via 192.0.2.1")
ipt(L, "node", """*nat
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-DN-93fd5f42fffe1daf6b01f - [0:0]
:CNI-DN-80ae20ae0de6904d5f4b4 - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \\"k8s-pod-network\\" id: \\"efa1c24cca6a\\"" -m multiport --dports 8126 -j CNI-DN-93fd5f42fffe1daf6b01f
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \\"k8s-pod-network\\" id: \\"0bd2e55a1c11\\"" -m multiport --dports 8126 -j CNI-DN-80ae20ae0de6904d5f4b4
-A CNI-DN-93fd5f42fffe1daf6b01f -p tcp -m tcp --dport 8126 -j DNAT --to-destination 10.244.0.9:8126
-A CNI-DN-80ae20ae0de6904d5f4b4 -p tcp -m tcp --dport 8126 -j DNAT --to-destination 10.244.0.12:8126
COMMIT
""")
L.pyserve("new", "0.0.0.0", 8126)
L.trace("pod")
print(L.x("pod", "curl -sS -m 6 http://192.0.2.10:8126/", check=False).stderr)
L.stop(); L.show()
judge(L, L.outcomes(port=8126), "192.0.2.10:8126 is translated to 10.244.0.9:8126, a pod that is gone: nobody on cni0 has that address", ("host_down", "neighbour_unresolved", "icmp_unreachable"), ("10.244.0.9",), ("start 192.0.2.10", "192.0.2.10 is down", "deliver to 192.0.2.10"), ("certain", "likely"))
