# k0sproject/k0s#2849, k3s-io/k3s#4847: kube-router's network policy rejects with port unreachable: connection refused, though the pod listens
from ways import *
L = Lab("p07_kube_router_reject").netns("node", "pod", "back")
pod(L, "node", "pod", "10.244.0.5", "10.244.0.1", "veth1"); pod(L, "node", "back", "10.244.0.12", "10.244.1.1", "veth2")
L.x("node", "sysctl -qw net.ipv4.ip_forward=1")
ipt(L, "node", """*filter
:KUBE-ROUTER-FORWARD - [0:0]
:KUBE-POD-FW-VLPV47CG3OAM3QH6 - [0:0]
:KUBE-NWPLCY-DEFAULT - [0:0]
-A FORWARD -m comment --comment "kube-router netpol - TEMCG2JMHZYE7H7T" -j KUBE-ROUTER-FORWARD
-A KUBE-ROUTER-FORWARD -d 10.244.0.12/32 -m comment --comment "rule to jump traffic destined to POD name:web-0 namespace: shop to chain KUBE-POD-FW-VLPV47CG3OAM3QH6" -j KUBE-POD-FW-VLPV47CG3OAM3QH6
-A KUBE-POD-FW-VLPV47CG3OAM3QH6 -m comment --comment "rule for stateful firewall for pod" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-POD-FW-VLPV47CG3OAM3QH6 -m comment --comment "rule to drop invalid state for pod" -m conntrack --ctstate INVALID -j DROP
-A KUBE-POD-FW-VLPV47CG3OAM3QH6 -d 10.244.0.12/32 -m comment --comment "rule to permit the traffic to pods when source is the pod's local node" -m addrtype --src-type LOCAL -j ACCEPT
-A KUBE-POD-FW-VLPV47CG3OAM3QH6 -d 10.244.0.12/32 -m comment --comment "run through default ingress network policy  chain" -j KUBE-NWPLCY-DEFAULT
-A KUBE-POD-FW-VLPV47CG3OAM3QH6 -m comment --comment "rule to log dropped traffic POD name:web-0 namespace: shop" -m mark ! --mark 0x10000/0x10000 -m limit --limit 10/min --limit-burst 10 -j NFLOG --nflog-group 100
-A KUBE-POD-FW-VLPV47CG3OAM3QH6 -m comment --comment "rule to REJECT traffic destined for POD name:web-0 namespace: shop" -m mark ! --mark 0x10000/0x10000 -j REJECT --reject-with icmp-port-unreachable
-A KUBE-POD-FW-VLPV47CG3OAM3QH6 -j MARK --set-xmark 0x0/0x10000
COMMIT
""")
L.pyserve("back", "0.0.0.0", 80)
L.trace("pod")
print(L.x("pod", "curl -sS -m 4 http://10.244.0.12/", check=False).stderr)
L.stop(); L.show()
judge(L, L.outcomes(port=80), "a network policy rejects it; the pod listens", ("rejected_by_firewall",), ("KUBE-POD-FW-VLPV47CG3OAM3QH6", "rule to REJECT traffic destined for POD name:web-0 namespace: shop"), ("nothing listens",), ("certain", "likely"), ("refused",))
