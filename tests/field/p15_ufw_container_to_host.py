# chaifeng/ufw-docker#16, moby/moby#49288: with ufw on, a container cannot reach a service of its host: ufw's chains let it fall to the policy DROP of INPUT
from ways import *
L = Lab("p15_ufw_container_to_host").netns("host", "app")
bridge(L, "host", "docker0", "172.17.0.1", app="172.17.0.2")
ipt(L, "host", open(os.path.dirname(os.path.abspath(__file__)) + "/ufw.rules").read())
L.pyserve("host", "0.0.0.0", 9527)
L.trace("app")
print(L.x("app", "curl -sS -m 3 http://172.17.0.1:9527/", check=False).stderr)
L.stop(); L.show()
judge(L, L.outcomes(port=9527), "dropped by the policy of INPUT on the host, whose rules are ufw's: ufw allow from 172.17.0.0/16 to any port 9527", ("local_firewall",), ("INPUT", "policy", "ufw"), ("INVALID", "nothing listens"), ("certain",), ("timed_out",))
