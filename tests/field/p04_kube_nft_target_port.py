# kubernetes/kubeadm#2064 kind, nftables mode: the ClusterIP leads by verdict maps to a pod that does not listen on targetPort. Control: another service has no endpoints
from ways import *
L = Lab("p04_kube_nft_target_port").netns("node", "pod", "back", "out")
L.link("node", "eth0", "192.0.2.10/24", "out", "eth0", "192.0.2.1/24"); pod(L, "node", "pod", "10.244.0.5", "10.244.0.1", "veth1"); pod(L, "node", "back", "10.244.0.6", "10.244.1.1", "veth2")
L.x("node", "sysctl -qw net.ipv4.ip_forward=1; ip route add default via 192.0.2.1")
ch, el = service("shop/cart", "10.96.0.50", 80, "10.244.0.6:8080")
kube_proxy(L, "node", "10.96.0.50, 10.96.0.77", ch, el + 'add element ip kube-proxy no-endpoint-services { 10.96.0.77 . tcp . 80 comment "shop/pay:http" : goto reject-chain }\n')
L.pyserve("back", "0.0.0.0", 3000)
L.trace("node", "pod")
print(L.x("pod", "curl -sS -m 4 http://10.96.0.50/", check=False).stderr, L.x("node", "curl -sS -m 4 http://10.96.0.50/", check=False).stderr)
L.stop(); L.show()
for x in L.outcomes(port=80):
    if x["remote"]["nat"] and x["remote"]["nat"] != {"addr": "10.244.0.6", "port": 8080}: L.verdict(False, f"nat {x['remote']['nat']}")
# the node's own connection is masqueraded: only the rules tell where it went
own = [x for x in L.outcomes(port=80) if x["local"]["addr"] == "192.0.2.10"]
if len(own) != 1 or "10.244.0.6:8080" not in text(own[0]) or code(own[0]) not in ("nothing_listening", "wrong_port", "proxy_in_path") or "on 10.96.0.50:" in text(own[0]): L.verdict(False, f"the node's own line, {[(code(x), cert(x)) for x in own]}: 10.96.0.50:80 leads to 10.244.0.6:8080")
judge(L, [x for x in L.outcomes(port=80) if x["local"]["addr"] == "10.244.0.5"], "10.96.0.50:80 leads to 10.244.0.6:8080, where nothing listens (3000 does)", ("nothing_listening", "wrong_port"), ("10.244.0.6:8080",), ("on 10.96.0.50:", "endpoints", "shop/pay"), labels=("refused",))
