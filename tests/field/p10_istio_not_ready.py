# istio/istio#16067, istio/istio#4341: the application starts before its sidecar: ISTIO_OUTPUT redirects to 15001, where nothing listens yet
from ways import *
L = Lab("p10_istio_not_ready").netns("pod", "svc")
L.link("pod", "eth0", "10.244.0.5/24", "svc", "eth0", "10.244.0.6/24"); L.x("pod", "ip route add default via 10.244.0.6"); L.x("svc", "ip addr add 10.96.0.20/32 dev lo")
ISTIO = """*nat
:ISTIO_INBOUND - [0:0]
:ISTIO_IN_REDIRECT - [0:0]
:ISTIO_OUTPUT - [0:0]
:ISTIO_REDIRECT - [0:0]
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_INBOUND -p tcp -m tcp --dport 15008 -j RETURN
-A ISTIO_INBOUND -p tcp -m tcp --dport 15021 -j RETURN
-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
COMMIT
"""
ipt(L, "pod", ISTIO)
L.pyserve("svc", "0.0.0.0", 8080)
L.trace("pod")
print(L.x("pod", "curl -sS -m 3 http://10.96.0.20:8080/", check=False).stderr)
L.stop(); L.show()
judge(L, L.outcomes(port=8080), "the pod's own rule redirects it to the sidecar at 127.0.0.1:15001, which does not listen yet", ("nothing_listening", "proxy_in_path"), ("15001",), ("on 10.96.0.20:", "10.96.0.20 is up"), ("certain", "likely"), ("refused",))
