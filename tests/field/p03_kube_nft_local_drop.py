# kubernetes/kubernetes#131765: externalTrafficPolicy Local, nftables mode: pods of the node get no answer from the LoadBalancer's address; no-endpoint-services says drop
from ways import *
L = Lab("p03_kube_nft_local_drop").netns("node", "pod", "out")
L.link("node", "eth0", "192.0.2.10/24", "out", "eth0", "192.0.2.1/24"); pod(L, "node", "pod", "10.244.0.5", "10.244.0.1", "veth1")
L.x("node", "sysctl -qw net.ipv4.ip_forward=1; ip route add default via 192.0.2.1")
kube_proxy(L, "node", "10.96.0.50", elements='add element ip kube-proxy no-endpoint-services { 10.88.1.2 . tcp . 80 comment "sys-ingress-priv/internal-ingress-controller-v2:web" : drop }\n')
L.trace("pod")
print(L.x("pod", "curl -sS -m 3 http://10.88.1.2/", check=False).stderr)
L.stop(); L.show()
judge(L, L.outcomes(port=80), "kube-proxy drops it on this node: the service has no local endpoint", ("local_firewall", "service_without_endpoints"), ("sys-ingress-priv/internal-ingress-controller-v2:web", "kube-proxy"), ("VPN",), ("certain",), ("timed_out",))
