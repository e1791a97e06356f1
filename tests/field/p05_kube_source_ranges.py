# kubernetes/kubernetes#109575: since 1.25 pods are no longer in loadBalancerSourceRanges: KUBE-PROXY-FIREWALL drops what the cluster sends to its own LoadBalancer
from ways import *
L = Lab("p05_kube_source_ranges").netns("node", "pod", "out")
L.link("node", "eth0", "192.0.2.10/24", "out", "eth0", "192.0.2.1/24"); pod(L, "node", "pod", "10.244.0.5", "10.244.0.1", "veth1")
L.x("node", "sysctl -qw net.ipv4.ip_forward=1; ip route add default via 192.0.2.1")
ipt(L, "node", """*filter
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-PROXY-FIREWALL -d 203.0.113.8/32 -p tcp -m comment --comment "shop/front:https traffic not accepted by KUBE-FW-NUKIZ6OKUXPJNT4C" -m tcp --dport 443 -j DROP
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-FW-NUKIZ6OKUXPJNT4C - [0:0]
:KUBE-EXT-NUKIZ6OKUXPJNT4C - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d 203.0.113.8/32 -p tcp -m comment --comment "shop/front:https loadbalancer IP" -m tcp --dport 443 -j KUBE-FW-NUKIZ6OKUXPJNT4C
-A KUBE-FW-NUKIZ6OKUXPJNT4C -s 198.51.100.0/24 -m comment --comment "shop/front:https loadbalancer IP" -j KUBE-EXT-NUKIZ6OKUXPJNT4C
-A KUBE-FW-NUKIZ6OKUXPJNT4C -m comment --comment "other traffic to shop/front:https will be dropped by KUBE-PROXY-FIREWALL"
COMMIT
""")
L.trace("node", "pod")
print(L.x("pod", "curl -sS -m 3 https://203.0.113.8/", check=False).stderr, L.x("node", "curl -sS -m 3 https://203.0.113.8/", check=False).stderr)
L.stop(); L.show()
judge(L, L.outcomes(port=443), "KUBE-PROXY-FIREWALL drops it: the source is not in loadBalancerSourceRanges of shop/front", ("local_firewall",), ("KUBE-PROXY-FIREWALL", "shop/front:https traffic not accepted by KUBE-FW-NUKIZ6OKUXPJNT4C"), sure=("certain",), labels=("timed_out",), count=2)
