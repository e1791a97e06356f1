# istio/istio#45261 kind, control: the sidecar (uid 1337, not redirected) is refused by its upstream; ISTIO_REDIRECT to 15001 stands there, and is not the reason
from ways import *
src = open(os.path.dirname(os.path.abspath(__file__)) + "/p10_istio_not_ready.py").read()
L = Lab("p11_istio_proxy_itself").netns("pod", "svc")
L.link("pod", "eth0", "10.244.0.5/24", "svc", "eth0", "10.244.0.6/24")
ipt(L, "pod", src.split('ISTIO = """')[1].split('"""')[0])
L.pyserve("svc", "0.0.0.0", 3000)
L.trace("pod")
print(L.x("pod", "setpriv --reuid 1337 --regid 1337 --clear-groups curl -sS -m 3 http://10.244.0.6:9090/", check=False).stderr)
L.stop(); L.show()
judge(L, L.outcomes(port=9090), "10.244.0.6 itself refuses 9090 (3000 is listened on there); the proxy's own connections are not redirected", ("nothing_listening", "wrong_port"), ("10.244.0.6",), ("15001", "15006"), ("certain", "likely"), ("refused",))
