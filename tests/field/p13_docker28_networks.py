# moby/moby#48724 (Docker 28: unpublished ports of another network are dropped in chain DOCKER), docker/compose kind: two projects, one asks the other's container by address
from ways import *
L = Lab("p13_docker28_networks").netns("host", "app", "db")
bridge(L, "host", "br-aaaa11112222", "172.18.0.1", app="172.18.0.2"); bridge(L, "host", "br-bbbb33334444", "172.19.0.1", db="172.19.0.2")
L.x("host", "sysctl -qw net.ipv4.ip_forward=1")
ipt(L, "host", """*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-INTERNAL - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER -d 172.19.0.2/32 ! -i br-bbbb33334444 -o br-bbbb33334444 -p tcp -m tcp --dport 8080 -j ACCEPT
-A DOCKER ! -i br-aaaa11112222 -o br-aaaa11112222 -j DROP
-A DOCKER ! -i br-bbbb33334444 -o br-bbbb33334444 -j DROP
-A DOCKER-BRIDGE -o br-aaaa11112222 -j DOCKER
-A DOCKER-BRIDGE -o br-bbbb33334444 -j DOCKER
-A DOCKER-CT -o br-aaaa11112222 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-CT -o br-bbbb33334444 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-INTERNAL
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i br-aaaa11112222 -j ACCEPT
-A DOCKER-FORWARD -i br-bbbb33334444 -j ACCEPT
COMMIT
""")
L.bg("db", "redis-server --port 6379 --bind 0.0.0.0 --protected-mode no --save ''", wait=0.6)
L.trace("app")
print(L.x("app", "timeout 3 redis-cli -h 172.19.0.2 ping; curl -sS -m 2 http://172.19.0.2:6379/", check=False).stderr)
L.stop(); L.show()
o = L.outcomes(port=6379)
judge(L, o, "chain DOCKER drops it: the port is not published and the client is in another network; join the network or publish the port", ("local_firewall",), ("chain ip filter DOCKER",), ("policy",), ("certain", "likely"), ("timed_out",), count=len(o) or 1)
