# kubernetes/enhancements#3824 (KEP-3866): a wrong port of a ClusterIP is rejected by cluster-ips-check. Control: the service has endpoints
from ways import *
L = Lab("p02_kube_nft_invalid_port").netns("node", "pod", "back", "out")
L.link("node", "eth0", "192.0.2.10/24", "out", "eth0", "192.0.2.1/24"); pod(L, "node", "pod", "10.244.0.5", "10.244.0.1", "veth1"); pod(L, "node", "back", "10.244.0.6", "10.244.1.1", "veth2")
L.x("node", "sysctl -qw net.ipv4.ip_forward=1; ip route add default via 192.0.2.1")
ch, el = service("shop/cart", "10.96.0.50", 80, "10.244.0.6:8080")
kube_proxy(L, "node", "10.96.0.50, 10.96.0.77", ch, el + 'add element ip kube-proxy no-endpoint-services { 10.96.0.77 . tcp . 80 comment "shop/pay:http" : goto reject-chain }\n')
L.pyserve("back", "0.0.0.0", 8080)
L.trace("pod")
print(L.x("pod", "curl -sS -m 4 http://10.96.0.50:8080/", check=False).stderr, L.x("pod", "curl -sS -m 4 http://10.96.0.50/", check=False).stdout)
L.stop(); L.show()
judge(L, L.outcomes(port=8080), "the ClusterIP has no port 8080 (the service's port is 80): kube-proxy's rule rejects it in words", ("rejected_by_firewall",), ("Reject traffic to invalid ports of ClusterIPs", "cluster-ips-check", "kube-proxy"), ("shop/pay", "no endpoints"), ("certain",), ("refused",))
