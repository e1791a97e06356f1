# kubernetes/kubernetes#17359, kubernetes/kubernetes#121046 (kube-proxy nftables backend): a service without endpoints; the verdict map no-endpoint-services goes to reject-chain; pod and node
from ways import *
L = Lab("p01_kube_nft_no_endpoints").netns("node", "pod", "out")
L.link("node", "eth0", "192.0.2.10/24", "out", "eth0", "192.0.2.1/24"); pod(L, "node", "pod", "10.244.0.5", "10.244.0.1", "veth1")
L.x("node", "sysctl -qw net.ipv4.ip_forward=1; ip route add default via 192.0.2.1")
kube_proxy(L, "node", "10.96.0.50", elements='add element ip kube-proxy no-endpoint-services { 10.96.0.50 . tcp . 80 comment "shop/cart:http" : goto reject-chain }\n')
L.trace("node", "pod")
print(L.x("pod", "curl -sS -m 4 http://10.96.0.50/", check=False).stderr, L.x("node", "curl -sS -m 4 http://10.96.0.50/", check=False).stderr)
L.stop(); L.show()
judge(L, L.outcomes(port=80), "kube-proxy rejects: shop/cart:http has no endpoints; look for its pods, not for a firewall", ("service_without_endpoints",), ("shop/cart:http", "kube-proxy"), labels=("refused",), count=2)
